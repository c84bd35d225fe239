"""How calls stand that somebody waits for: one session listens, however many wait.

What is notified is looked at, at once and together; what is not, from time to time. So nobody waits
for ever for a notification that was lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress

import structlog

from infra.telemetry import described
from workers.tools.journal import Entry, Journal
from workers.tools.sessions import JournalUnreachable

log = structlog.get_logger()

RETRY_S = 1.0


class WatchLost(RuntimeError):
    """It cannot be known any more how calls stand: the process must be started anew."""


class Watch:
    """How calls stand. Made inside the running loop.

    Args:
        journal: Where it is noted.
        every_s: How often all calls are looked at that are waited for.
    """

    def __init__(self, journal: Journal, every_s: float) -> None:
        self._journal = journal
        self._every_s = every_s
        self._waiting: dict[str, set[Standing]] = {}
        self._due: set[str] = set()
        self._stirred = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._lost: BaseException | None = None

    def start(self) -> None:
        """Looks and listens from now on."""
        works = (self._listen(), self._look())
        self._tasks = [asyncio.create_task(self._guarded(work)) for work in works]

    async def close(self) -> None:
        """Looks no more; who still waits is told so."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._lose(WatchLost("the watch over calls is closed"))

    @asynccontextmanager
    async def over(self, call_id: str) -> AsyncIterator[Standing]:
        """Gives how a call stands, for as long as the block lasts."""
        standing = Standing()
        self._waiting.setdefault(call_id, set()).add(standing)
        self._look_at((call_id,))
        if self._lost is not None:
            standing.fail(self._lost)
        try:
            yield standing
        finally:
            self._waiting[call_id].discard(standing)
            if not self._waiting[call_id]:
                del self._waiting[call_id]

    def _look_at(self, call_ids: Iterable[str]) -> None:
        self._due.update(call_ids)
        self._stirred.set()

    async def _listen(self) -> None:
        while True:
            try:
                async with self._journal.hearing() as heard:
                    # What ended before it was listened.
                    self._look_at(self._waiting)
                    async for call_id in heard:
                        if call_id in self._waiting:
                            self._look_at((call_id,))
            except JournalUnreachable as problem:
                log.warning("journal not heard", error=str(problem))
            await asyncio.sleep(RETRY_S)

    async def _look(self) -> None:
        clock = asyncio.get_running_loop().time
        look_at = clock() + self._every_s
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(look_at):
                    await self._stirred.wait()
            # However much is told meanwhile: who was lost tells nothing.
            if clock() >= look_at:
                look_at = clock() + self._every_s
                self._due.update(self._waiting)
            self._stirred.clear()
            due, self._due = self._due & self._waiting.keys(), set()
            if not due:
                continue
            try:
                found = await self._journal.look(due)
            except JournalUnreachable as problem:
                log.warning("journal not looked at", error=str(problem))
                await asyncio.sleep(RETRY_S)
                self._look_at(due)
                continue
            for call_id in due:
                for standing in self._waiting.get(call_id, ()):
                    standing.tell(found.get(call_id))

    async def _guarded(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        # Whatever it is: who waits would wait for ever.
        except Exception as error:  # noqa: BLE001
            log.error("watch ended", error=described(error))
            self._lose(WatchLost("the watch over calls has ended"))

    def _lose(self, error: WatchLost) -> None:
        self._lost = error
        for standings in self._waiting.values():
            for standing in standings:
                standing.fail(error)


class Standing:
    """How one call stands, as somebody is told who waits for it."""

    def __init__(self) -> None:
        self._told = asyncio.Event()
        self._entry: Entry | None = None
        self._error: BaseException | None = None

    async def next(self) -> Entry | None:
        """Returns how the call stands when it was looked at once more; None if nobody began it.

        Raises:
            WatchLost: It cannot be known any more.
        """
        await self._told.wait()
        self._told.clear()
        if self._error is not None:
            raise self._error
        return self._entry

    def tell(self, entry: Entry | None) -> None:
        """Hears how the call stands."""
        self._entry = entry
        self._told.set()

    def fail(self, error: BaseException) -> None:
        """Hears that it cannot be known any more."""
        self._error = error
        self._told.set()
