"""A call that runs: what stops it, how long it and what it asks of the journal may take."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar

from infra.telemetry import now
from schemas.shapes import length
from workers.tools import Call, Checkpoint, Fault, ToolFailed
from workers.tools.journal import Began, Journal, State
from workers.tools.sessions import JournalUnreachable

T = TypeVar("T")

RETRY_S = 0.5
# A runner stops at the function's time itself; who does not is stopped so much later.
GRACE_S = 2.0
# What nobody waits for any more is held until it has ended.
_asking: set[asyncio.Task[Any]] = set()


class Stop(StrEnum):
    """Why a call was stopped that had not ended."""

    CANCELLED = "cancelled"
    DRAINED = "drained"
    LOST = "lost"


class Running:
    """A call that runs.

    Args:
        journal: Where it was begun.
        call: Which call.
        begun: Which attempt at it, and what an earlier one saved.

    Attributes:
        task: What runs it; there once it is started.
        stopped: Why it was stopped; None where it was not.
    """

    task: asyncio.Task[tuple[str, State]]

    def __init__(self, journal: Journal, call: Call, begun: Began) -> None:
        self.stopped: Stop | None = None
        self._journal = journal
        self._call = call
        self._attempt = begun.attempt
        self._last = begun.checkpoint

    @property
    def call(self) -> Call:
        """The call, to go on where it saved last: this attempt, or else one before it."""
        return replace(self._call, checkpoint=Checkpoint(last=self._last, save=self._save))

    def start(self, work: Coroutine[Any, Any, tuple[str, State]]) -> None:
        """Runs it from now on."""
        self.task = asyncio.create_task(work)

    def stop(self, why: Stop) -> None:
        """Stops it; the first reason is the one that counts."""
        self.stopped = self.stopped or why
        self.task.cancel()

    async def _save(self, checkpoint: str) -> None:
        """Notes, as JSON, where it goes on if it is cut off; returns once that is durable.

        Raises:
            CancelledError: It is somebody else's by now, and stopped.
            JournalUnreachable: The journal was away for as long as anybody waited.
        """
        call = self._call
        mine = await asked(
            lambda: unheld(self._journal.save(call.call_id, self._attempt, checkpoint)),
            call.deadline,
        )
        if not mine:
            self.stop(Stop.LOST)
            await asyncio.Event().wait()
        self._last = checkpoint


async def asked(question: Callable[[], Awaitable[T]], until: datetime) -> T:
    """Asks the journal, again and again while it is away.

    Raises:
        JournalUnreachable: It was away for too long.
    """
    while True:
        try:
            return await question()
        except JournalUnreachable:
            if now() > until:
                raise
            await asyncio.sleep(RETRY_S)


async def unheld(question: Coroutine[Any, Any, T], seconds: float | None = None) -> T:
    """Returns what the journal answers; who is cancelled, or waits no longer, is free at once.

    A session takes longer to let go than a lease may have left.

    Raises:
        JournalUnreachable: It was away.
        TimeoutError: It did not answer in time.
    """
    asking = asyncio.create_task(question)
    _asking.add(asking)
    asking.add_done_callback(_answered)
    try:
        await asyncio.wait({asking}, timeout=seconds)
        if not asking.done():
            raise TimeoutError
        return asking.result()
    finally:
        asking.cancel()


def _answered(asking: asyncio.Task[Any]) -> None:
    _asking.discard(asking)
    if not asking.cancelled():
        # Else one that fails when nobody waits any more would be told of as forgotten.
        asking.exception()


async def in_time(work: Coroutine[Any, Any, T], call: Call) -> T:
    """Returns what comes of work that may take as long as the call.

    Raises:
        ToolFailed: It took longer, or failed.
    """
    longest_s = length(call.spec.timeout).total_seconds()
    left_s = (call.deadline - now()).total_seconds()
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(None) as limit:
            # A runner that ends in time by itself knows best what it leaves behind. Grace begins
            # when its time is over for itself, too, however long this process stood still.
            over = loop.call_later(
                max(min(longest_s, left_s), 0), lambda: limit.reschedule(loop.time() + GRACE_S)
            )
            try:
                return await work
            finally:
                over.cancel()
    except TimeoutError:
        if not limit.expired():
            raise
        why = f"it took longer than {call.spec.timeout}"
        if left_s < longest_s:
            why = "the deadline of the request passed"
        raise ToolFailed(Fault.LIMIT, f"{why}: stopped") from None
