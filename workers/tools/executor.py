"""The process that runs calls: taken from the queue, run by language, noted in the journal.

It hears what callers cancel by itself, as every worker does.
"""

from __future__ import annotations

import asyncio
import ctypes
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import timedelta
from importlib import import_module
from typing import Any

import structlog
from pydantic import ValidationError

from infra.bus import Publisher, PublishFailed, Record
from infra.catalog import CatalogView
from infra.health import Health
from infra.registry import Reader, SchemaMissing
from infra.secrets import SecretUnavailable, lend
from infra.settings import HealthSettings, KafkaSettings, PostgresSettings, ToolsSettings
from infra.tail import Tail
from infra.telemetry import now
from schemas.agents import run_id
from schemas.codec import Unreadable
from schemas.events import AuditOutcome, AuditRecorded, CatalogChanged, RequestCancelled
from schemas.topics import AUDIT_RECORDED, BEHIND, LONGEST_DEADLINE_MS, REQUEST_CANCELLED, Outgoing
from workers.ending import Ending
from workers.tools import Call, Fault, Runner, ToolFailed
from workers.tools.calls import RUNNERS, Office, Opening, Wanted
from workers.tools.executing import Executing
from workers.tools.journal import Journal, open_journal
from workers.tools.queue import NAME, Taking
from workers.tools.sandbox import SandboxUnavailable
from workers.tools.sessions import JournalUnreachable

log = structlog.get_logger()

# How far back cancellations are read at start.
REMEMBER = timedelta(milliseconds=LONGEST_DEADLINE_MS)
PURGE_EVERY_S = 3600.0
# How long the queue's threads may take to end when all calls have.
STOP_S = 10.0
# Of prctl(2).
SET_DUMPABLE = 4


class RunnerUnfit(RuntimeError):
    """Functions cannot be run here; the message says in which language, and why."""


class Lacking:
    """Answers calls in a language whose functions cannot be run here.

    Args:
        why: Says which language it is, and what lacks.
    """

    def __init__(self, why: str) -> None:
        self._why = why

    async def run(self, call: Call) -> Any:
        """Returns nothing.

        Raises:
            ToolFailed: It cannot be run.
        """
        raise ToolFailed(Fault.SOURCE, self._why)

    async def close(self) -> None:
        """Holds nothing."""


class Executor:
    """The process. Made inside the running loop.

    Args:
        kafka: Where the broker is.
        postgres: Where the journal's server is.
        settings: How calls are run.
        health: Where to answer about health.
        publisher: Takes notes for the audit.
        reader: Decodes records.

    Attributes:
        view: The catalog; whoever runs this feeds it.
    """

    def __init__(  # noqa: PLR0917 - all that it stands on
        self,
        kafka: KafkaSettings,
        postgres: PostgresSettings,
        settings: ToolsSettings,
        health: HealthSettings,
        publisher: Publisher,
        reader: Reader,
    ) -> None:
        self.view = CatalogView()
        self._kafka = kafka
        self._postgres = postgres
        self._settings = settings
        self._publisher = publisher
        self._reader = reader
        self._loop = asyncio.get_running_loop()
        self._ending = Ending()
        self._health = Health(health, kafka)
        self._executing: Executing | None = None
        self._hearing: set[asyncio.Task[None]] = set()

    def changed(self, change: CatalogChanged) -> None:
        """Hears of a change that the view has taken in."""
        if self._executing is not None:
            self._executing.changed(change)

    def fail(self, error: BaseException) -> None:
        """Ends the process: what is under way is left to another."""
        self._ending.fail(error)

    async def run(self) -> None:
        """Runs calls until SIGTERM or SIGINT, then drains; the view must be complete.

        Raises:
            Exception: What ended the work early; the process must end non-zero.
            JournalUnreachable: PostgreSQL does not answer at the start.
            LookupError: A language has nothing that runs it.
            RunnerUnfit: There is none whose functions can be run here, or one cannot be opened now.
        """
        hide()
        self._ending.listen()
        async with AsyncExitStack() as held:
            journal = await open_journal(self._postgres, self._settings.database)
            held.push_async_callback(journal.close)
            office = Office(view=self.view, settings=self._settings, secret=self._secret)
            runners = await open_runners(office, held)
            executing = Executing(journal, self.view, runners, self._settings)
            self._executing = executing
            await self._hear(held)
            purging = asyncio.create_task(self._purge(journal))
            held.callback(purging.cancel)
            taking = Taking(self._settings, self._perform, self._told)
            taking.start()
            self._health.start()
            self._health.begin()
            log.info("executor started", at_once=self._settings.at_once, languages=list(runners))
            await self._ending.come()
            self._health.drain()
            drain_s = self._settings.drain_ms / 1000
            stopping = asyncio.create_task(asyncio.to_thread(taking.stop, drain_s + STOP_S))
            await executing.drain(drain_s)
            await stopping
        self._health.close()
        self._ending.check()

    async def _hear(self, held: AsyncExitStack) -> None:
        """Hears from now on what callers cancel, and what they cancelled lately."""
        tail = Tail(
            self._kafka,
            [REQUEST_CANCELLED.name],
            now() - REMEMBER,
            self._heard,
            f"{NAME}-control",
            fail=self.fail,
            committed=False,
        )
        await tail.start()
        held.push_async_callback(tail.close)

    def _heard(self, records: list[Record]) -> None:
        task = asyncio.create_task(self._heed(records))
        self._hearing.add(task)
        task.add_done_callback(self._hearing.discard)

    async def _heed(self, records: list[Record]) -> None:
        assert self._executing is not None
        for record in records:
            try:
                cancelled = await self._reader.read(record.value, RequestCancelled)
            except (Unreadable, SchemaMissing) as problem:
                log.warning("cancellation unreadable", offset=record.offset, error=str(problem))
                continue
            until = min(cancelled.deadline, now() + REMEMBER)
            self._executing.cancel(run_id(cancelled.request_id, cancelled.tenant), until)

    def _perform(self, text: str) -> None:
        """Performs a call for a thread of the queue's."""
        assert self._executing is not None
        try:
            wanted = Wanted.model_validate_json(text)
        except ValidationError:
            log.error("call unreadable: another version has sent it")
            return
        work = self._executing.perform(wanted)
        try:
            asyncio.run_coroutine_threadsafe(work, self._loop).result()
        except JournalUnreachable as problem:
            log.warning("call given up", call=wanted.call_id, error=str(problem))
        # A surprise ends the process: whoever waits sends the call again.
        except Exception as error:  # noqa: BLE001
            self._told(error)

    def _told(self, error: BaseException) -> None:
        self._loop.call_soon_threadsafe(self.fail, error)

    async def _purge(self, journal: Journal) -> None:
        while True:
            try:
                log.info("journal purged", calls=await journal.purge())
            except JournalUnreachable as problem:
                log.warning("journal not purged", error=str(problem))
            await asyncio.sleep(PURGE_EVERY_S)

    async def _secret(self, call: Call, reference: str) -> str:
        failure = None
        try:
            return await asyncio.to_thread(lend, reference)
        except SecretUnavailable as problem:
            failure = str(problem)
            raise
        finally:
            self._note(call, reference, failure)

    def _note(self, call: Call, reference: str, failure: str | None) -> None:
        instant = now()
        at_ms = int(instant.timestamp() * 1000)
        recorded = AuditRecorded(
            audit_id=f"secret.used/{call.call_id}/{at_ms}/{reference}",
            at=instant,
            source=NAME,
            principal=call.principal,
            tenant=call.tenant,
            action="secret.used",
            kind="secret",
            name=reference,
            outcome=AuditOutcome.FAILED if failure else AuditOutcome.DONE,
            reason=failure,
            request_id=call.call_id.rpartition(BEHIND)[0],
        )

        def settled(failed: PublishFailed | None) -> None:
            if failed is not None:
                self.fail(failed)

        self._publisher.post(
            self._publisher.encode([Outgoing(AUDIT_RECORDED, recorded)]), (), settled
        )


def hide() -> None:
    """Keeps this process's memory and environment from others of its user, such as commands of MCP.

    Programs that it starts are not hidden; whoever may trace everything sees it all the same.
    Source: PR_SET_DUMPABLE in prctl(2).
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_DUMPABLE, 0, 0, 0, 0)


async def open_runners(office: Office, held: AsyncExitStack) -> dict[str, Runner]:
    """Returns what runs calls, by language; one that this machine lacks something for says so.

    Args:
        office: What they are opened with.
        held: Closes them.

    Raises:
        LookupError: A language has nothing that runs it.
        RunnerUnfit: There is none that can be run here, or one cannot be opened now.
    """
    runners: dict[str, Runner] = {}
    lacks: list[str] = []
    for language, opening in openings(office.settings).items():
        try:
            runners[language] = await opening(office)
        except SandboxUnavailable as problem:
            lacks.append(f"{language} cannot be run here: {problem}")
            log.error("language lacks something", language=language, error=str(problem))
            runners[language] = Lacking(lacks[-1])
        # It may pass: whoever starts this process anew asks again.
        except Exception as problem:
            raise RunnerUnfit(f"{language} cannot be opened now: {problem!r}") from problem
        held.push_async_callback(runners[language].close)
    if len(lacks) == len(runners):
        raise RunnerUnfit("; ".join(lacks))
    return runners


def openings(settings: ToolsSettings) -> Mapping[str, Opening]:
    """Returns what opens a runner, by language.

    Raises:
        LookupError: A language has nothing that runs it.
    """
    found: dict[str, Opening] = {}
    for language, path in {**RUNNERS, **settings.runners}.items():
        module, _, function = path.partition(":")
        try:
            found[language] = getattr(import_module(module), function)
        except (AttributeError, ImportError, ValueError) as problem:
            raise LookupError(
                f"{path}, which runs {language}, cannot be loaded: {problem}"
            ) from None
    return found
