"""An index ends as its table is, in whatever order and however often it hears of changes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from infra.vectors import VectorsUnreachable
from streams.index.indexing import Failed, Indexing, Told
from tests.unit.index_logs import PARTITIONS, PLACE, SPEC, Memory, Table

keys = st.integers(1, 4)
words = st.sampled_from(["sea", "hill", "wood"])
partitions = st.integers(0, PARTITIONS - 1)
steps = st.one_of(
    st.tuples(st.just("write"), keys, words, st.none() | words, st.integers(0, 9)),
    st.tuples(st.just("delete"), keys),
    st.tuples(st.just("move"), keys, keys),
    st.tuples(st.just("truncate"), partitions),
    st.tuples(st.just("snapshot")),
    st.tuples(st.just("stale"), keys, st.integers(1, 4)),
    st.tuples(st.just("repeat"), partitions, st.integers(1, 4)),
)


def table_after(taken: Sequence[tuple[object, ...]]) -> Table:
    table = Table()
    for name, *rest in taken:
        match name:
            case "write":
                key, title, body, price = rest
                if body is None and key not in table.rows:
                    body = "new"
                table.write(key, title=title, body=body, price=price)  # type: ignore[arg-type]
            case _:
                getattr(table, str(name))(*rest)
    return table


async def vectors_of(texts: Sequence[str]) -> list[tuple[float, ...]]:
    return [tuple(float(each) for each in sha256(text.encode()).digest()[:4]) for text in texts]


async def index(table: Table, data: st.DataObject) -> tuple[Memory, list[Failed[None]]]:
    """Takes in a table's log: in batches, partitions interleaved, some of it more than once."""
    memory = Memory()
    indexing = Indexing[None](PLACE, SPEC, memory, vectors_of)
    at = [0] * PARTITIONS
    failed: list[Failed[None]] = []
    while open_ := [each for each in range(PARTITIONS) if at[each] < len(table.log[each])]:
        told: list[Told[None]] = []
        for partition in open_:
            size = data.draw(st.integers(0 if len(open_) > 1 else 1, 5))
            back = data.draw(st.integers(0, 2)) if at[partition] else 0
            again = data.draw(st.booleans())
            begin = max(0, at[partition] - back)
            batch = table.log[partition][begin : at[partition] + size]
            told += [
                Told(each, None, again and begin + place < at[partition])
                for place, each in enumerate(batch)
            ]
            at[partition] += len(batch) - (at[partition] - begin)
        memory.breaks_after = data.draw(st.none() | st.integers(0, 2))
        vectors = await indexing.prepare(told)
        try:
            failed += await indexing.take(told, vectors)
        except VectorsUnreachable:
            failed += await indexing.take(told, vectors, again=True)
        memory.breaks_after = None
    return memory, failed


@given(st.lists(steps, max_size=25), st.data())
def test_an_index_ends_as_its_table_is(
    taken: Sequence[tuple[object, ...]], data: st.DataObject
) -> None:
    table = table_after(taken)
    memory, failed = asyncio.run(index(table, data))
    assert not failed
    assert memory.rows() == {
        key: (f"{row['title']}: {row['body']}", row["price"]) for key, row in table.rows.items()
    }
