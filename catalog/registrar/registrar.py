"""The registrar: the one process that changes the catalog.

Three loops run beside each other: commands (here), the relay of what was changed, and the ingest of
lineage. Whatever ends one of them by an error ends the process, which starts anew.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable

import structlog
from confluent_kafka import Consumer, KafkaException, TopicPartition
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from catalog.registrar.commands import MOST_ID_BYTES, Commands, Superseded
from catalog.store.store import Store
from infra.bus import POLL_S, Encoded, Publisher, Record, fetch, membership, partitions
from infra.deadletters import bury
from infra.health import Health, Member
from infra.registry import Reader, SchemaMissing
from infra.settings import HealthSettings, KafkaSettings
from infra.telemetry import RECORDS, consuming, described, now
from schemas.codec import Unencodable, Unreadable
from schemas.events import CatalogWanted, DeadLetterCause
from schemas.topics import CATALOG_WANTED, Outgoing

log = structlog.get_logger()

GROUP = "catalog"
MOST_COMMANDS = 100
# Any number, as long as all registrars of one database take the same.
LOCK = 0x7E55E8A
LOCK_EVERY_S = 1.0
# How long what was changed may take to be published, and loops to end.
DRAIN_S = 10.0

# SQLSTATE classes of a database that cannot work, whatever it is asked: connections, deadlocks,
# resources, shutdown, and its own system.
BROKEN = ("08", "40", "53", "57P", "58")

# Works in a thread of its own until the event is set.
Loop = Callable[[threading.Event], None]


class Lock:
    """Held by one registrar of a database at a time; given up when its connection ends."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._connection: Connection | None = None

    def take(self) -> bool:
        """Returns whether this process has the lock now; blocks for the database alone."""
        if self._connection is None:
            engine = self._store.engine.execution_options(isolation_level="AUTOCOMMIT")
            self._connection = engine.connect()
        taken = text("SELECT pg_try_advisory_lock(:lock)")
        return bool(self._connection.execute(taken, {"lock": LOCK}).scalar_one())

    def check(self) -> None:
        """Returns if the lock still is held.

        Raises:
            OperationalError: The connection that held it has ended.
        """
        assert self._connection is not None, "a lock that was never taken"
        self._connection.execute(text("SELECT"))

    def close(self) -> None:
        """Gives the lock up."""
        if self._connection is not None:
            self._connection.close()


class Registrar:
    """Takes commands from the bus; made inside the running loop.

    Args:
        kafka: Where the broker is.
        health: Where to answer about health.
        publisher: Takes replies, audits and dead letters.
        reader: Decodes commands.
        lock: Held by this process.
    """

    def __init__(
        self,
        *,
        kafka: KafkaSettings,
        health: HealthSettings,
        publisher: Publisher,
        reader: Reader,
        lock: Lock,
    ) -> None:
        self._publisher = publisher
        self._reader = reader
        self._lock = lock
        self._loop = asyncio.get_running_loop()
        self._failed: asyncio.Future[None] = self._loop.create_future()
        # Commands end first, so that what they changed is still published.
        self._stop, self._end = threading.Event(), threading.Event()
        self._threads: list[threading.Thread] = []
        client_id = f"{GROUP}-{os.uname().nodename}-{os.getpid()}"
        member = membership(kafka, GROUP, client_id, committed=False)
        self._consumer = Consumer({**member, "fetch.wait.max.ms": 50})
        self._health = Health(health, kafka, Member(GROUP, client_id, (CATALOG_WANTED.name,)))
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.add_signal_handler(number, self._stop.set)
        self._health.start()

    @property
    def stopping(self) -> bool:
        """Whether the process was told to end."""
        return self._stop.is_set()

    async def locked(self) -> bool:
        """Returns when this is the one registrar, or False when the process shall end."""
        waits = False
        while not self.stopping:
            if await asyncio.to_thread(self._lock.take):
                return True
            if not waits:
                log.warning("another registrar is at work; this one waits for its end")
            waits = True
            await asyncio.sleep(LOCK_EVERY_S)
        return False

    def beside(self, name: str, loop: Loop) -> None:
        """Starts a loop in a thread of its own."""

        def run() -> None:
            try:
                loop(self._end)
            # Whatever ends a loop must end the process: nobody would do its work any more.
            except Exception as error:  # noqa: BLE001
                self._loop.call_soon_threadsafe(self._fail, name, error)

        thread = threading.Thread(target=run, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    async def run(
        self, commands: Commands, caught_up: threading.Event, idle: Callable[[], bool]
    ) -> None:
        """Takes commands until SIGTERM or SIGINT, then ends in good order.

        Args:
            commands: Carries them out.
            caught_up: Set when the bus knows what the catalog says; only then commands are taken.
            idle: Whether nothing is left to be published; blocks.

        Raises:
            Exception: What ended one of the loops; the process must end non-zero.
        """
        await asyncio.to_thread(partitions, self._consumer, CATALOG_WANTED.name)
        while not (caught_up.is_set() or self.stopping or self._failed.done()):
            await asyncio.to_thread(caught_up.wait, POLL_S)
        if not (self.stopping or self._failed.done()):
            self._consumer.subscribe([CATALOG_WANTED.name])
        taking = asyncio.create_task(self._take(commands))
        watching = asyncio.create_task(self._watch())
        log.info("registrar started")
        await asyncio.wait([taking, watching, self._failed], return_when=asyncio.FIRST_COMPLETED)
        self._health.drain()
        self._stop.set()
        for each in (taking, watching):
            try:
                await each
            except Exception as error:  # noqa: BLE001 - told below, after the rest has ended.
                self._fail("commands", error)
        await self._drained(idle)
        self._end.set()
        for thread in self._threads:
            await asyncio.to_thread(thread.join, DRAIN_S)
        await asyncio.to_thread(self._consumer.close)
        if self._failed.done():
            self._failed.result()

    async def close(self) -> None:
        """Gives back what is left."""
        self._health.close()
        await asyncio.to_thread(self._lock.close)

    def _fail(self, name: str, error: BaseException) -> None:
        if not self._failed.done():
            log.error("loop failed", loop=name, error=described(error))
            self._failed.set_exception(error)

    async def _drained(self, idle: Callable[[], bool]) -> None:
        """Returns when all is published, or nobody can publish it, or in time."""
        until = self._loop.time() + DRAIN_S
        while not self._failed.done() and self._loop.time() < until:
            if await asyncio.to_thread(idle):
                return
            await asyncio.sleep(POLL_S)

    async def _watch(self) -> None:
        while not self.stopping:
            await asyncio.to_thread(self._lock.check)
            await asyncio.sleep(LOCK_EVERY_S)

    async def _take(self, commands: Commands) -> None:
        while not self.stopping:
            for record in await asyncio.to_thread(fetch, self._consumer, MOST_COMMANDS, POLL_S):
                # What is not committed is delivered again.
                if self.stopping or self._failed.done():
                    return
                with consuming(GROUP, record.topic, record.headers) as headers:
                    said = await self._carried_out(commands, record)
                    await self._publisher.publish(await self._heard(said, record), headers)
                await asyncio.to_thread(self._commit, record)

    async def _carried_out(self, commands: Commands, record: Record) -> list[Outgoing]:
        """Carries a command out; returns what is to be said of it."""
        # In a batch that packs well more comes through than an answer or an audit may carry.
        if len(record.value or b"") > CATALOG_WANTED.max_bytes:
            said_of_it = f"a command has at most {CATALOG_WANTED.max_bytes} bytes"
            return [bury(record, GROUP, DeadLetterCause.UNREADABLE, said_of_it)]
        try:
            wanted = await self._reader.read(record.value, CatalogWanted)
        except Unreadable as problem:
            return [bury(record, GROUP, DeadLetterCause.UNREADABLE, str(problem))]
        except SchemaMissing as problem:
            return [bury(record, GROUP, DeadLetterCause.SCHEMA_UNKNOWN, str(problem))]
        if len(wanted.request_id.encode()) > MOST_ID_BYTES:
            said_of_it = f"a request id has at most {MOST_ID_BYTES} bytes"
            return [bury(record, GROUP, DeadLetterCause.UNREADABLE, said_of_it)]
        try:
            said = await asyncio.to_thread(commands.answer, wanted, record, now())
        # The one broad catch: a surprise becomes a dead letter and a reply, never a crash loop.
        except Exception as error:
            if isinstance(error, Superseded) or broken(error):
                raise
            letter = bury(record, GROUP, DeadLetterCause.STEP_FAILED, described(error))
            return [letter, *commands.failure(wanted, record, now())]
        RECORDS.labels("performed").inc()
        return said

    async def _heard(self, said: list[Outgoing], record: Record) -> list[Encoded]:
        """Returns what is said of a record, without what nobody hears as its topic is gone.

        What cannot be said at all leaves a dead letter in its place.
        """
        heard: list[Encoded] = []
        for outgoing in said:
            try:
                await self._publisher.partitions(outgoing.topic.name)
            except LookupError:
                log.warning("nobody hears this reply", topic=outgoing.topic.name)
                continue
            try:
                heard += self._publisher.encode([outgoing])
            except Unencodable as problem:
                letter = bury(record, GROUP, DeadLetterCause.STEP_FAILED, described(problem))
                heard += self._publisher.encode([letter])
        return heard

    def _commit(self, record: Record) -> None:
        place = TopicPartition(record.topic, record.partition, record.offset + 1)
        try:
            self._consumer.commit(offsets=[place], asynchronous=False)
        except KafkaException as problem:
            # It will be delivered again, and answered alike.
            log.warning("commit failed", error=problem.args[0].name())


def broken(error: Exception) -> bool:
    """Returns whether the database is to blame for an error, and not what it was asked."""
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    state = getattr(error.orig, "sqlstate", None)
    if state is None:
        # Without a statement there was no connection to begin with.
        return error.statement is None and isinstance(error, InterfaceError | OperationalError)
    return str(state).startswith(BROKEN)
