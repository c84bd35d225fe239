"""Conditions as people write them: what is read, and what is refused with the place."""

from __future__ import annotations

import doctest
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

import pytest

from infra import conditions
from infra.conditions import (
    And,
    ColumnTypes,
    Compare,
    Condition,
    FilterInvalid,
    Not,
    Op,
    Or,
    matches,
    parse,
    to_sql,
    truth,
    values,
)

COLUMNS: ColumnTypes = {
    "a OR b": "string",
    "color": "string",
    "date": "date",
    "made": "date",
    "n": "long",
    "price": "double",
    "sold": "boolean",
    "the größe": "long",
}
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)

SAME: list[tuple[dict[str, Any], str, Condition]] = [
    ({"n": 5}, "n = 5", Compare("n", Op.EQ, 5)),
    ({"n": 5.0}, "5.0 = n", Compare("n", Op.EQ, 5)),
    ({"n <": -5}, "n < -5", Compare("n", Op.LT, -5)),
    ({"price >=": 5}, "5e0 <= price", Compare("price", Op.GE, 5.0)),
    ({"color NOT": "it's"}, "color != 'it''s'", Compare("color", Op.NE, "it's")),
    ({"sold": False}, "sold = false", Compare("sold", Op.EQ, False)),
    ({"made": None}, "made IS NULL", Compare("made", Op.NULL, True)),
    ({"made NOT": None}, "made is not null", Compare("made", Op.NULL, False)),
    ({"n": [1, 2]}, "n IN (1, 2)", Compare("n", Op.IN, (1, 2))),
    ({"n NOT": [1]}, "n NOT IN (1)", Not(Compare("n", Op.IN, (1,)))),
    ({"color LIKE": r"5\%_"}, r"color LIKE '5!%_' ESCAPE '!'", Compare("color", Op.LIKE, r"5\%_")),
    ({"color LIKE": "a%"}, "color LIKE 'a%'", Compare("color", Op.LIKE, "a%")),
    ({"made >": "2026-05-01T14:00:00+02:00"}, "made > '2026-05-01 12:00:00'",
     Compare("made", Op.GT, NOON)),
    ({"date <": "2026-05-01T12:00:00Z"}, "date < TIMESTAMP '2026-05-01T12:00:00z'",
     Compare("date", Op.LT, NOON)),
    ({"n >=": 1, "n <=": 3}, "n BETWEEN 1 AND 3",
     And((Compare("n", Op.GE, 1), Compare("n", Op.LE, 3)))),
    ({"n < OR color": [5, ["a", "b"]]}, "n < 5 OR color IN ('a', 'b')",
     Or((Compare("n", Op.LT, 5), Compare("color", Op.IN, ("a", "b"))))),
    ({"a OR b": "x"}, "\"a OR b\" = 'x'", Compare("a OR b", Op.EQ, "x")),
    ({"the größe": 1, "sold": True}, '("the größe" = 1) AND ((sold = TRUE))',
     And((Compare("the größe", Op.EQ, 1), Compare("sold", Op.EQ, True)))),
]  # fmt: skip


@pytest.mark.parametrize(("dictionary", "text", "tree"), SAME, ids=[each[1] for each in SAME])
def test_both_forms_give_the_same_tree(
    dictionary: dict[str, Any], text: str, tree: Condition
) -> None:
    read = [parse(dictionary, COLUMNS), parse(text, COLUMNS)]
    assert read == [tree, tree]
    # Python takes 1, 1.0 and True for equal.
    assert [repr(each) for each in read] == [repr(tree)] * 2


@pytest.mark.parametrize("nothing", [None, {}, "", " \n"])
def test_a_filter_that_says_nothing_is_none(nothing: dict[str, Any] | str | None) -> None:
    assert parse(nothing, COLUMNS) is None


def test_and_binds_closer_than_or_and_not_closest() -> None:
    read = parse("NOT n = 1 AND n = 2 OR n NOT BETWEEN 3 AND 4 AND n = 5", COLUMNS)
    n = [Compare("n", Op.EQ, number) for number in range(6)]
    between = And((Compare("n", Op.GE, 3), Compare("n", Op.LE, 4)))
    assert read == Or((And((Not(n[1]), n[2])), And((Not(between), n[5]))))


REFUSED = [
    ("n = 1 AND lower(color) = 'x'", "at character 11: functions are not known"),
    ("n = (SELECT 1)", "at character 5: here stands a value"),
    ("n IN (SELECT n FROM t)", "at character 7: here stands a value"),
    ("EXISTS (SELECT 1)", "at character 1: functions are not known"),
    ("CAST(n AS text) = '1'", "functions are not known"),
    ("n::text = '1'", "at character 2: here stands =, <>"),
    ("n = 1::bigint", "at character 6: here stands AND, OR or the end"),
    ("n = price", "at character 5: here stands a value.*never a column"),
    ("t.n = 1", "write the column alone"),
    ("n + 1 = 2", "at character 3: here stands =, <>"),
    ("n = 1 + 1", "at character 7: here stands AND, OR or the end"),
    ("size = 1", 'at character 1: no column "size" is kept; known: "a OR b", "color"'),
    ("sold", "at the end: here stands =, <>"),
    ("NOT", "at the end: here stands a column"),
    ("n = ", "at the end: here stands a value"),
    ("n = 1 n = 2", "at character 7: here stands AND, OR or the end"),
    ("(n = 1", r"at the end: here stands AND, OR or \)"),
    ("n = 1)", "at character 6: here stands AND, OR or the end"),
    ("n = 1; DROP TABLE t", "at character 6: here stands AND, OR or the end"),
    ("n = 1 -- AND sold = TRUE", "no comments"),
    ("/* all */ n = 1", "no comments"),
    ("-- n = 1", "at the end: here stands a column"),
    ("color = 'x", "never closed"),
    ('"color = 1', "never closed"),
    ("color = E'x'", "at character 9: here stands a value"),
    ("color = $$x$$", "at character 9: here stands a value"),
    ("color = N'x'", "at character 9: here stands a value"),
    ("color ILIKE 'x'", "at character 7: here stands =, <>"),
    ("color LIKE 'x!' ESCAPE '!'", "at character 1: the pattern ends in its escape"),
    ("color LIKE 'x' ESCAPE '!!'", "ESCAPE takes text of one character"),
    ("color LIKE 'x' ESCAPE 1", "ESCAPE takes text of one character"),
    ("n LIKE '1%'", 'LIKE is for text, and "n" is a long'),
    ("n IS 5", "at character 6: here stands NULL"),
    ("sold IS TRUE", "for booleans write = TRUE"),
    ("n = NULL", "write IS NULL"),
    ("n IN (1, NULL)", "write IS NULL"),
    ("n IN ()", "here stands a value"),
    ("n BETWEEN 1 OR 2", "at character 13: here stands AND and the upper end"),
    ("n = 'x'", '"n" is a long: write a whole number'),
    ("n = 1.5", '"n" is a long: write a whole number'),
    ("n = 9223372036854775808", "at most 64 bits"),
    ("n = 1e400", "at most 64 bits"),
    ("price = 1e400", '"price" is a double: write a number'),
    ("price = TRUE", '"price" is a double: write a number'),
    ("sold = 1", '"sold" is a boolean: write TRUE or FALSE'),
    ("sold < TRUE", "is a boolean: compare it with ="),
    ("color = 5", '"color" is a string: write text'),
    ("color = DATE '2026-05-01'", '"color" is a string: write text'),
    ("made = 5", '"made" is a date: write text like'),
    ("made = '1 May 2026'", '"made" is a date: write text like'),
    ("made = '2026-02-30'", '"made" is a date: write text like'),
    ("made = '2026-W01'", '"made" is a date: write text like'),
    ("made = '0001-01-01T00:00:00+01:00'", '"made" is a date: write text like'),
    ("made = DATE 'soon'", "at character 13: here stands a date"),
    ("n > ALL (1)", "here stands a value"),
    ("n <=> 1", "here stands"),
    ("`n` = 1", "here stands a column"),
    ("n = ?", "here stands a value"),
    ("\x00", "here stands a column"),
    ("(" * 65 + "n = 1" + ")" * 65, "at character 65: more than 64 levels"),
    ("NOT " * 65 + "n = 1", "more than 64 levels"),
    ("(" * 10_000, "more than 64 levels"),
    ("n = --1", "no comments"),
    ("n = " + "- " * 4_000 + "1", "here stands a value"),
    (" OR ".join(["n=1"] * 1_001), "more than 1,000 values"),
    (f"n IN ({','.join('1' * 1_001)})", "more than 1,000 values"),
    ("n = 1" + " " * 10_000, "longer than 10,000 characters"),
]


@pytest.mark.parametrize(("text", "reason"), REFUSED, ids=[each[0][:40] for each in REFUSED])
def test_all_else_is_refused_with_the_place_and_the_remedy(text: str, reason: str) -> None:
    with pytest.raises(FilterInvalid, match=reason):
        parse(text, COLUMNS)


REFUSED_DICTIONARIES: list[tuple[dict[str, Any], str]] = [
    ({"size <": 1}, 'in "size <": no column "size" is kept'),
    ({"n <>": 1}, 'in "n <>": no column "n <>" is kept'),
    ({"n <": [1, 2]}, 'in "n <": a list goes with a column alone or with NOT, not with <'),
    ({"n <": None}, "write IS NULL"),
    ({"n": []}, 'the list for "n" is empty'),
    ({"n": [1, None]}, "write IS NULL"),
    ({"n": {"x": 1}}, '"n" is a long: write a whole number'),
    ({"n": True}, '"n" is a long: write a whole number'),
    ({"price": float("nan")}, '"price" is a double: write a number'),
    ({"price": 10**400}, '"price" is a double: write a number'),
    ({"n OR color": 1}, "OR over 2 columns takes a list of as many values"),
    ({"n OR color": [1]}, "OR over 2 columns takes a list of as many values"),
    ({"n OR size": [1, 2]}, 'in "n OR size": no column "size" is kept'),
    ({"color LIKE": 5}, '"color" is a string: write text'),
    ({"color LIKE": "x\\"}, "the pattern ends in its escape"),
    ({"n": list(range(1_001))}, "more than 1,000 values"),
    ({"color": "x" * 10_000}, "longer than 10,000 characters"),
]


@pytest.mark.parametrize(("filters", "reason"), REFUSED_DICTIONARIES)
def test_a_dictionary_that_cannot_be_read_names_the_key(
    filters: dict[str, Any], reason: str
) -> None:
    with pytest.raises(FilterInvalid, match=reason):
        parse(filters, COLUMNS)


@pytest.mark.parametrize(
    "filters",
    ["n = 'hunter2'", {"n": "hunter2"}, "color = 'hunter2' AND", "made = 'hunter2'",
     {"n OR color": ["hunter2"]}, "'hunter2' 'hunter2'", "color LIKE 'hunter2!' ESCAPE '!'"],
)  # fmt: skip
def test_an_error_quotes_no_value(filters: dict[str, Any] | str) -> None:
    with pytest.raises(FilterInvalid) as refused:
        parse(filters, COLUMNS)
    assert "hunter2" not in str(refused.value)


def test_bounds_themselves_are_kept() -> None:
    deep = "(" * 64 + "n = 1" + ")" * 64
    assert parse(deep, COLUMNS) == Compare("n", Op.EQ, 1)
    wide = parse(" OR ".join(["n=1"] * 1_000), COLUMNS)
    assert isinstance(wide, Or)
    assert len(wide.parts) == 1_000
    assert matches(wide, {"n": 1})


def test_words_of_sql_are_names_where_they_can_be() -> None:
    columns: ColumnTypes = {"comment": "string", "show": "long", "select": "long", "and": "long"}
    assert parse("show = 1 AND select = 2 AND \"and\" = 3 AND comment = 'x'", columns) == parse(
        {"show": 1, "select": 2, "and": 3, "comment": "x"}, columns
    )


@pytest.mark.parametrize(
    ("pattern", "text", "alike"),
    [
        ("", "", True),
        ("", "a", False),
        ("%", "", True),
        ("a%", "a\nb", True),
        ("%b", "ab\n", False),
        ("a_c", "a😀c", True),
        ("a_c", "ac", False),
        ("%a%b%", "xxaxxbxx", True),
        ("%a%b%", "xxbxxaxx", False),
        ("a%a", "a", False),
        ("ab%ba", "aba", False),
        (r"\%\_\\", r"%_\\"[:-1], True),
        ("[a.]*", "[a.]*", True),
        ("A", "a", False),
    ],
)
def test_like_is_as_in_sql(pattern: str, text: str, alike: bool) -> None:
    assert matches(Compare("color", Op.LIKE, pattern), {"color": text}) is alike


@pytest.mark.timeout(60)
def test_no_pattern_takes_long() -> None:
    assert not matches(Compare("color", Op.LIKE, "%a" * 4_000 + "b"), {"color": "a" * 20_000})


@pytest.mark.parametrize(
    ("text", "row", "matching"),
    [
        ("n = 1", {}, False),
        ("NOT n = 1", {}, False),
        ("n IS NULL", {}, True),
        ("n = 1 OR sold = TRUE", {"n": None, "sold": True}, True),
        ("NOT (n = 1 AND sold = TRUE)", {"n": None, "sold": False}, True),
        ("n NOT IN (1, 2)", {"n": 3}, True),
        ("n = 1", {"n": "1"}, False),
        ("n = 1", {"n": True}, False),
        ("sold = TRUE", {"sold": 1}, False),
        ("made = '2026-05-01T12:00:00Z'", {"made": "2026-05-01T14:00:00.000+02:00"}, True),
        ("made <= '2026-05-01T12:00:00Z'", {"made": "2026-05-01T12:00:00.5Z"}, False),
        ("made = '2026-05-01T12:00:00Z'", {"made": NOON}, True),
        ("made > '2026-05-01'", {"made": "soon"}, False),
        ("price > 1e300", {"price": float("nan")}, True),
    ],
)
def test_rows_match_as_in_sql(text: str, row: dict[str, Any], matching: bool) -> None:
    condition = parse(text, COLUMNS)
    assert condition
    assert matches(condition, row) is matching


def test_a_condition_is_written_as_sql() -> None:
    text = '"n" IN (1, 2) AND (NOT "color" LIKE \'a\\%\' ESCAPE \'\\\' OR "made" IS NOT NULL)'
    condition = parse(text, COLUMNS)
    assert condition
    assert to_sql(condition) == text


@pytest.mark.parametrize("module", [conditions, truth, values])
def test_the_examples_of_the_docs_hold(module: ModuleType) -> None:
    outcome = doctest.testmod(module)
    assert outcome.attempted > 0
    assert outcome.failed == 0
