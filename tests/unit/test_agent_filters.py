"""Filters that a model is offered: what keeps to their schema is read, and nearly all that is."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.conditions import ColumnTypes, Compare, FilterInvalid, Not, Op, parse
from infra.conditions.pairs import OPERATORS
from schemas.agents import Definition
from schemas.indexes import ColumnType, Kept
from schemas.jsonschemas import require_schema
from schemas.search import Search, read
from streams.agents.checking import wrong_arguments
from streams.agents.definition import resolve
from streams.agents.filters import MOST_CHARACTERS, by_name, in_words
from streams.gateway.asked import Asked
from streams.gateway.checks.search import search_sensible
from tests.seed import view_of
from tests.unit.agents import (
    AGENT,
    BOOKS,
    CATALOG,
    NOON,
    after,
    answered,
    asked,
    calls,
    spec,
    started,
)

TYPES: tuple[ColumnType, ...] = get_args(ColumnType)
# Of every type, and of none; of texts such as are dates alone.
VALUES = [
    *("2026-05-01", 3, 3.0, 2.5, -1, True, False, {}, {"a": 1}),
    *([], ["2026-05-01"], [3, 4], [2.5], [True], [3, "2026-05-01"], [None], [[3]]),
]
KEYS = ["c", *(f"c {sign}" for sign in OPERATORS), "c =", "c !=", "C", "d", "c OR d"]
NAMES = st.lists(
    st.sampled_from(["a", "OR", "NOT", "like", "<", ">=", " ", '"', "é"]), min_size=1, max_size=5
).map(" ".join)
VIEW = view_of(CATALOG)


def kept(schema: dict[str, Any], filters: Any) -> bool:
    return wrong_arguments(json.dumps(filters), schema) is None


def reads(filters: dict[str, Any], columns: ColumnTypes) -> bool:
    try:
        parse(filters, columns)
    except FilterInvalid:
        return False
    return True


@pytest.mark.parametrize("kind", TYPES)
def test_what_keeps_to_the_schema_is_what_is_read(kind: ColumnType) -> None:
    schema = by_name([Kept(name="c", type=kind)])
    assert schema is not None
    require_schema(schema)
    both = [(key, value) for key in KEYS for value in VALUES]
    taken = [each for each in both if kept(schema, dict([each]))]
    assert taken == [each for each in both if reads(dict([each]), {"c": kind})]
    assert taken


def test_null_which_for_models_means_no_matter_is_not_offered() -> None:
    schema = by_name([Kept(name="year", type="long"), Kept(name="place")])
    assert schema is not None
    assert not kept(schema, {"year": None, "place": "sea"})
    assert kept(schema, {"place": "sea"})
    assert kept(schema, {})


@pytest.mark.parametrize(
    ("kind", "filters"),
    [
        ("boolean", {"c OR c": [True, False]}),
        ("date", {"c  <": "2026-05-01"}),
        ("double", {"c": None}),
        ("long", {"c NOT": None}),
        ("string", {"c like": "x%"}),
        ("string", {"c not": ["x"]}),
    ],
    ids=str,
)
def test_what_is_read_beyond_the_schema_is_known(kind: ColumnType, filters: dict[str, Any]) -> None:
    schema = by_name([Kept(name="c", type=kind)])
    assert schema is not None
    assert reads(filters, {"c": kind})
    assert not kept(schema, filters)


@pytest.mark.parametrize(
    ("kind", "filters"),
    [
        ("date", {"c": "2026-02-31"}),
        ("date", {"c": "tomorrow"}),
        ("double", {"c": 10**400}),
        ("long", {"c": 2**63}),
        ("string", {"c": "x" * 10_000}),
        ("string", {"c": ["x"] * 1_001}),
        ("string", {"c LIKE": "100\\"}),
    ],
    ids=lambda each: each if isinstance(each, str) else str(each)[:20],
)
def test_what_keeps_to_the_schema_and_is_not_read_is_known(
    kind: ColumnType, filters: dict[str, Any]
) -> None:
    schema = by_name([Kept(name="c", type=kind)])
    assert schema is not None
    assert kept(schema, filters)
    assert not reads(filters, {"c": kind})


@given(st.lists(NAMES, min_size=1, max_size=4, unique=True))
def test_each_name_that_is_offered_is_read_as_the_column_and_operator_that_it_says(
    names: list[str],
) -> None:
    columns: ColumnTypes = dict.fromkeys(names, "string")
    schema = by_name([Kept(name=name) for name in names])
    assert schema is not None
    assert columns.keys() <= schema["properties"].keys()
    for key in schema["properties"]:
        found = parse({key: ["x"] if key.endswith("NOT") else "x"}, columns)
        column, op = (key, Op.EQ) if key in columns else split(key)
        if op is Op.NE:
            assert found == Not(Compare(column, Op.IN, ("x",)))
        elif key in columns and key.endswith("NOT"):
            assert found == Compare(column, Op.IN, ("x",))
        else:
            assert found == Compare(column, op, "x")


def split(key: str) -> tuple[str, Op]:
    column, _, sign = key.rpartition(" ")
    return column, OPERATORS[sign]


def test_what_is_long_is_told_in_words_that_take_every_filter() -> None:
    columns = [Kept(name=f"column{number}", type=TYPES[number % 5]) for number in range(100)]
    narrow = by_name(columns[:8])
    assert narrow is not None
    assert len(json.dumps(narrow)) <= MOST_CHARACTERS
    assert by_name(columns) is None
    schema = in_words(columns)
    assert "column7 (double)" in schema["description"]
    assert "LIKE" in schema["description"]
    assert kept(schema, {"column7 >= OR column9": [1, "x"], "column2": None})


def test_what_a_model_filters_by_passes_the_gateway_and_a_column_that_it_invents_does_not() -> None:
    known = resolve(AGENT, spec(), VIEW)
    assert isinstance(known, Definition)
    filters = {"year >=": "1851", "year NOT": ["1852", "1853"], "year LIKE": "18%"}
    search = {"query": "whales", "filters": filters}
    [call] = asked(after(started(known).run, answered(0, calls(("one", "books", search)))))
    assert call.endpoint == BOOKS
    assert search_sensible(Asked(request=call, place="t/0/0"), VIEW, NOON) is None
    assert read(call.search, Search).filters == filters
    search["filters"] = {**filters, "author": "Melville"}
    step = after(started(known).run, answered(0, calls(("one", "books", search))))
    [turn] = asked(step)
    assert (
        'it has ["author"], takes ["year", "year <"'
        in json.loads(turn.messages[-1].content)["error"]["message"]
    )
