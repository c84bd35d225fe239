"""The ledger as this process keeps it: the counters of its partitions, and what it decides.

A decision is journalled before anything follows from it. It stands when it comes back from the
ledger behind no other's takeover; then what follows is posted, and its record settled. So whoever
reads that record again, after a crash, finds what was decided, and two processes that both believe
that a partition is theirs never admit more than one of them may.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import uuid4

import structlog

from infra.bus import Encoded, PublishFailed, Record
from infra.registry import Reader, SchemaMissing
from infra.telemetry import Headers, now
from schemas.codec import Unreadable
from schemas.events import Entry, UsageCounted
from schemas.topics import USAGE_COUNTED, USAGE_SUMMED, Outgoing
from streams.gateway.limits.counters import Counters, dated
from streams.gateway.limits.follow import Follower, LedgerLost
from streams.gateway.limits.recover import Takeover, recover
from streams.gateway.limits.weigh import LEASE
from streams.steps import Fail, Runtime

log = structlog.get_logger()

SUM_S = 5.0
# Sums replace each other only when the broker gets to it: where little happens, they are few.
FEW, FEW_S = 1000, 30.0
# Once more all counters are summed up: what a predecessor, long asleep, said last is overwritten.
ALL_AGAIN_S = 60.0
# Who slept for longer may have lost its partitions meanwhile, and must hear of it first.
ASLEEP_S = 1.0
# Counters that are summed up at once; in between, decisions go on.
LOT = 200
# Decisions of a partition that did not come back yet; the bound keeps memory flat.
MOST_WAITING = 5000
# How far clocks may lie apart.
SKEW = timedelta(seconds=60)


@dataclass(slots=True)
class Page:
    """One partition of the ledger, as long as this process decides on it.

    Attributes:
        counters: What counts.
        generation: Of the group, when it was taken over.
        fence: Offset of the takeover.
        live: Whether entries behind it are followed already.
        lost: Whether another has taken it over.
        waiting: What follows of decisions that did not come back yet, by charge.
        own: Decisions that did not come back yet, by their bytes: read off the log they are the
            same again.
        room: Set while few are waiting.
        taken_at: When it was taken over, on the clock of this process.
        summed: Up to which offset counters were summed up, and when.
        summed_all: Whether all counters were summed up once more.
    """

    counters: Counters
    generation: int
    fence: int
    live: bool = False
    lost: bool = False
    waiting: dict[str, Callable[[], None]] = field(default_factory=dict)
    own: dict[bytes | None, UsageCounted] = field(default_factory=dict)
    room: asyncio.Event = field(default_factory=asyncio.Event)
    taken_at: float = field(default_factory=time.monotonic)
    summed: tuple[int, float] = (0, 0.0)
    summed_all: bool = False

    @property
    def is_due(self) -> bool:
        """Returns whether counters are worth summing up."""
        offset, at = self.summed
        long_ago = time.monotonic() > at + FEW_S
        return not self.lost and (long_ago or self.counters.offset > offset + FEW)


class Ledger:
    """The pages of this process; made inside the running loop.

    Args:
        runtime: What the process has at hand.
        fail: Ends the process.
    """

    def __init__(self, runtime: Runtime, fail: Fail) -> None:
        self._runtime = runtime
        self._fail = fail
        self._reader = Reader(runtime.codec, runtime.registry)
        # By partition, and whether tenants share what is counted.
        self._pages: dict[tuple[int, bool], Page] = {}
        self._follower: Follower | None = None
        self._summing: asyncio.Task[None] | None = None
        self._closed = False

    async def page(self, record: Record, generation: int, *, shared: bool) -> Page:
        """Returns the page of a record's partition, and takes it over where that is due.

        Raises:
            BusUnreachable: No broker answers.
            LedgerLost: Another has taken it over while this process still decides on it.
            PublishFailed: The broker did not take the takeover.
        """
        page = self._pages.get((record.partition, shared))
        if page is None or page.generation != generation:
            page = await self._take_over(record, generation, shared=shared)
            self._pages[record.partition, shared] = page
        if page.lost:
            raise LedgerLost(f"another decides on partition {record.partition}")
        await page.room.wait()
        return page

    def journal(
        self,
        page: Page,
        entry: UsageCounted,
        encoded: Encoded,
        headers: Headers,
        then: Callable[[], None],
    ) -> None:
        """Counts a decision and posts it; what follows is called when it stands.

        Raises:
            PublishFailed: The publisher does not take it.
        """
        page.counters.decide(entry)
        page.waiting[entry.charge_id] = then
        page.own[encoded.value] = entry
        if len(page.waiting) >= MOST_WAITING:
            page.room.clear()
        self._runtime.publisher.post([encoded], headers, self._posted, page.counters.partition)

    async def close(self) -> None:
        """Sums up what changed, and stops following."""
        if self._closed:
            return
        self._closed = True
        if self._summing is not None:
            self._summing.cancel()
            with suppress(asyncio.CancelledError):
                await self._summing
        for page in list(self._pages.values()):
            await self._sum_up(page)
        if self._follower is not None:
            await self._follower.close()

    def _posted(self, failed: PublishFailed | None) -> None:
        if failed is not None:
            self._fail(failed)

    async def _take_over(self, record: Record, generation: int, *, shared: bool) -> Page:
        runtime, began = self._runtime, time.monotonic()
        for topic in (record.topic, USAGE_COUNTED.name):
            count = await runtime.publisher.partitions(topic)
            if record.partition >= count:
                raise LedgerLost(f"{topic} has {count} partitions, too few for its ledger")
        if before := self._pages.pop((record.partition, shared), None):
            before.lost = True
        takeover = Takeover(
            partition=record.partition,
            shared=shared,
            taken_id=str(uuid4()),
            place=record.offset,
            since=self._since(),
        )
        taken = _taken(takeover, now())
        await runtime.publisher.publish(
            runtime.publisher.encode([Outgoing(USAGE_COUNTED, taken)]), (), record.partition
        )
        counters = await asyncio.to_thread(
            recover, runtime.kafka, runtime.codec, runtime.registry, takeover
        )
        page = Page(counters, generation, counters.fence)
        page.room.set()
        self._begin(page)
        log.info(
            "ledger taken over",
            partition=record.partition,
            shared=shared,
            counters=len(counters),
            elapsed_ms=int((time.monotonic() - began) * 1000),
        )
        return page

    def _since(self) -> datetime:
        """Returns when the first decision was made that may be asked for again."""
        ahead = timedelta(milliseconds=self._runtime.view.limits.max_deadline_ms)
        return now() - ahead - LEASE - SKEW

    def _begin(self, page: Page) -> None:
        if self._follower is None:
            name = self._runtime.name
            self._follower = Follower(self._runtime.kafka, name, self._deliver, self._fail)
            self._summing = asyncio.create_task(self._sum())

        def begun() -> None:
            page.live = True

        self._follower.follow(page.counters.partition, page.counters.offset, begun)

    async def _deliver(self, records: list[Record]) -> None:
        for record in records:
            pages = [
                page
                for shared in (False, True)
                if (page := self._pages.get((record.partition, shared))) and page.live
            ]
            if not any(record.offset >= page.counters.offset for page in pages):
                continue
            try:
                known = (page.own.pop(record.value, None) for page in pages)
                entry = next(filter(None, known), None)
                entry = entry or await self._reader.read(record.value, UsageCounted)
            except (Unreadable, SchemaMissing) as problem:
                log.warning("ledger entry unreadable", offset=record.offset, error=str(problem))
                continue
            for page in pages:
                self._apply(page, dated(entry, record.dated), record.offset)

    def _apply(self, page: Page, entry: UsageCounted, offset: int) -> None:
        if page.counters.apply(entry, offset) and (then := page.waiting.pop(entry.charge_id, None)):
            if len(page.waiting) < MOST_WAITING:
                page.room.set()
            then()
        elif page.counters.fence != page.fence and not page.lost:
            self._lose(page)

    def _lose(self, page: Page) -> None:
        """Lets a page go that another has taken over.

        Where decisions of ours came too late, this process may still have records in hand that are
        the other's: it begins anew. So does the other, should it be the one that came too late.
        """
        page.lost = True
        partition = page.counters.partition
        log.info("ledger given up", partition=partition, shared=page.counters.shared)
        if page.waiting:
            self._fail(LedgerLost(f"another decides on partition {partition}"))
        kept = self._pages.get((partition, not page.counters.shared))
        if self._follower is not None and (kept is None or kept.lost):
            self._follower.leave(partition)

    async def _sum(self) -> None:
        while True:
            due = time.monotonic() + SUM_S
            await asyncio.sleep(SUM_S)
            if time.monotonic() > due + ASLEEP_S:
                continue
            for page in [page for page in self._pages.values() if page.is_due]:
                try:
                    await self._sum_up(page)
                # Counters that nobody sums up any more would be read from far back.
                except Exception as problem:  # noqa: BLE001
                    self._fail(problem)
                    return

    async def _sum_up(self, page: Page) -> None:
        counters, publisher = page.counters, self._runtime.publisher
        if not page.summed_all and time.monotonic() > page.taken_at + ALL_AGAIN_S:
            page.summed_all = True
            counters.all_changed()
        if not (counters.changed or counters.dropped):
            return
        page.summed = (counters.offset, time.monotonic())
        dropped, counters.dropped = counters.dropped, set()
        gone = [Encoded(USAGE_SUMMED.name, name.encode(), None) for name in sorted(dropped)]
        for lot in _lots(counters):
            if page.lost:
                return  # whoever has it now sums it up
            await publisher.publish(gone + publisher.encode(lot))
            gone = []


def _lots(counters: Counters) -> Iterator[list[Outgoing]]:
    lot: list[Outgoing] = []
    for summed in counters.summed(now()):
        lot.append(Outgoing(USAGE_SUMMED, summed))
        if len(lot) == LOT:
            yield lot
            lot = []
    yield lot


def _taken(takeover: Takeover, at: datetime) -> UsageCounted:
    return UsageCounted(
        charge_id=takeover.taken_id,
        home=str(takeover.partition),
        shared=takeover.shared,
        tenant="",
        request_id="",
        entry=Entry.TAKEN,
        at=at,
        until=at,
    )
