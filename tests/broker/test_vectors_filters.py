"""The store's filters find the rows that ``matches`` tells of, whatever the rows and conditions."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from infra.conditions import And, Compare, Condition, Not, Op, Or, matches, parse
from infra.conditions.values import instant
from infra.stack.local import LocalStack
from infra.vectors import Document, Place, SearchInvalid, Vectors
from schemas.indexes import ColumnType, IndexSpec, Kept
from schemas.search import Search
from tests.broker.storing import SPEC, document, everything, numbers, placed, scanned, settings_of

pytestmark = pytest.mark.stack

TEXTS = [
    *("", " ", "a", "A", "a ", " a", "\ta", "ab", "aab", "b", "a*b", "a?b", "a\nb", "a%b", "a_b"),
    *("a\\b", "[a]", "a.b", "é", "e\u0301", "日本", "\x00", "a\x00", "😀", "the", "*", "?"),
]
DATES = [
    *("0001-01-01", "1600-02-29", "2026-05-01", "2026-05-01T00:00:00.000001Z"),
    *("2026-05-01T02:00:00+02:00", "9999-12-31T23:59:59.999999Z"),
]
DOUBLES = [-math.inf, -1e300, -1.5, -0.0, 0.0, 5e-324, 0.1, 1.0, 1.5, 2.0**53, math.inf, math.nan]
LONGS = [-(2**63), -(2**53) - 1, -1, 0, 1, 2, 10, 2**53, 2**53 + 1, 2**63 - 1]
PARTS = ["%", "_", "\\%", "\\_", "\\\\", "a", "b", "A", "*", "?", "\n", "é", " ", "😀", "\x00", "."]
VALUES: dict[str, list[Any]] = {
    "color": TEXTS,
    "made": DATES,
    "price": DOUBLES,
    "sold": [False, True],
    "stock level": LONGS,
}


def rows() -> list[dict[str, Any]]:
    """Returns rows in which each value stands at least once beside values that are null or not."""
    many = max(len(values) for values in VALUES.values())
    found = [
        {name: values[number % len(values)] for name, values in VALUES.items()}
        for number in range(many)
    ]
    for number in range(many):
        names = list(VALUES)
        found.append({**found[number], names[number % len(names)]: None})
    return [*found, {}]


def compared(column: str) -> st.SearchStrategy[Condition]:
    values = [
        instant(value) if column == "made" else value
        for value in VALUES[column]
        if not (isinstance(value, float) and not math.isfinite(value))
    ]
    one = st.sampled_from(values)
    orders = [Op.EQ, Op.NE]
    if column != "sold":
        orders += [Op.GE, Op.GT, Op.LE, Op.LT]
    ways = [
        st.builds(Compare, st.just(column), st.sampled_from(orders), one),
        st.builds(Compare, st.just(column), st.just(Op.IN), st.lists(one, min_size=1).map(tuple)),
        st.builds(Compare, st.just(column), st.just(Op.NULL), st.booleans()),
    ]
    if column == "color":
        patterns = st.lists(st.sampled_from(PARTS), max_size=5).map("".join)
        ways.append(st.builds(Compare, st.just(column), st.just(Op.LIKE), patterns))
    return st.one_of(ways)


def nested(inner: st.SearchStrategy[Condition]) -> st.SearchStrategy[Condition]:
    parts = st.lists(inner, min_size=2, max_size=3).map(tuple)
    return st.one_of(st.builds(Not, inner), st.builds(And, parts), st.builds(Or, parts))


CONDITIONS = st.recursive(st.one_of([compared(name) for name in VALUES]), nested, max_leaves=6)


@contextmanager
def filled(stack: LocalStack) -> Iterator[tuple[asyncio.Runner, Vectors, Place]]:
    """A place with the rows, and a loop on which it is asked."""
    with asyncio.Runner() as runner:
        exits = AsyncExitStack()
        vectors = runner.run(exits.enter_async_context(Vectors.open(settings_of(stack))))
        place = runner.run(exits.enter_async_context(placed(vectors)))
        batch = [document(place, number, columns=row) for number, row in enumerate(rows())]
        assert runner.run(vectors.store(place, batch)) == {}
        yield runner, vectors, place
        runner.run(exits.aclose())


def test_a_filter_finds_the_rows_that_satisfy_it(vector_stack: LocalStack) -> None:
    with filled(vector_stack) as (runner, vectors, place):

        @settings(max_examples=150)
        @given(CONDITIONS, st.sampled_from([3, 10, 500]))
        # One comparison that has more than a page, whose order is not that of the keys.
        @example(Compare("color", Op.GT, ""), 3)
        @example(Compare("color", Op.LIKE, "%"), 3)
        def law(condition: Condition, page: int) -> None:
            expected = [number for number, row in enumerate(rows()) if matches(condition, row)]
            assert runner.run(scanned(vectors, place, page, condition)) == expected
            listed = Search(k=page, offset=2)
            asked = vectors.search(place, SPEC, listed, query="", vector=None, where=condition)
            assert numbers(runner.run(asked)) == expected[2 : 2 + page]

        law()


async def found(vectors: Vectors, place: Place, where: str, spec: IndexSpec) -> list[int]:
    kinds: dict[str, ColumnType] = {column.name: column.type for column in spec.columns}
    condition = parse(where, kinds)
    search = Search(operation="scan", k=100)
    return numbers(await vectors.scan(place, spec, search, where=condition))


async def test_rows_from_before_a_column_are_null_in_it(vectors: Vectors) -> None:
    wider = SPEC.model_copy(update={"columns": (*SPEC.columns, Kept(name="new", type="string"))})
    async with placed(vectors) as place:
        await vectors.store(place, [document(place, 1)])
        await vectors.ensure(place, wider, 3)
        later: list[Document] = [
            document(place, 2, columns={"new": "a"}),
            document(place, 3, columns={"new": None}),
        ]
        await vectors.store(place, later)
        assert await found(vectors, place, "new IS NULL", wider) == [1, 3]
        assert await found(vectors, place, "new IS NOT NULL", wider) == [2]
        assert await found(vectors, place, "new <> 'b'", wider) == [2]
        assert await found(vectors, place, "new NOT LIKE 'b%'", wider) == [2]


async def test_a_column_that_changes_its_type_is_null_until_it_is_stored_anew(
    vectors: Vectors,
) -> None:
    changed = IndexSpec(text="text", columns=(Kept(name="price", type="string"),))
    async with placed(vectors) as place:
        await vectors.store(place, [document(place, 1, columns={"price": 5.0})])
        with pytest.raises(SearchInvalid, match="not kept as string yet"):
            await found(vectors, place, "price = '5'", changed)
        await vectors.ensure(place, changed, 3)
        await vectors.store(place, [document(place, 2, columns={"price": "5"})])
        assert await found(vectors, place, "price = '5'", changed) == [2]
        assert await found(vectors, place, "price IS NULL", changed) == [1]
        assert await found(vectors, place, "price = 5", SPEC) == [1]
        assert [
            hit.columns["price"] for hit in (await everything(vectors, place, changed)).hits
        ] == [
            None,
            "5",
        ]


async def test_a_condition_on_a_column_that_is_not_kept_is_refused(vectors: Vectors) -> None:
    async with placed(vectors) as place:
        await vectors.store(place, [document(place, 1)])
        for op in (Op.EQ, Op.LIKE):
            unknown = Compare("owner", op, "ann")
            with pytest.raises(SearchInvalid, match='"owner" is not kept'):
                await vectors.scan(place, SPEC, Search(operation="scan"), where=unknown)
