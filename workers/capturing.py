"""Bringing one captured table to what the catalog wants, and seeing how it stands.

What was missed once stays missed: a capture whose slot, publication, table or topic was taken away
behind its back is stopped and says so until it is begun anew. It never goes on with a gap.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from infra.addresses import permitted
from infra.connectors.connect import Connect, Connector
from infra.connectors.database import Database, DatabaseUnreachable, Slot, position, session
from infra.connectors.lent import Lent
from infra.connectors.source import (
    FIXED,
    IDENTITY,
    MISSED,
    SECURE,
    CaptureRefused,
    Place,
    Source,
    beside,
    configuration,
    place_of,
    reached_by,
)
from infra.connectors.topics import Topics
from infra.registry import Reader
from infra.secrets import lend
from schemas.events import SourceState
from schemas.kinds import ConnectionSpec
from schemas.shapes import length
from workers.rereading import Rereading

log = structlog.get_logger()

# How long something may take before it is called wrong.
PATIENCE_S = 30.0
# Heartbeats that may be missed before nothing is believed to arrive.
BEATS = 3
FIRST_WAIT_S, LONGEST_WAIT_S = 5.0, 300.0
MOST_DOUBLED = 6
# Restarts after which a connector counts as failed; it is restarted further on.
TRIES = 3
# What Debezium says where its slot does not have any more what it must read next.
FORGOTTEN = "no longer available on the server"
# Where in its log a database was, as Debezium notes it.
NOTED = ("lsn", "lsn_commit", "lsn_proc")
ANEW = "begin it anew: tessera source remove {table}, then create; then rebuild its indexes"
RETRIED = "it is started again by itself; why it failed: tessera logs connect"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a capture stands, as in SourceReported, and whether it has begun; None: as before."""

    state: SourceState
    reason: str | None = None
    remedy: str | None = None
    confirmed_lsn: str | None = None
    lag_bytes: int | None = None
    retained_bytes: int | None = None
    resnapshots: int | None = None
    begun: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """Where a database is, and the password there with the reference that leads to it."""

    place: Place
    reference: str
    password: str = field(repr=False)


class Capturing:
    """One captured table.

    Args:
        table: Its three-level name.
        connect: Runs its connector.
        topics: Makes its topics.
        lent: Holds its password.
        reader: Decodes what its connector tells.
        used: Called with the reference of each secret that is handed to its connector.
    """

    def __init__(
        self,
        table: str,
        connect: Connect,
        topics: Topics,
        lent: Lent,
        *,
        reader: Reader,
        used: Callable[[str], None],
    ) -> None:
        self._table = table
        self._connect = connect
        self._topics = topics
        self._lent = lent
        self._used = used
        self._rereading = Rereading(connect, topics, reader)
        self._since: dict[str, float] = {}
        self._confirmed: tuple[str | None, float] = (None, 0.0)
        self._tries = 0
        self._try_at = 0.0

    async def bring(
        self,
        source: Source,
        connection: ConnectionSpec,
        connector: Connector | None,
        *,
        begun: bool,
        reread: int = 0,
    ) -> Standing:
        """Makes a table captured as it should be; returns how that stands.

        Args:
            source: The table.
            connection: Its database.
            connector: Its connector as it stands; None where it has none.
            begun: Whether it had one before.
            reread: The last request to read rows again that was carried out.

        Raises:
            AddressForbidden: The database is where no connection may lead.
            BusUnreachable: No broker answers.
            CaptureRefused: It cannot be captured as it is; the error says what to do.
            ConnectUnreachable: Kafka Connect does not answer.
            DatabaseUnreachable: Its database does not.
            OSError: Its host has no address, or the password cannot be handed on.
            SecretUnavailable: Its secret is not where the reference points.
        """
        login = await reach(connection, connector)
        async with session(login.place, login.password) as database:
            if connector is not None and (missed := connector.told.get(MISSED)):
                # Whoever takes it away logs in with what is lent, so that must stay good.
                self._lend(source.name, login)
                raise CaptureRefused(missed, ANEW.format(table=self._table))
            relation = await database.check(source)
            if connector is None and begun:
                gone = f"its connector {source.name} was deleted in Kafka Connect, not its slot"
                raise CaptureRefused(gone, ANEW.format(table=self._table))
            if connector is None:
                return await self._begin(database, source, login, relation)
            told = configuration(
                source, login.place, _identity(connector), self._lent.place(source.name)
            )
            if any(connector.told.get(name) != told[name] for name in FIXED):
                await self.remove(source.name, connector)
                return Standing(state=SourceState.STARTING, begun=False)
            slot = await database.slot(source.name)
            if missed := await self._missed(database, source, relation, connector, slot):
                return await self._missing(source, connector, missed)
            await self._settle(source.name, connector, told, login)
            standing = await self._standing(source, connector, slot)
            if source.capture.resnapshot > reread:
                return await self._reread(database, source, standing)
            return standing

    async def remove(self, name: str, connector: Connector) -> None:
        """Takes everything of a capture away; what is gone already is fine.

        Raises:
            CaptureRefused: Its database lets nobody in; and otherwise as ``bring``.
        """
        password = self._lent.password(name)
        if password is None:
            raise CaptureRefused(
                "its password is not at hand any more, so slot and publication stay",
                f"drop slot and publication {name} in its database, then connector {name} in "
                "Kafka Connect",
            )
        await self._connect.halt(name)
        reached = reached_by(connector.told)
        # An address was judged when it was written there; a name is proved by its certificate.
        place = await _judged(reached, private=reached.tls != SECURE)
        async with session(place, password) as database:
            await database.drop_slot(name)
            await database.drop_publication(name)
        prefix = connector.told["topic.prefix"]
        found = await asyncio.to_thread(self._topics.names)
        ours = {each for each in found if each.startswith(f"{prefix}.")}
        await asyncio.to_thread(self._topics.delete, ours | {*beside(prefix)})
        # The last thing, for it is what tells of all else.
        await self._connect.delete(name)
        self._lent.take_back(name)
        log.info("capture removed", connector=name)

    async def _begin(
        self, database: Database, source: Source, login: Login, relation: int
    ) -> Standing:
        await database.check_room()
        await asyncio.to_thread(self._topics.make, source)
        identity = await database.publish(source, relation)
        self._lend(source.name, login)
        told = configuration(source, login.place, identity, self._lent.place(source.name))
        # Refused where somebody else was faster, whose slot must not be touched.
        await self._connect.create(source.name, told)
        # What was left behind would give a new capture an old beginning.
        await database.drop_slot(source.name)
        for topic in (source.topic, source.notices):
            await asyncio.to_thread(self._topics.empty, topic)
        await self._connect.begin(source.name)
        log.info("capture begins", table=source.table, connector=source.name)
        # Who reads all rows at the beginning need not read them again for what was asked before.
        read = source.capture.resnapshot if source.capture.snapshot == "initial" else 0
        return Standing(state=SourceState.STARTING, begun=True, resnapshots=read)

    async def _missed(
        self,
        database: Database,
        source: Source,
        relation: int,
        connector: Connector,
        slot: Slot | None,
    ) -> str | None:
        """Returns why changes are missed that will never come; None where all is there."""
        if await database.published(source, relation) != _identity(connector):
            return "its publication, or the table itself, was dropped or made anew"
        topics = await asyncio.to_thread(self._topics.names)
        if source.topic not in topics:
            return f"its topic {source.topic} was deleted"
        if not topics.issuperset((source.heartbeats, source.notices)):
            await asyncio.to_thread(self._topics.make, source)
        read = await self._connect.offset(source.name)
        if slot is None:
            return f"its replication slot {source.name} was dropped" if read else None
        if slot.kept == "lost":
            return f"its replication slot {source.name} fell too far behind: the log is gone"
        # What is read is noted before it is confirmed; the slot was looked at first.
        ahead = read is not None and not slot.active and position(slot.confirmed) > _noted(read)
        if ahead or (connector.failed and FORGOTTEN in connector.trace):
            return f"its replication slot {source.name} was made anew, or moved on by somebody"
        return None

    async def _missing(self, source: Source, connector: Connector, missed: str) -> Standing:
        """Stops a capture for good."""
        reason = f"{missed}: changes since then are missed"
        log.error("capture misses changes", table=source.table, reason=missed)
        await self._connect.stop(source.name)
        await self._connect.put(source.name, {**connector.told, MISSED: reason})
        raise CaptureRefused(reason, ANEW.format(table=self._table))

    async def _settle(
        self, name: str, connector: Connector, told: Mapping[str, str], login: Login
    ) -> None:
        """Lets a connector have what has changed for it."""
        rotated = self._lend(name, login)
        if any(connector.told.get(each) != value for each, value in told.items()):
            await self._connect.put(name, told)
        elif rotated:
            await self._connect.restart(name, only_failed=False)

    async def _reread(self, database: Database, source: Source, standing: Standing) -> Standing:
        """Has rows read again."""
        if standing.state is not SourceState.STREAMING:
            return standing
        progress = await self._rereading.bring(database, source)
        if progress.ended:
            return replace(standing, resnapshots=source.capture.resnapshot)
        if progress.reason:
            return replace(standing, reason=progress.reason, remedy=progress.remedy)
        return standing

    def _lend(self, name: str, login: Login) -> bool:
        fresh = self._lent.lend(name, login.password)
        if fresh:
            self._used(login.reference)
        return fresh

    async def _standing(self, source: Source, connector: Connector, slot: Slot | None) -> Standing:
        offset = await self._connect.offset(source.name)
        state, reason, remedy = await self._state(source, connector, slot, offset)
        if slot is None:
            return Standing(state=state, reason=reason, remedy=remedy)
        return Standing(
            state=state,
            reason=reason,
            remedy=remedy,
            confirmed_lsn=slot.confirmed,
            lag_bytes=slot.lag,
            retained_bytes=slot.retained,
        )

    async def _state(
        self,
        source: Source,
        connector: Connector,
        slot: Slot | None,
        offset: Mapping[str, Any] | None,
    ) -> tuple[SourceState, str | None, str | None]:
        if connector.failed:
            return await self._revive(source.name, connector)
        if connector.state in ("PAUSED", "STOPPED"):
            return await self._held(source.name, connector, offset)
        if "RUNNING" not in connector.tasks or (slot is None and offset is None):
            return self._awaited("start", SourceState.STARTING, "its connector does not start")
        self._since.pop("start", None)
        # Nothing reads from it before the snapshot is complete.
        if slot is not None and slot.active:
            return self._streaming(source, slot)
        if offset is None or offset.get("snapshot"):
            return SourceState.SNAPSHOT, None, None
        reason = "nothing reads from its replication slot"
        return self._awaited("slot", SourceState.STREAMING, reason)

    async def _held(
        self, name: str, connector: Connector, offset: Mapping[str, Any] | None
    ) -> tuple[SourceState, str | None, str | None]:
        if connector.state == "STOPPED":
            # By us, and we ended before it could begin, or go on; people pause one.
            await (self._connect.begin(name) if offset is None else self._connect.resume(name))
            return SourceState.STARTING, None, None
        remedy = f"resume connector {name} in Kafka Connect: its slot keeps log meanwhile"
        return SourceState.PAUSED, "somebody paused it in Kafka Connect", remedy

    def _streaming(self, source: Source, slot: Slot) -> tuple[SourceState, str | None, str | None]:
        self._tries = 0
        self._since.pop("slot", None)
        known, since = self._confirmed
        if slot.confirmed != known or not slot.lag:
            self._confirmed = (slot.confirmed, time.monotonic())
        elif time.monotonic() - since > self._silence(source):
            reason = "its database is not read on: not even heartbeats arrive"
            return SourceState.DEGRADED, reason, RETRIED
        if slot.kept == "unreserved":
            reason = "it is so far behind that its database is about to forget what it needs"
            remedy = "raise max_slot_wal_keep_size there, or let it write less"
            return SourceState.DEGRADED, reason, remedy
        return SourceState.STREAMING, None, None

    def _silence(self, source: Source) -> float:
        beat = length(source.capture.heartbeat).total_seconds()
        return PATIENCE_S + BEATS * beat

    def _awaited(
        self, what: str, state: SourceState, reason: str
    ) -> tuple[SourceState, str | None, str | None]:
        """Returns a state that may last a while, and then is called wrong."""
        since = self._since.setdefault(what, time.monotonic())
        if time.monotonic() - since > PATIENCE_S:
            return SourceState.DEGRADED, reason, RETRIED
        return state, None, None

    async def _revive(
        self, name: str, connector: Connector
    ) -> tuple[SourceState, str | None, str | None]:
        instant = time.monotonic()
        if instant >= self._try_at:
            wait = FIRST_WAIT_S * 2.0 ** min(self._tries, MOST_DOUBLED)
            self._try_at = instant + min(wait, LONGEST_WAIT_S)
            self._tries += 1
            log.warning("connector restarted", connector=name, cause=connector.cause)
            await self._connect.restart(name)
        state = SourceState.FAILED if self._tries > TRIES else SourceState.DEGRADED
        return state, f"its connector failed: {connector.cause}", RETRIED


def _noted(offset: Mapping[str, Any]) -> int:
    return max(int(offset.get(name) or 0) for name in NOTED)


def _identity(connector: Connector) -> str:
    return connector.told.get(IDENTITY, "")


async def reach(connection: ConnectionSpec, connector: Connector | None) -> Login:
    """Returns where a database is and the password there, both as they may be used."""
    place, reference = place_of(connection), connection.secret or ""
    password = await asyncio.to_thread(lend, reference)
    known = connector.told.get("database.hostname") if connector else None
    judged = await _judged(place, private=connection.private, known=known)
    return Login(place=judged, reference=reference, password=password)


async def _judged(place: Place, *, private: bool, known: str | None = None) -> Place:
    """Returns a place with the address to dial.

    Args:
        place: Where its host is a name, or an address that was judged before.
        private: Whether it may be of a private network.
        known: What was dialled before; kept where the host still has it.
    """
    try:
        addresses = await permitted(place.host, place.port, private=private)
    except OSError:
        raise DatabaseUnreachable(f"its host {place.host} has no address") from None
    return replace(place, address=known if known in addresses else addresses[0])
