"""The watch over captured tables: what the catalog wants is made so, and how it stands is told.

Of several processes one acts. Each table is brought along by itself, so that a database that hangs
holds up no other. What is not wanted any more is taken away, tried again until it is gone.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Coroutine
from dataclasses import asdict, replace
from functools import partial

import structlog

from infra.addresses import AddressForbidden
from infra.bus import BusUnreachable, Publisher, PublishFailed
from infra.catalog import CatalogView
from infra.connectors.connect import Connect, Connector, ConnectRefused, ConnectUnreachable
from infra.connectors.database import DatabaseUnreachable
from infra.connectors.lent import Lent
from infra.connectors.source import TABLE, CaptureRefused, Source, name_of
from infra.connectors.topics import Topics
from infra.health import Health
from infra.lead import Lead
from infra.registry import Reader
from infra.secrets import SecretUnavailable
from infra.settings import (
    ConnectSettings,
    HealthSettings,
    KafkaSettings,
    SourcesSettings,
)
from infra.telemetry import now
from infra.told import last_told
from schemas.events import (
    CatalogChanged,
    SourceReported,
    SourceState,
)
from schemas.tables import TableSpec
from schemas.topics import SOURCE_REPORTED, Outgoing, captured
from workers.capturing import Capturing, Standing
from workers.ending import Ending

log = structlog.get_logger()

NAME = "sources"
# How long one look at a table may take.
LOOK_S = 50.0
GONE = Standing(state=SourceState.REMOVED, begun=False)
GOING = "it is not wanted any more, and not gone yet: "

# What can be expected to be wrong: the state that follows of it, and what to do about it.
PROBLEMS: dict[type[Exception], tuple[SourceState, str]] = {
    AddressForbidden: (SourceState.FAILED, "mend url of its connection, or set private there"),
    BusUnreachable: (SourceState.DEGRADED, "it is tried again by itself"),
    ConnectRefused: (SourceState.FAILED, "mend its connection, or see: tessera logs connect"),
    ConnectUnreachable: (SourceState.DEGRADED, "it is tried again; see: tessera status"),
    DatabaseUnreachable: (SourceState.DEGRADED, "it is tried again; see that its database is up"),
    OSError: (SourceState.FAILED, "let this process write into the folder CONNECT_LENT"),
    SecretUnavailable: (SourceState.FAILED, "mend secret of its connection, or put it there"),
    TimeoutError: (SourceState.DEGRADED, "it is tried again; see that its database answers"),
}


class Sources:
    """The watch. Made inside the running loop.

    Args:
        kafka: Where the broker is.
        connect: Where Kafka Connect is.
        settings: How closely to watch.
        health: Where to answer about health.
        publisher: Takes the reports.
        reader: Decodes what was reported before.

    Attributes:
        view: The catalog; whoever runs this feeds it, and calls ``changed``.
    """

    def __init__(  # noqa: PLR0917 - all that it stands on
        self,
        kafka: KafkaSettings,
        connect: ConnectSettings,
        settings: SourcesSettings,
        health: HealthSettings,
        publisher: Publisher,
        reader: Reader,
    ) -> None:
        self.view = CatalogView()
        self._kafka = kafka
        self._settings = settings
        self._publisher = publisher
        self._reader = reader
        self._ending = Ending()
        self._connect = Connect(connect.url)
        self._topics = Topics(kafka)
        self._lent = Lent(connect.lent)
        self._health = Health(health, kafka)
        client_id = f"{NAME}-{os.uname().nodename}-{os.getpid()}"
        self._lead = Lead(kafka, NAME, client_id, SOURCE_REPORTED.name, self._chosen, self.fail)
        self._news = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None
        self._capturing: dict[str, Capturing] = {}
        self._looks: dict[str, asyncio.Task[None]] = {}
        self._told: dict[str, SourceReported] = {}
        self._told_at: dict[str, float] = {}
        # Of which the catalog has changed: before they were looked at again, and since.
        self._asked: set[str] = set()
        self._answered: set[str] = set()

    async def run(self) -> None:
        """Watches until SIGTERM or SIGINT.

        Raises:
            Exception: What ended the work early; the process must end non-zero.
        """
        self._ending.listen()
        await self._lead.start()
        self._health.start()
        self._health.begin()
        await self._ending.come()
        self._health.drain()
        await self._rest()
        await self._lead.close()
        await self._connect.close()
        self._health.close()
        self._ending.check()

    def changed(self, change: CatalogChanged) -> None:
        """Hears of a change that the view has taken in."""
        if change.kind == "table":
            # Whoever changed it waits for a word, also where it is the same as before.
            self._asked.add(change.name)
        if change.kind in ("connection", "table"):
            self._news.set()

    def fail(self, error: BaseException) -> None:
        """Ends the process."""
        self._ending.fail(error)

    def _chosen(self, chosen: bool) -> None:
        log.info("captured tables watched" if chosen else "captured tables left to another")
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None
        if chosen and not self._ending.failed:
            self._watching = asyncio.create_task(self._guarded(self._watch()))

    async def _rest(self) -> None:
        tasks = [*self._looks.values(), *([self._watching] if self._watching else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _guarded(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        # Whatever it is: tables that nobody watches must not look healthy.
        except Exception as error:  # noqa: BLE001
            self.fail(error)

    async def _watch(self) -> None:
        self._told = await last_told(self._kafka, self._reader, SOURCE_REPORTED, f"{NAME}-told")
        while True:
            self._news.clear()
            # What is under way now may differ from what is found by the time that it has ended.
            busy = frozenset(self._looks)
            try:
                self._look(await self._connect.connectors(), busy)
            except ConnectUnreachable as problem:
                self._look_in_vain(problem)
            try:
                async with asyncio.timeout(self._settings.every_ms / 1000):
                    await self._news.wait()
            except TimeoutError:
                continue

    def _look(self, connectors: dict[str, Connector], busy: frozenset[str]) -> None:
        """Looks at every table that is, or was, captured, save the busy; returns at once."""
        ours = {
            table: connector
            for name, connector in connectors.items()
            if name == name_of(table := connector.told.get(TABLE, ""))
        }
        wanted = self._wanted()
        for table in wanted.keys() - busy:
            self._begin(table, self._brought(table, wanted[table], ours.get(table)))
        for table in filter(self._unwanted, ours.keys() - wanted.keys() - busy):
            self._begin(table, self._removed(table, ours[table]))
        for table in self._told.keys() - wanted.keys() - ours.keys() - busy:
            self._begin(table, self._tell(table, GONE))
        kept = (table for table, told in self._told.items() if told.connector)
        in_use = {name_of(table) for table in (*wanted, *ours, *busy, *kept)}
        for name in set(self._lent.names()) - in_use:
            self._lent.take_back(name)

    def _look_in_vain(self, problem: ConnectUnreachable) -> None:
        state, remedy = PROBLEMS[ConnectUnreachable]
        standing = Standing(state=state, reason=str(problem), remedy=remedy)
        going = replace(standing, reason=f"{GOING}{problem}")
        wanted = self._wanted()
        for table in wanted:
            self._begin(table, self._tell(table, standing))
        for table, report in self._told.items():
            if table not in wanted and report.state is not SourceState.REMOVED:
                self._begin(table, self._tell(table, going))

    def _wanted(self) -> dict[str, TableSpec]:
        return {table: spec for table, spec in self.view.tables.items() if spec.capture is not None}

    def _unwanted(self, table: str) -> bool:
        """Returns whether the catalog says so; an entry that cannot be read says nothing."""
        entry = self.view.entry("table", table)
        return table in self.view.tables or entry is None or entry[1] is None

    def _begin(self, table: str, look: Coroutine[None, None, None]) -> None:
        """Begins a look at a table, unless the one before is still under way."""
        if table in self._looks:
            look.close()
            return
        if table in self._asked:
            self._asked.discard(table)
            self._answered.add(table)
        task = self._looks[table] = asyncio.create_task(self._guarded(look))
        task.add_done_callback(lambda done: self._looks.pop(table, None))

    async def _brought(self, table: str, spec: TableSpec, connector: Connector | None) -> None:
        capturing, begun, before = self._of(table), self._has_begun(table), self._told.get(table)
        reread = before.resnapshots if before and begun else 0

        async def bring() -> Standing:
            assert spec.capture is not None
            source = Source.of(table, spec.location, spec.capture)
            connection = self.view.connections.get(spec.connection or "")
            if connection is None:
                raise CaptureRefused(
                    "it names no connection that the catalog has",
                    "give it a connection of type postgresql",
                )
            return await capturing.bring(source, connection, connector, begun=begun, reread=reread)

        standing = await _seen(bring())
        if standing.begun is None and connector is not None:
            standing = replace(standing, begun=True)
        await self._tell(table, standing, spec.location)

    def _has_begun(self, table: str) -> bool:
        told = self._told.get(table)
        return told is not None and bool(told.connector)

    async def _removed(self, table: str, connector: Connector) -> None:
        capturing = self._of(table)

        async def remove() -> Standing:
            await capturing.remove(name_of(table), connector)
            return GONE

        standing = await _seen(remove(), GOING)
        if standing is GONE:
            self._capturing.pop(table, None)
        else:
            last = f"where its database is gone for good, delete {name_of(table)} in Kafka Connect"
            standing = replace(standing, remedy=f"{standing.remedy}; {last}")
        await self._tell(table, standing)

    def _of(self, table: str) -> Capturing:
        if table not in self._capturing:
            self._capturing[table] = Capturing(
                table,
                self._connect,
                self._topics,
                self._lent,
                reader=self._reader,
                used=partial(self._ending.audit, self._publisher, NAME, table),
            )
        return self._capturing[table]

    async def _tell(self, table: str, standing: Standing, location: str = "") -> None:
        """Reports how a table stands, where that is news."""
        before = self._told.get(table)
        topic = before.topic if before and standing is not GONE else ""
        if location and standing.state is not SourceState.FAILED:
            topic = captured(table, location)
        begun = self._has_begun(table) if standing.begun is None else standing.begun
        name = name_of(table) if begun else ""
        if standing.resnapshots is None:
            reread = before.resnapshots if before and begun else 0
            standing = replace(standing, resnapshots=reread)
        facts = {each: value for each, value in asdict(standing).items() if each != "begun"}
        report = SourceReported(
            table=table, topic=topic, connector=name, slot=name, reported_at=now(), **facts
        )
        if not self._is_news(before, report):
            return
        try:
            await self._publisher.publish(
                self._publisher.encode([Outgoing(SOURCE_REPORTED, report)])
            )
        except PublishFailed as failed:
            log.warning("report not taken", table=table, error=str(failed))
            return
        if before is None or before.state != report.state:
            log.info("source stands", table=table, state=report.state, reason=report.reason)
        self._answered.discard(table)
        self._told[table] = report
        self._told_at[table] = time.monotonic()

    def _is_news(self, before: SourceReported | None, report: SourceReported) -> bool:
        if before is None or report.table in self._answered or _gist(before) != _gist(report):
            return True
        due = self._told_at.get(table := report.table, 0.0) + self._settings.tell_ms / 1000
        moved = (before.confirmed_lsn, before.lag_bytes) != (report.confirmed_lsn, report.lag_bytes)
        return moved and time.monotonic() >= due and table in self.view.tables


def _gist(report: SourceReported) -> tuple[object, ...]:
    stands = report.state, report.reason, report.remedy
    return *stands, report.topic, report.connector, report.resnapshots


async def _seen(look: Coroutine[None, None, Standing], before: str = "") -> Standing:
    """Returns how a table stands, also where it could not be looked at."""
    try:
        async with asyncio.timeout(LOOK_S):
            return await look
    except CaptureRefused as refused:
        return Standing(
            state=SourceState.FAILED, reason=f"{before}{refused}", remedy=refused.remedy
        )
    except tuple(PROBLEMS) as problem:
        # The nearest of its kinds: what takes too long is an error of the system's, too.
        known = next(kind for kind in type(problem).__mro__ if kind in PROBLEMS)
        state, remedy = PROBLEMS[known]
        reason = str(problem) if known not in (OSError, TimeoutError) else _plain(problem)
        return Standing(state=state, reason=f"{before}{reason}", remedy=remedy)


def _plain(problem: Exception) -> str:
    if isinstance(problem, TimeoutError):
        return f"it could not be looked at within {LOOK_S:.0f} s"
    return f"its password cannot be handed to Kafka Connect: {type(problem).__name__}"
