"""The journal of runs as this process keeps it: what came for each run of late, as the log has it.

What a run takes in counts once it has come back from the log as the run's next entry. Of two that
two processes wrote under one number, the first on the log is that; who wrote the other has decided
by what is no longer so, and must begin anew. So nobody owns a run but by what the log says.

Every process has the entries of all runs that can still go on; no run outlives its deadline, so
they are read from as far back as deadlines reach. Runs themselves are folded where they go on.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog

from infra.bus import Record
from infra.registry import Reader, SchemaMissing
from infra.tail import BEGINNING, Tail
from infra.telemetry import Headers, now
from schemas.codec import Unreadable
from schemas.events import AgentJournaled
from schemas.topics import AGENT_JOURNALED, LONGEST_DEADLINE_MS, Outgoing
from streams.steps import Fail, Runtime, vital

log = structlog.get_logger()

# How long a run can go on; and once more, what may still come for it.
KNOWN = timedelta(milliseconds=LONGEST_DEADLINE_MS)
# How far the clocks of broker and processes may lie apart.
SKEW = timedelta(seconds=60)
SWEEP_S = 60.0


class JournalLost(RuntimeError):
    """Another process goes on with a run that this one decided on."""


@dataclass(slots=True)
class Kept:
    """What is known of a run.

    Attributes:
        entries: Its entries, in order.
        causes: By the name of what came: its entry's number.
    """

    entries: list[AgentJournaled] = field(default_factory=list)
    causes: dict[str, int] = field(default_factory=dict)

    @property
    def until(self) -> datetime:
        """When it ends whatever happens."""
        first = self.entries[0] if self.entries else None
        return (first.until if first else None) or BEGINNING

    @property
    def ended(self) -> bool:
        """Whether the run is over."""
        return bool(self.entries) and self.entries[-1].ended

    def take(self, entry: AgentJournaled) -> bool:
        """Takes an entry; returns False where it is not the next one."""
        if entry.seq != len(self.entries) or self.ended:
            return False
        self.entries.append(entry)
        self.causes[entry.cause_id] = entry.seq
        return True


class Journal:
    """All runs of late; made inside the running loop.

    Args:
        runtime: What the process has at hand.
        fail: Ends the process.
    """

    def __init__(self, runtime: Runtime, fail: Fail) -> None:
        self._runtime = runtime
        self._reader = Reader(runtime.codec, runtime.registry)
        self._runs: dict[str, Kept] = {}
        # What this process wrote and has not read yet, by its bytes.
        self._own: dict[bytes | None, asyncio.Future[None]] = {}
        self._arrived: asyncio.Queue[list[Record] | None] = asyncio.Queue()
        self._complete = asyncio.Event()
        self._tail = Tail(
            runtime.kafka,
            [AGENT_JOURNALED.name],
            now() - 2 * KNOWN - SKEW,
            self._arrived.put_nowait,
            f"{runtime.name}-journal",
            fail=fail,
            caught_up=lambda: self._arrived.put_nowait(None),
            # Strangers' open transactions must hold no run up.
            committed=False,
        )
        self._tasks = [
            asyncio.create_task(vital(self._follow(), fail)),
            asyncio.create_task(self._sweep()),
        ]

    async def complete(self) -> None:
        """Returns when all is known that lay on the log when this process began."""
        await self._complete.wait()

    def overdue(self, now: datetime) -> list[str]:
        """Returns runs whose time is over and that do not know it."""
        return [
            run_id
            for run_id, kept in self._runs.items()
            if kept.entries and not kept.ended and kept.until <= now
        ]

    def kept(self, run_id: str) -> Kept:
        """Returns what is known of a run."""
        return self._runs.get(run_id) or Kept()

    async def append(self, entry: AgentJournaled, headers: Headers) -> None:
        """Writes an entry; returns when it stands.

        Raises:
            JournalLost: Another stands in its place.
            PublishFailed: The broker does not take it.
        """
        publisher = self._runtime.publisher
        [encoded] = publisher.encode([Outgoing(AGENT_JOURNALED, entry)])
        stands: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._own[encoded.value] = stands
        await publisher.publish([encoded], headers)
        await stands

    async def close(self) -> None:
        """Stops following."""
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
                log.info("runs known", runs=len(self._runs))

    async def _take(self, record: Record) -> None:
        stands = self._own.pop(record.value, None)
        try:
            entry = await self._reader.read(record.value, AgentJournaled)
        except (Unreadable, SchemaMissing) as problem:
            log.warning("entry unreadable", offset=record.offset, error=str(problem))
            if stands is not None and not stands.done():
                stands.set_exception(problem)
            return
        kept = self._runs.setdefault(entry.run_id, Kept())
        next_one = kept.take(entry)
        if stands is None or stands.done():
            return
        if next_one:
            stands.set_result(None)
        else:
            stands.set_exception(JournalLost(f"another process goes on with {entry.run_id}"))

    async def _sweep(self) -> None:
        """Forgets runs for which nothing can come any more."""
        while True:
            await asyncio.sleep(SWEEP_S)
            old = now() - KNOWN
            for run_id in [each for each, kept in self._runs.items() if kept.until < old]:
                del self._runs[run_id]
