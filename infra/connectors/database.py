"""The database of a captured table: what capture needs of it, and what it keeps for us there.

What is made there is a publication of the one table; Debezium makes the slot. A database that keeps
log for us alone is somebody else's disk, so how much it keeps is told, and all of it goes again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from infra.connectors.source import SECURE, CaptureRefused, Place, Source

CONNECT_S = 10
OPTIONS = "-c statement_timeout=15s -c lock_timeout=5s -c TimeZone=UTC"
# Logical messages, on which heartbeats travel, are decoded since.
OLDEST, OLDEST_NAME = 140_000, "14"
# Since then generated columns can be published.
GENERATED = 180_000

STANDING = """
SELECT c.oid::int8 AS oid, c.relkind::text AS kind, c.relpersistence::text AS persistence,
       c.relreplident::text AS identity, row_security_active(c.oid) AS hidden,
       has_table_privilege(c.oid, 'SELECT') AS readable,
       EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary) AS keyed
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s
"""
SERVER = """
SELECT current_setting('wal_level') AS wal_level, current_setting('server_version_num')::int AS
       version, pg_is_in_recovery() AS standby,
       EXISTS (SELECT FROM pg_roles WHERE rolname = current_user AND (rolsuper OR rolreplication)
               OR rolname = 'rds_replication' AND pg_has_role(oid, 'USAGE')) AS replicates
"""
PUBLICATION = """
SELECT p.oid::int8 AS oid, p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate AS whole,
       ARRAY(SELECT t.prrelid::int8 FROM pg_publication_rel t
             WHERE t.prpubid = p.oid AND t.prqual IS NULL AND t.prattrs IS NULL) AS tables
FROM pg_publication p WHERE p.pubname = %s
"""
SLOT = """
SELECT s.active, s.wal_status, s.confirmed_flush_lsn::text AS confirmed,
       (pg_current_wal_lsn() - s.confirmed_flush_lsn)::int8 AS lag,
       (pg_current_wal_lsn() - s.restart_lsn)::int8 AS retained
FROM pg_replication_slots s WHERE s.slot_name = %s AND s.database = current_database()
"""
COLUMNS = """
SELECT a.attname AS name, t.typcategory::text AS category, t.typname AS type,
       i.indexrelid IS NOT NULL AS keyed
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary AND a.attnum = ANY (i.indkey)
WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
"""
ROOM = """
SELECT count(*) < current_setting('max_replication_slots')::int AS room FROM pg_replication_slots
"""


class DatabaseUnreachable(RuntimeError):
    """The database does not answer, or not now; it can be asked again."""


class QueryRefused(DatabaseUnreachable):
    """The database does not take a query as it is written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A replication slot.

    Attributes:
        active: Whether somebody reads from it.
        kept: What became of the log that it needs: reserved, extended, unreserved or lost.
        confirmed: Up to where the database may forget.
        lag: Bytes of log behind that.
        retained: Bytes of log that are kept for it.
    """

    active: bool
    kept: str
    confirmed: str | None
    lag: int | None
    retained: int | None


def position(lsn: str | None) -> int:
    """Returns a place in the log as a number; 0 for none.

    >>> position("1/10"), position(None)
    (4294967312, 0)
    """
    high, _, low = (lsn or "0/0").partition("/")
    return (int(high, 16) << 32) + int(low, 16)


class Database:
    """A session with a database; every call may raise DatabaseUnreachable."""

    def __init__(self, session: psycopg.AsyncConnection[dict[str, Any]], place: Place) -> None:
        self._session = session
        self._place = place

    async def check(self, source: Source) -> int:
        """Returns what tells the table from a later one of its name.

        Raises:
            CaptureRefused: It, or its database, cannot be captured from; says what to do.
        """
        self._check_server(await self._one(SERVER), self._place)
        found = await self._one(STANDING, source.schema, source.relation)
        if found is None:
            raise CaptureRefused(
                f"there is no table {source.schema}.{source.relation} in its database",
                "mend location, or make the table again and begin the capture anew",
            )
        _check_table(found, source, self._place.user)
        return int(found["oid"])

    async def publish(self, source: Source, relation: int) -> str:
        """Makes the publication where it is missing; returns what tells both from later ones.

        Raises:
            CaptureRefused: It cannot be made, or is there and of something else.
        """
        if await self._one(PUBLICATION, source.name) is None:
            await self._publish(source)
        identity = await self.published(source, relation)
        if identity is None:
            raise CaptureRefused(
                f"publication {source.name} is there, but not of all that happens to this table",
                f"drop it: DROP PUBLICATION {source.name}",
            )
        return identity

    async def published(self, source: Source, relation: int) -> str | None:
        """Returns what tells table and publication from later ones; None where it has no such."""
        found = await self._one(PUBLICATION, source.name)
        if found is None or not found["whole"] or found["tables"] != [relation]:
            return None
        return f"{relation}/{found['oid']}"

    async def check_room(self) -> None:
        """Returns if one more slot can be made.

        Raises:
            CaptureRefused: None can.
        """
        found = await self._one(ROOM)
        if found is None or not found["room"]:
            raise CaptureRefused(
                "its database has no replication slot left",
                "raise max_replication_slots there, or drop one that nobody reads",
            )

    async def slot(self, name: str) -> Slot | None:
        """Returns a slot of this database; None where there is none."""
        found = await self._one(SLOT, name)
        return None if found is None else slot_of(found)

    async def drop_slot(self, name: str) -> None:
        """Drops a slot, so that the database keeps no log for it; none is fine.

        Raises:
            DatabaseUnreachable: Somebody still reads from it.
        """
        if await self.slot(name) is not None:
            await self._run("SELECT pg_drop_replication_slot(%s)", name)

    async def drop_publication(self, name: str) -> None:
        """Drops a publication; none is fine."""
        await self._run(sql.SQL("DROP PUBLICATION IF EXISTS {}").format(sql.Identifier(name)))

    async def read(self, query: str | sql.Composed, *values: object) -> list[dict[str, Any]]:
        """Returns the rows that a query finds, by column.

        Raises:
            CaptureRefused: They may not be read.
        """
        return await (await self._run(query, *values)).fetchall()

    async def columns(self, source: Source) -> list[dict[str, Any]]:
        """Returns name, type, category of type, and whether it is of the primary key, by column."""
        table = sql.Identifier(source.schema, source.relation)
        return await self.read(COLUMNS, table.as_string())

    async def _publish(self, source: Source) -> None:
        generated = self._session.info.server_version >= GENERATED
        options = ["publish = 'insert, update, delete, truncate'"]
        options += ["publish_generated_columns = stored"] if generated else []
        statement = sql.SQL("CREATE PUBLICATION {} FOR TABLE ONLY {} WITH ({})").format(
            sql.Identifier(source.name),
            sql.Identifier(source.schema, source.relation),
            sql.SQL(", ".join(options)),
        )
        try:
            await self._run(statement)
        except CaptureRefused:
            raise CaptureRefused(
                f"{self._place.user} may not publish the table",
                f"let its owner run, in {self._place.database}: {statement.as_string()}",
            ) from None

    @staticmethod
    def _check_server(server: dict[str, Any] | None, place: Place) -> None:
        assert server is not None
        if server["version"] < OLDEST:
            raise CaptureRefused(
                "its database is too old", f"use PostgreSQL {OLDEST_NAME} or later"
            )
        if server["standby"]:
            raise CaptureRefused(
                "its database is a standby, which takes no heartbeats",
                "let the connection lead to the primary",
            )
        if server["wal_level"] != "logical":
            raise CaptureRefused(
                f"wal_level of its database is {server['wal_level']}",
                "set wal_level = logical there and restart it",
            )
        if not server["replicates"]:
            raise CaptureRefused(
                f"{place.user} may not replicate", f"run there: ALTER ROLE {place.user} REPLICATION"
            )

    async def _one(self, query: str, *values: object) -> dict[str, Any] | None:
        return await (await self._run(query, *values)).fetchone()

    async def _run(
        self, query: str | sql.Composed, *values: object
    ) -> psycopg.AsyncCursor[dict[str, Any]]:
        try:
            return await self._session.execute(query, values or None)
        except psycopg.errors.InsufficientPrivilege:
            raise CaptureRefused(
                f"{self._place.user} may not do in its database what capture needs",
                f"let it own the table, and run there: ALTER ROLE {self._place.user} REPLICATION",
            ) from None
        except psycopg.errors.ObjectInUse:
            raise DatabaseUnreachable("its replication slot is still in use") from None
        except (psycopg.DataError, psycopg.ProgrammingError) as problem:
            raise QueryRefused(f"its database refuses: {type(problem).__name__}") from None
        except psycopg.Error as problem:
            raise DatabaseUnreachable(f"its database fails: {type(problem).__name__}") from None


def slot_of(found: Mapping[str, Any]) -> Slot:
    """Returns a slot as PostgreSQL tells of it."""
    return Slot(
        active=found["active"],
        # It says nothing while the slot is made; of one that has lost its log it says so.
        kept=found["wal_status"] or "reserved",
        confirmed=found["confirmed"],
        lag=found["lag"],
        retained=found["retained"],
    )


# Of a table: what must not be so, why it must not, and what to do about it.
def _faults(found: dict[str, Any], user: str, name: str) -> Sequence[tuple[bool, str, str]]:
    return (
        (
            found["kind"] == "p",
            f"{name} is partitioned: what happens to a partition alone would be missed",
            "capture its partitions as tables of their own",
        ),
        (found["kind"] not in "rp", f"{name} is no table", "name the table that it is made from"),
        (
            found["persistence"] != "p",
            f"{name} is not logged by its database",
            f"run: ALTER TABLE {name} SET LOGGED",
        ),
        (
            not found["keyed"],
            f"{name} has no primary key: no row could be told from another, and once published, "
            "its updates and deletes would fail in the database itself",
            f"give it one: ALTER TABLE {name} ADD PRIMARY KEY (...)",
        ),
        (
            found["identity"] not in "df",
            f"REPLICA IDENTITY of {name} leaves out its primary key: deletes would lose it",
            f"run: ALTER TABLE {name} REPLICA IDENTITY DEFAULT",
        ),
        (
            not found["readable"],
            f"{user} may not read {name}",
            f"run: GRANT SELECT ON {name} TO {user}",
        ),
        (
            found["hidden"],
            f"row security hides rows of {name} from {user}",
            f"run: ALTER ROLE {user} BYPASSRLS",
        ),
    )


def _check_table(found: dict[str, Any], source: Source, user: str) -> None:
    name = f"{source.schema}.{source.relation}"
    for wrong, reason, remedy in _faults(found, user, name):
        if wrong:
            raise CaptureRefused(reason, remedy)


@asynccontextmanager
async def session(place: Place, password: str) -> AsyncIterator[Database]:
    """Gives a session with a database.

    Raises:
        CaptureRefused: It lets this user not in, or has no such database.
        DatabaseUnreachable: It does not answer.
    """
    trust = {"sslrootcert": "system"} if place.tls == SECURE else {}
    try:
        opened = await psycopg.AsyncConnection.connect(
            host=place.host,
            hostaddr=place.address,
            port=place.port,
            dbname=place.database,
            user=place.user,
            password=password,
            sslmode=place.tls,
            connect_timeout=CONNECT_S,
            options=OPTIONS,
            application_name="tessera-sources",
            autocommit=True,
            row_factory=dict_row,
            **trust,  # type: ignore[arg-type]
        )
    except psycopg.Error as problem:
        raise _unopened(problem, place) from None
    async with opened:
        yield Database(opened, place)


# What a server says that lets nobody in: words, for the driver keeps no code of it.
UNOPENED: dict[str, tuple[str, str]] = {
    "authentication failed": (
        "its database does not take user and password",
        "mend user or secret of its connection",
    ),
    "does not exist": (
        "its database has no such user or database",
        "mend url or user of its connection",
    ),
    "no pg_hba.conf entry": (
        "its database lets this user not in from here",
        "let it in: pg_hba.conf",
    ),
}


def _unopened(problem: psycopg.Error, place: Place) -> CaptureRefused | DatabaseUnreachable:
    said = str(problem)
    for words, (reason, remedy) in UNOPENED.items():
        if words in said:
            return CaptureRefused(reason, remedy)
    kind = type(problem).__name__
    return DatabaseUnreachable(f"its database at {place.host} does not answer: {kind}")
