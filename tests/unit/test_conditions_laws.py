"""Laws of conditions, over random ones and random rows; DuckDB is asked for the same."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    without_not,
)
from infra.conditions.tree import joined
from infra.conditions.values import ORDERED, pattern
from schemas.indexes import ColumnType

COLUMNS: ColumnTypes = {
    "b": "boolean",
    "d": "date",
    'l "1"': "long",
    "s OR t": "string",
    "x": "double",
}
SQL_TYPES = {
    "boolean": "BOOLEAN",
    "date": "TIMESTAMP",
    "double": "DOUBLE",
    "long": "BIGINT",
    "string": "VARCHAR",
}

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
# Few of each, so that rows and conditions meet; the edges among them.
VALUES: dict[ColumnType, st.SearchStrategy[Any]] = {
    "boolean": st.booleans(),
    "date": st.integers(-3, 3).map(lambda hours: NOON + timedelta(hours=hours)),
    "double": st.one_of(
        st.integers(-3, 3).map(float), st.floats(allow_nan=False, allow_infinity=False)
    ),
    "long": st.one_of(st.integers(-3, 3), st.sampled_from([-(2**63), 2**53 + 1, 2**63 - 1])),
    "string": st.text("ab%_\\'\n😀é", max_size=4),
}
LETTERS = st.lists(st.sampled_from(["a", "b", "%", "_", "!%", "!_", "!!", "\\", "é", "😀"]))
PATTERNS = LETTERS.map(lambda letters: pattern("".join(letters), "!", "here"))


@st.composite
def comparisons(draw: st.DrawFn) -> Compare:
    column = draw(st.sampled_from(sorted(COLUMNS)))
    kind = COLUMNS[column]
    ops = set(Op) - (ORDERED if kind == "boolean" else set())
    op = draw(st.sampled_from(sorted(ops - (set() if kind == "string" else {Op.LIKE}))))
    if op is Op.NULL:
        return Compare(column, op, draw(st.booleans()))
    if op is Op.LIKE:
        return Compare(column, op, draw(PATTERNS))
    if op is Op.IN:
        return Compare(column, op, tuple(draw(st.lists(VALUES[kind], min_size=1, max_size=3))))
    return Compare(column, op, draw(VALUES[kind]))


def grown(conditions: st.SearchStrategy[Condition]) -> st.SearchStrategy[Condition]:
    several = st.lists(conditions, min_size=2, max_size=3)
    return st.one_of(
        conditions.map(Not),
        several.map(lambda parts: joined(And, parts)),
        several.map(lambda parts: joined(Or, parts)),
    )


CONDITIONS: st.SearchStrategy[Condition] = st.recursive(comparisons(), grown, max_leaves=8)
ROWS = st.fixed_dictionaries({column: st.none() | VALUES[kind] for column, kind in COLUMNS.items()})


@given(CONDITIONS, ROWS)
def test_a_condition_without_not_holds_for_the_same_rows(
    condition: Condition, row: dict[str, Any]
) -> None:
    assert matches(without_not(condition), row) == matches(condition, row)


def parts_of(condition: Condition) -> Iterator[Condition]:
    yield condition
    match condition:
        case And(parts) | Or(parts):
            for part in parts:
                assert type(part) is not type(condition)
                yield from parts_of(part)
        case Not(part):
            yield from parts_of(part)


@given(CONDITIONS)
def test_not_is_left_in_front_of_like_alone(condition: Condition) -> None:
    for part in parts_of(without_not(condition)):
        assert not isinstance(part, Not) or (
            isinstance(part.part, Compare) and part.part.op is Op.LIKE
        )


@given(CONDITIONS)
def test_the_text_of_a_condition_reads_as_the_same(condition: Condition) -> None:
    read = parse(to_sql(condition), COLUMNS)
    assert read == condition
    assert repr(read) == repr(condition)


@given(st.one_of(st.text(max_size=40), st.lists(st.sampled_from(
    ["x", "b", "=", "<", "NOT", "AND", "OR", "(", ")", "IN", ",", "1", "'a'", "LIKE", "IS", "NULL",
     "BETWEEN", "-", ".", "ESCAPE", "TRUE", "DATE", '"s OR t"', "::", "--", "/*", "'", '"', "e"]
), max_size=12).map(" ".join)))  # fmt: skip
def test_whatever_is_written_is_read_or_refused(text: str) -> None:
    try:
        read = parse(text, COLUMNS)
    except FilterInvalid:
        return
    assert read is None or parse(to_sql(read), COLUMNS) == read


@given(st.dictionaries(
    st.one_of(st.text(max_size=8), st.sampled_from(
        ["x", "b", "d", "x <", "s OR t", "s OR t LIKE", "x OR b", "b NOT", "x OR", " OR "])),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
        lambda some: st.lists(some, max_size=3) | st.dictionaries(st.text(max_size=2), some),
        max_leaves=4,
    ),
    max_size=3,
))  # fmt: skip
def test_whatever_a_dictionary_holds_is_read_or_refused(filters: dict[str, Any]) -> None:
    try:
        read = parse(filters, COLUMNS)
    except FilterInvalid:
        return
    assert (read is None) == (not filters)
    assert read is None or parse(to_sql(read), COLUMNS) == read


@pytest.fixture(scope="module")
def duck() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        columns = ", ".join(
            f'"{name.replace(chr(34), chr(34) * 2)}" {SQL_TYPES[kind]}'
            for name, kind in COLUMNS.items()
        )
        connection.execute(f"CREATE TABLE rows (number BIGINT, {columns})")
        yield connection


@settings(max_examples=150, deadline=None)
@given(conditions=st.lists(CONDITIONS, min_size=1, max_size=5), rows=st.lists(ROWS, max_size=10))
def test_duckdb_finds_the_same_rows(
    duck: duckdb.DuckDBPyConnection, conditions: list[Condition], rows: list[dict[str, Any]]
) -> None:
    duck.execute("DELETE FROM rows")
    for number, row in enumerate(rows):
        values = [row[column] for column in COLUMNS]
        values = [v.replace(tzinfo=None) if isinstance(v, datetime) else v for v in values]
        duck.execute("INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?)", [number, *values])
    for condition in conditions:
        asked = f"SELECT number FROM rows WHERE {to_sql(condition)} ORDER BY number"
        found = [number for (number,) in duck.execute(asked).fetchall()]
        assert found == [number for number, row in enumerate(rows) if matches(condition, row)]
