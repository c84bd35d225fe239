"""What a comparison of an index with its log finds, and that following it mends the index."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.vectors import Document, chunk_id, document_id
from streams.index.indexing import Indexing, Told
from tests.unit.index_logs import PLACE, SPEC, Memory, Table
from tests.unit.test_index_laws import index, steps, table_after, vectors_of
from workers.reconciling.comparing import Difference, compare
from workers.reconciling.expected import Log, Where

BEFORE_ALL = f"{0:020d}.{0:020d}"
harms = st.sampled_from(["age", "bury", "lose", "raise"])


def drift(found: Difference) -> int:
    return found.missing + found.stale + found.surplus + found.unreachable


def log_of(table: Table, **more: object) -> Log:
    log = Log(PLACE.index, (), captured=True, **more)  # type: ignore[arg-type]
    for partition, changes in enumerate(table.log):
        for offset, change in enumerate(changes):
            log.hear(change, (partition, offset))
    return log


async def compared(memory: Memory, log: Log, hidden: Sequence[str] = ()) -> Difference:
    return compare(log, await memory.heads(PLACE, log.rows), memory.lowest, hidden)


async def followed(table: Table, memory: Memory, found: Difference) -> None:
    told = [
        Told(table.log[partition][offset], None, again=True) for partition, offset in found.wanted
    ]
    assert not await Indexing[None](PLACE, SPEC, memory, vectors_of).take(told)


def harm(memory: Memory, document: Document, how: str) -> None:
    """Does to a document what a store should not."""
    match how:
        case "age":
            memory.documents[document.id] = replace(document, version=BEFORE_ALL)
        case "bury":
            memory.documents[document.id] = replace(
                document, version=BEFORE_ALL, deleted=True, chunks=(), inputs={}
            )
        case "lose":
            del memory.documents[document.id]
        case "raise":
            memory.documents[document.id] = replace(
                document, version=BEFORE_ALL, deleted=False, columns={"price": 0}
            )


@given(st.lists(steps, max_size=25), st.data())
def test_an_index_that_is_as_its_table_differs_in_nothing(
    taken: Sequence[tuple[object, ...]], data: st.DataObject
) -> None:
    table = table_after(taken)

    async def check() -> None:
        memory, _ = await index(table, data)
        found = await compared(memory, log_of(table))
        assert (drift(found), found.wanted) == (0, {})

    asyncio.run(check())


@given(st.lists(steps, max_size=25), st.data())
def test_whatever_harm_is_done_is_found_and_mended(
    taken: Sequence[tuple[object, ...]], data: st.DataObject
) -> None:
    table = table_after(taken)

    async def check() -> None:
        memory, _ = await index(table, data)
        before = memory.rows()
        for document in tuple(memory.documents.values()):
            if how := data.draw(st.none() | harms):
                harm(memory, document, how)
        log = log_of(table)
        found = await compared(memory, log)
        assert drift(found) or memory.rows() == before
        await followed(table, memory, found)
        assert memory.rows() == before
        assert drift(await compared(memory, log)) == 0

    asyncio.run(check())


def small() -> Table:
    return table_after([("write", key, "sea", "blue", key) for key in (1, 2, 3)])


@pytest.mark.parametrize(
    ("how", "kind"), [("age", "stale"), ("bury", "missing"), ("lose", "missing")]
)
async def test_what_differs_is_told_by_kind(how: str, kind: str) -> None:
    table, memory = small(), Memory()
    log = log_of(table)
    await followed(table, memory, await compared(memory, log))
    harm(memory, memory.documents[document_id(PLACE.index, {"id": 2})], how)
    found = await compared(memory, log)
    assert (getattr(found, kind), drift(found), found.compared) == (1, 1, 3)


async def test_a_row_that_is_gone_and_still_found_is_surplus() -> None:
    table, memory = small(), Memory()
    table.delete(2)
    log = log_of(table)
    await followed(table, memory, await compared(memory, log))
    name = document_id(PLACE.index, {"id": 2})
    live = memory.documents[document_id(PLACE.index, {"id": 1})]
    memory.documents[name] = replace(live, id=name, version=BEFORE_ALL)
    found = await compared(memory, log)
    assert (found.surplus, drift(found)) == (1, 1)
    await followed(table, memory, found)
    assert memory.rows().keys() == {1, 3}


async def test_a_chunk_that_no_search_finds_is_stored_once_more() -> None:
    table, memory = small(), Memory()
    log = log_of(table)
    await followed(table, memory, await compared(memory, log))
    hidden = chunk_id(document_id(PLACE.index, {"id": 3}), 0)
    found = await compared(memory, log, [hidden])
    assert (found.unreachable, drift(found), list(found.wanted)) == (1, 1, [where(table, 3)])


async def test_what_was_given_up_is_no_drift() -> None:
    table, memory = small(), Memory()
    log = log_of(table, given_up={where(table, 2)})
    found = await compared(memory, log)
    assert (found.refused, found.missing, len(found.wanted)) == (1, 2, 2)


async def test_what_was_stored_since_the_log_was_read_is_no_drift() -> None:
    table, memory = small(), Memory()
    before = log_of(table)
    await followed(table, memory, await compared(memory, before))
    table.write(1, title="hill", body="green", price=4)
    table.delete(2)
    told = [Told(each, None) for changes in table.log for each in changes]
    await Indexing[None](PLACE, SPEC, memory, vectors_of).take(told)
    assert memory.rows().keys() == {1, 3}
    assert drift(await compared(memory, before)) == 0


async def test_a_truncation_that_the_store_has_missed_is_wanted() -> None:
    table, memory = small(), Memory()
    log = log_of(table)
    await followed(table, memory, await compared(memory, log))
    table.truncate(0)
    log = log_of(table)
    found = await compared(memory, log)
    assert found.surplus == 3
    await followed(table, memory, found)
    assert memory.rows() == {}
    assert drift(await compared(memory, log)) == 0


def test_a_share_of_the_rows_is_always_the_same() -> None:
    table = table_after([("write", key, "sea", "blue", key) for key in range(60)])
    shares = [log_of(table, one_of=3).rows.keys() for _ in range(2)]
    assert shares[0] == shares[1]
    assert 5 < len(shares[0]) < 40


def where(table: Table, key: int) -> Where:
    """Returns where the last change of a row is told."""
    return next(
        (partition, offset)
        for partition, changes in enumerate(table.log)
        for offset, change in reversed(list(enumerate(changes)))
        if change.key == {"id": key}
    )
