"""How values lie in the vector store: exact, and sorted by their text as by themselves."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.vectors.documents import Head, Place, chunk_id, document_id, supersedes
from infra.vectors.layout import chunks_of, heads_of
from infra.vectors.properties import (
    ValueWrong,
    decoded,
    encoded,
    is_exact,
    order_of,
    pattern_property,
    property_of,
    ranged,
)
from schemas.indexes import ColumnType, Kept

LONGS = st.integers(-(2**63), 2**63 - 1)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
DATES = st.datetimes(timezones=st.just(UTC))
KEYS = st.integers() | TEXTS | st.floats(allow_nan=False) | st.booleans() | st.none()


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("boolean", st.booleans()),
        ("date", DATES),
        ("double", st.floats(allow_nan=False)),
        ("long", LONGS),
        ("string", TEXTS),
    ],
)
def test_text_sorts_as_the_values_do(kind: ColumnType, values: st.SearchStrategy[Any]) -> None:
    @given(values, values)
    def law(one: Any, other: Any) -> None:
        first, second = encoded(kind, one), encoded(kind, other)
        assert (first < second) is (one < other)
        assert (first == second) is (one == other)

    law()


@given(DATES)
def test_a_date_comes_back_as_the_same_instant(moment: datetime) -> None:
    assert datetime.fromisoformat(decoded("date", encoded("date", moment))) == moment


@given(st.floats(allow_nan=False))
def test_a_double_comes_back_to_its_last_bit(value: float) -> None:
    assert decoded("double", encoded("double", value)) == value


@given(LONGS)
def test_a_long_comes_back_beyond_what_a_double_holds(value: int) -> None:
    assert decoded("long", encoded("long", value)) == value


@given(TEXTS)
def test_text_comes_back_with_its_spaces_and_capitals(value: str) -> None:
    assert decoded("string", encoded("string", value)) == value


@pytest.mark.parametrize(
    ("kind", "values"), [("date", DATES), ("double", st.floats(allow_nan=False)), ("long", LONGS)]
)
def test_a_number_for_ranges_sorts_as_the_values_do_up_to_its_bound(
    kind: ColumnType, values: st.SearchStrategy[Any]
) -> None:
    @given(values, values)
    def law(one: Any, other: Any) -> None:
        first, second = ranged(kind, one), ranged(kind, other)
        assert first is not None
        assert second is not None
        if is_exact(kind, first):
            assert (first < second) is (one < other)
            assert (first == second) is (one == other)

    law()


def test_what_is_not_a_number_is_above_all_numbers() -> None:
    assert encoded("double", math.inf) < encoded("double", math.nan) == encoded("double", -math.nan)
    assert math.isnan(decoded("double", encoded("double", math.nan)))


@given(st.sampled_from(["boolean", "date", "double", "long", "string"]), TEXTS | LONGS | DATES)
def test_text_is_of_small_letters_and_digits(kind: ColumnType, value: Any) -> None:
    try:
        text = encoded(kind, value)
    except ValueWrong:
        return
    assert re.fullmatch(r"[-0-9a-z.:]+", text)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("boolean", 1),
        ("date", "yesterday"),
        ("date", 1_700_000_000),
        ("double", "1.5"),
        ("double", 10**400),
        ("double", True),
        ("long", 1.5),
        ("long", 2**63),
        ("long", False),
        ("string", 5),
        ("string", b"text"),
    ],
)
def test_a_value_of_another_type_is_refused_and_not_quoted(kind: ColumnType, value: Any) -> None:
    with pytest.raises(ValueWrong, match=f"is a {kind}, and the value a ") as refused:
        encoded(kind, value)
    assert str(value) not in str(refused.value)


@given(st.lists(st.text(min_size=1), unique=True, max_size=8))
def test_each_column_has_properties_of_its_own_whatever_its_name(names: list[str]) -> None:
    kinds: tuple[ColumnType, ...] = ("long", "string")
    own = [property_of(Kept(name=name, type=kind)) for name in names for kind in kinds]
    every = [*own, *(pattern_property(name) for name in own)]
    assert len({name.lower() for name in every}) == len(every)
    assert all(re.fullmatch(r"[a-z][_0-9a-z]{0,230}", name) for name in every)


def sortable(value: Any) -> tuple[int, Any]:
    for rank, kind in enumerate((type(None), bool, int, float, str)):
        if isinstance(value, kind):
            return rank, 0 if value is None else value
    raise AssertionError(value)


@given(st.tuples(KEYS, KEYS), st.tuples(KEYS, KEYS))
def test_keys_sort_column_by_column(one: tuple[Any, Any], other: tuple[Any, Any]) -> None:
    first = order_of({"b": one[1], "a": one[0]})
    second = order_of({"a": other[0], "b": other[1]})
    expected = [sortable(each) for each in one] < [sortable(each) for each in other]
    assert (first < second) is expected


@given(
    st.dictionaries(st.text(), st.integers() | TEXTS, min_size=1),
    st.dictionaries(st.text(), st.integers() | TEXTS, min_size=1),
)
def test_an_id_is_of_one_key_however_its_columns_are_ordered(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    turned = dict(reversed(one.items()))
    assert document_id("main.default.docs", one) == document_id("main.default.docs", turned)
    same = document_id("main.default.docs", one) == document_id("main.default.docs", other)
    assert same is (one == other)


def test_a_chunk_of_each_position_has_an_id_of_its_own() -> None:
    document = document_id("main.default.docs", {"id": 1})
    assert len({document, *(chunk_id(document, position) for position in range(100))}) == 101


def test_places_whose_names_differ_in_little_have_collections_of_their_own() -> None:
    places = [
        Place(index, generation)
        for index in ("main.a.docs", "main.A.docs", "main.a_docs.x", "main.a.docs_x", "m" * 300)
        for generation in (1, 2, 11)
    ]
    names = [name(place) for place in places for name in (chunks_of, heads_of)]
    assert len({name.lower() for name in names}) == len(names)
    assert all(re.fullmatch(r"[A-Z][_0-9A-Za-z]{0,254}", name) for name in names)


def test_only_what_is_newer_is_stored_over_what_is_there() -> None:
    assert supersedes("2", None, "")
    assert supersedes("2", Head(version="1"), "")
    assert not supersedes("2", Head(version="2"), "")
    assert not supersedes("2", Head(version="3", deleted=True), "")
    assert not supersedes("2", None, "2")
    assert not supersedes("2", Head(version="1"), "3")
