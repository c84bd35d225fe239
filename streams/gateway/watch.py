"""Watching approvals: the board is kept as the log has it, and the clock decides what is overdue.

Every gateway process reads all approvals of the last day by itself, so that whichever of them hears
a person knows what is meant; that needs no state on any disk, and comes again after a crash. All of
them watch the clock, too: what each says of one approval is the same, and the first counts.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import datetime, timedelta

import structlog

from infra.bus import PublishFailed, Record
from infra.registry import Reader, SchemaMissing
from infra.signing import claimed
from infra.tail import Tail
from infra.telemetry import now, trace_id
from schemas.agents import run_id
from schemas.codec import Unreadable
from schemas.events import ApprovalDecided, ApprovalGiven, ApprovalWanted, RequestCancelled
from schemas.topics import (
    APPROVAL_DECIDED,
    APPROVAL_GIVEN,
    APPROVAL_WANTED,
    BEHIND,
    LONGEST_DEADLINE_MS,
    REQUEST_CANCELLED,
    root_of,
)
from streams.gateway.approvals import Answered, Decided, give, nobody_decided
from streams.gateway.board import KNOWN, Board
from streams.steps import Fail, Runtime, Step, Steps, Taken, vital

log = structlog.get_logger()

# How far the clocks of broker and gateway may lie apart.
SKEW = timedelta(seconds=60)
# Nothing is due for so long: old decisions are forgotten meanwhile.
IDLE_S = 600.0
# How long it is known that a request was cancelled.
LONGEST = timedelta(milliseconds=LONGEST_DEADLINE_MS)
READ_S = 10.0


class Watch:
    """The board of this process. Made inside the running loop.

    Args:
        runtime: What the process has at hand.
        fail: Ends the process.

    Attributes:
        board: What waits, and what was decided.
    """

    def __init__(self, runtime: Runtime, fail: Fail) -> None:
        self.board = Board()
        self._runtime = runtime
        self._fail = fail
        self._reader = Reader(runtime.codec, runtime.registry)
        self._since = now() - KNOWN
        self._arrived: asyncio.Queue[list[Record] | None] = asyncio.Queue()
        self._complete = asyncio.Event()
        # By partition: up to where decisions are known.
        self._known: dict[int, int] = {}
        self._grown = asyncio.Condition()
        self._changed = asyncio.Event()
        self._said: set[str] = set()
        self._cancelled: set[str] = set()
        # By root: what nobody waits for any more, and until when. It may be read before what it
        # concerns.
        self._left: dict[str, list[tuple[datetime, RequestCancelled]]] = {}
        self._tail = Tail(
            runtime.kafka,
            [APPROVAL_WANTED.name, APPROVAL_DECIDED.name, REQUEST_CANCELLED.name],
            self._since,
            self._arrived.put_nowait,
            f"{runtime.name}-approvals",
            fail=fail,
            caught_up=lambda: self._arrived.put_nowait(None),
            # Others may write there; an open transaction of theirs must hold nobody up.
            committed=False,
        )
        self._tasks = [
            asyncio.create_task(vital(self._follow(), fail)),
            asyncio.create_task(vital(self._decide(), fail)),
        ]

    async def complete(self) -> None:
        """Returns when all is known that lay on the log when this process began."""
        await self._complete.wait()

    async def reached(self, record: Record, decided: ApprovalDecided) -> None:
        """Returns when all decisions up to a record are known.

        Raises:
            TimeoutError: They cannot be read.
        """
        await self.complete()
        # What is older than all that is read here was decided by who is long gone.
        if decided.decided_at < self._since + SKEW:
            self.board.decide(decided, record.partition, record.offset)
            return
        async with asyncio.timeout(READ_S), self._grown:
            await self._grown.wait_for(lambda: self._known.get(record.partition, 0) > record.offset)

    async def close(self) -> None:
        """Stops watching."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._tail.close()

    async def _follow(self) -> None:
        await self._tail.start()
        while True:
            lot = await self._arrived.get()
            for record in lot or ():
                await self._take(record)
            if lot is None:
                self._complete.set()
                log.info("approvals known", waiting=len(self.board.wanted))
            self._changed.set()
            async with self._grown:
                self._grown.notify_all()

    async def _take(self, record: Record) -> None:
        try:
            if record.topic == APPROVAL_WANTED.name:
                self._want(await self._reader.read(record.value, ApprovalWanted))
            elif record.topic == REQUEST_CANCELLED.name:
                self._cancel(await self._reader.read(record.value, RequestCancelled))
            else:
                decided = await self._reader.read(record.value, ApprovalDecided)
                self.board.decide(decided, record.partition, record.offset)
                self._said.discard(decided.approval_id)
        except (Unreadable, SchemaMissing) as problem:
            log.warning("approval unreadable", offset=record.offset, error=str(problem))
        if record.topic == APPROVAL_DECIDED.name:
            self._known[record.partition] = record.offset + 1

    def _want(self, wanted: ApprovalWanted) -> None:
        self.board.want(wanted)
        left = self._left.get(root_of(wanted.request_id), ())
        if any(concerns(cancelled, wanted) for _, cancelled in left):
            self._cancelled.add(wanted.approval_id)

    def _cancel(self, cancelled: RequestCancelled) -> None:
        """Lets nobody be asked about what nobody waits for."""
        until = min(cancelled.deadline, now() + LONGEST)
        if until > now():
            self._left.setdefault(root_of(cancelled.request_id), []).append((until, cancelled))
        for wanted in self.board.wanted.values():
            if concerns(cancelled, wanted):
                self._cancelled.add(wanted.approval_id)

    async def _decide(self) -> None:
        """Decides what is overdue; sleeps until the next is."""
        await self.complete()
        while True:
            self._changed.clear()
            instant = now()
            self.board.forget(instant)
            self._forget(instant)
            over = [self.board.wanted[name] for name in self._cancelled & {*self.board.wanted}]
            self._cancelled.clear()
            for wanted in (*self.board.due(instant), *over):
                if wanted.approval_id not in self._said:
                    self._say(wanted)
            waiting = (
                wanted.until for name, wanted in self.board.wanted.items() if name not in self._said
            )
            following = min(waiting, default=None)
            wait_s = IDLE_S if following is None else (following - instant).total_seconds()
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, min(wait_s, IDLE_S))):
                    await self._changed.wait()

    def _forget(self, instant: datetime) -> None:
        for root, left in [*self._left.items()]:
            left[:] = [each for each in left if each[0] > instant]
            if not left:
                del self._left[root]

    def _say(self, wanted: ApprovalWanted) -> None:
        def done(failed: PublishFailed | None) -> None:
            if failed is not None:
                self._fail(failed)

        self._said.add(wanted.approval_id)
        publisher = self._runtime.publisher
        publisher.post(publisher.encode([nobody_decided(wanted, now())]), (), done)


def concerns(cancelled: RequestCancelled, wanted: ApprovalWanted) -> bool:
    """Returns whether an approval is of a request that is cancelled, or of a run that it began."""
    if wanted.tenant != cancelled.tenant:
        return False
    begun = run_id(cancelled.request_id, cancelled.tenant)
    return wanted.request_id == cancelled.request_id or wanted.request_id.startswith(
        f"{begun}{BEHIND}"
    )


class Giving(Steps):
    """Work that hears what people say about approvals.

    Args:
        runtime: What the process has at hand.
        fail: Ends the process.
        watch: Knows what waits.
    """

    def __init__(self, runtime: Runtime, fail: Fail, watch: Watch) -> None:
        super().__init__(APPROVAL_GIVEN, give, runtime, fail)
        self._watch = watch

    async def _given(self, taken: Taken) -> Answered:
        await self._watch.complete()
        given: ApprovalGiven = taken.event  # type: ignore[assignment]
        record, board = taken.record, self._watch.board
        return Answered(
            given=given,
            topic=record.topic,
            place=f"{record.topic}/{record.partition}/{record.offset}",
            signed=claimed(taken.headers, record.value or b""),
            wanted=board.wanted.get(given.approval_id),
            decision=board.decided.get(given.approval_id),
            trace_id=trace_id(taken.headers),
        )


class Approving(Steps):
    """Work that acts on decisions.

    Args:
        step: Acts on what was ``Decided``.
        runtime: What the process has at hand.
        fail: Ends the process.
        watch: Knows which decision was the first; closed with this.
    """

    def __init__(self, step: Step, runtime: Runtime, fail: Fail, watch: Watch) -> None:
        super().__init__(APPROVAL_DECIDED, step, runtime, fail)
        self._watch = watch

    async def close(self) -> None:
        """Stops watching."""
        await self._watch.close()

    async def _given(self, taken: Taken) -> Decided:
        event: ApprovalDecided = taken.event  # type: ignore[assignment]
        record = taken.record
        await self._watch.reached(record, event)
        first = self._watch.board.decide(event, record.partition, record.offset)
        return Decided(
            event=event,
            place=f"{record.topic}/{record.partition}/{record.offset}",
            first=(first.partition, first.offset) == (record.partition, record.offset),
            trace_id=trace_id(taken.headers),
        )
