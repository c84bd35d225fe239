"""Lanes: order, turns, fullness, and that one that waits holds up no other."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from streams.lanes import FULL, TURN, Lane


class Work:
    """What is taken, in order; it waits where it is told to."""

    def __init__(self) -> None:
        self.taken: list[tuple[int, int]] = []
        self.open = asyncio.Event()
        self.open.set()

    async def take(self, record: int, generation: int) -> None:
        await self.open.wait()
        self.taken.append((record, generation))


async def turns(count: int) -> None:
    """Lets everything else have so many turns of the loop."""
    for _ in range(count):
        await asyncio.sleep(0)


async def stopped(*running: asyncio.Task[None]) -> None:
    for each in running:
        each.cancel()
        with suppress(asyncio.CancelledError):
            await each


@given(batches=st.lists(st.lists(st.integers(), max_size=3 * TURN), max_size=5))
def test_records_are_taken_in_order_with_the_generation_that_they_were_read_in(
    batches: list[list[int]],
) -> None:
    async def flow() -> list[tuple[int, int]]:
        work = Work()
        lane = Lane(work.take)
        running = asyncio.create_task(lane.run())
        for generation, batch in enumerate(batches):
            lane.put(batch, generation)
            await turns(generation)
        await turns(sum(map(len, batches)) + 2)
        await stopped(running)
        return work.taken

    taken = asyncio.run(flow())
    assert taken == [(each, number) for number, batch in enumerate(batches) for each in batch]


async def test_a_lane_whose_work_waits_fills_and_holds_up_no_other() -> None:
    slow, quick = Work(), Work()
    slow.open.clear()
    lanes = [Lane(slow.take), Lane(quick.take)]
    running = [asyncio.create_task(lane.run()) for lane in lanes]
    for lane in lanes:
        lane.put(range(FULL + 1), 1)
        assert lane.full
    await turns(FULL)
    assert [lane.full for lane in lanes] == [True, False]
    assert len(quick.taken) == FULL + 1
    assert slow.taken == []
    slow.open.set()
    await turns(FULL)
    assert slow.taken == quick.taken
    await stopped(*running)


async def test_lanes_take_turns() -> None:
    both: list[str] = []

    async def take(record: str, generation: int) -> None:
        both.append(record)

    lanes = [Lane(take), Lane(take)]
    for lane, name in zip(lanes, "ab", strict=True):
        lane.put(name * 2 * TURN, 1)
    running = [asyncio.create_task(lane.run()) for lane in lanes]
    await turns(5)
    assert "".join(both) == ("a" * TURN + "b" * TURN) * 2
    await stopped(*running)


async def test_what_is_cleared_is_not_taken_and_what_comes_after_is() -> None:
    work = Work()
    work.open.clear()
    lane = Lane(work.take)
    running = asyncio.create_task(lane.run())
    lane.put([1, 2, 3], 1)
    await turns(2)
    lane.clear()
    lane.put([4], 2)
    work.open.set()
    await turns(4)
    assert work.taken == [(1, 1), (4, 2)]
    await stopped(running)
