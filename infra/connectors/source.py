"""A table that is captured: how everything of it is called, and what its connector is told.

One connector, slot and publication a table, all of one name, which follows from the table's full
name alone. Nothing else is made in the database: heartbeats are logical messages, which need no
table. The topic is kept whole and not compacted: Debezium tells of a TRUNCATE without a key.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from schemas.kinds import ConnectionSpec
from schemas.shapes import length
from schemas.tables import Capture
from schemas.topics import capture_prefix, captured

MARK = "tessera_"
# PostgreSQL keeps 63 characters of a name.
MOST_NAME = 63
DIGITS = 12
MOST_TOPIC = 249
LOCATION = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
PORT = 5432
HEARTBEATS = "__debezium-heartbeat"
# No longer than that, which is what names are measured by.
NOTICES = "__debezium-notices"
# What a connector remembers for us; Debezium takes no notice of it.
TABLE, IDENTITY, MISSED = "tessera.table", "tessera.identity", "tessera.missed"
# Where another one means another capture, not another setting.
FIXED = ("database.dbname", "table.include.list", "topic.prefix")
SNAPSHOTS = {"initial": "initial", "never": "no_data"}
SECURE = "verify-full"
MODES = ("disable", "allow", "prefer", "require", "verify-ca", SECURE)


class CaptureRefused(Exception):
    """A table cannot be captured as the catalog has it.

    Attributes:
        remedy: What to do about it.
    """

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.remedy = remedy


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A table that is captured.

    Attributes:
        table: Its three-level name in the catalog.
        schema: Its schema in the database.
        relation: Its name there.
        capture: How it is captured.
    """

    table: str
    schema: str
    relation: str
    capture: Capture

    @classmethod
    def of(cls, table: str, location: str, capture: Capture) -> Source:
        """Returns the table at ``schema.table``.

        Raises:
            CaptureRefused: The location is none that can be captured.
        """
        found = LOCATION.fullmatch(location)
        if found is None:
            raise CaptureRefused(
                "its location is not schema.table in letters, digits, _ and -",
                "set location to the table's place in its database: public.documents",
            )
        source = cls(table=table, schema=found[1], relation=found[2], capture=capture)
        if len(source.heartbeats) > MOST_TOPIC or len(source.topic) > MOST_TOPIC:
            raise CaptureRefused(
                f"its names make a topic of more than {MOST_TOPIC} characters",
                "give it a shorter name in the catalog",
            )
        return source

    @property
    def name(self) -> str:
        """The name of its connector, its replication slot and its publication."""
        return name_of(self.table)

    @property
    def topic(self) -> str:
        """The topic that its changes lie on."""
        return captured(self.table, f"{self.schema}.{self.relation}")

    @property
    def heartbeats(self) -> str:
        """The topic of its connector's signs of life."""
        return beside(capture_prefix(self.table))[0]

    @property
    def notices(self) -> str:
        """The topic on which its connector tells how reading rows again ends."""
        return beside(capture_prefix(self.table))[1]


def name_of(table: str) -> str:
    """Returns what everything of a captured table is called; no two tables share it."""
    digest = hashlib.sha256(table.encode()).hexdigest()[:DIGITS]
    room = MOST_NAME - len(MARK) - DIGITS - 1
    readable = re.sub("[^a-z0-9]+", "_", table.lower())[-room:]
    return f"{MARK}{readable}_{digest}"


def beside(prefix: str) -> tuple[str, str]:
    """Returns where a connector with this topic prefix tells of itself: signs of life, notices."""
    return f"{HEARTBEATS}.{prefix}", f"{NOTICES}.{prefix}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a database is, and who logs in.

    Attributes:
        host: As its connection names it.
        address: What is dialled, so that what was judged is what is called.
        tls: PostgreSQL's ``sslmode``.
    """

    host: str
    address: str
    port: int
    database: str
    user: str
    tls: str


def place_of(connection: ConnectionSpec) -> Place:
    """Returns where a connection leads; its host is not looked up yet.

    Raises:
        CaptureRefused: It is no database, or something is missing.
    """
    if connection.type != "postgresql":
        raise CaptureRefused(
            f"its connection is of type {connection.type}", "name a connection of type postgresql"
        )
    address = urlsplit(connection.url)
    database, port = address.path.strip("/"), _port(address)
    if not address.hostname or not database or not connection.user or not connection.secret:
        raise CaptureRefused(
            "its connection lacks host, database, user or secret",
            "give it url: postgresql://HOST:5432/DATABASE, user, and secret: env:NAME or file:PATH",
        )
    tls = connection.options.get("sslmode", "prefer" if connection.private else SECURE)
    if tls not in MODES:
        raise CaptureRefused(
            "its connection has no known sslmode", f"say one of {', '.join(MODES)}"
        )
    if not connection.private and tls != SECURE:
        raise CaptureRefused(
            f"its connection goes outside with sslmode {tls}",
            f"leave sslmode out ({SECURE}), or set private where the address is of your network",
        )
    return Place(
        host=address.hostname,
        address=address.hostname,
        port=port,
        database=database,
        user=connection.user,
        tls=tls,
    )


def _port(address: SplitResult) -> int:
    try:
        return address.port or PORT
    except ValueError:
        raise CaptureRefused("the port of its connection is none", "mend its url") from None


def configuration(source: Source, place: Place, identity: str, password: Path) -> dict[str, str]:
    """Returns what the connector of a table is told.

    Args:
        source: The table.
        place: Where its database is.
        identity: What tells table and publication from later ones of the same names.
        password: File that holds the password; Connect reads it when a task starts.
    """
    beat = int(length(source.capture.heartbeat).total_seconds() * 1000)
    return {
        TABLE: source.table,
        IDENTITY: identity,
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "tasks.max": "1",
        **_reached(place, password),
        "plugin.name": "pgoutput",
        "publication.name": source.name,
        "publication.autocreate.mode": "disabled",
        "slot.name": source.name,
        "table.include.list": f"{re.escape(source.schema)}\\.{re.escape(source.relation)}",
        "topic.prefix": capture_prefix(source.table),
        "topic.heartbeat.prefix": HEARTBEATS,
        "snapshot.mode": SNAPSHOTS[source.capture.snapshot],
        # Rows are read again without a table of Debezium's in the database.
        "read.only": "true",
        "notification.enabled.channels": "sink",
        "notification.sink.topic.name": source.notices,
        # A slot that is ahead of what was read has forgotten changes: that must not pass unseen.
        "offset.mismatch.strategy": "trust_offset",
        "errors.max.retries": "5",
        "poll.interval.ms": "50",
        # Without it the database would keep its log for as long as only other tables are written.
        "heartbeat.interval.ms": str(beat),
        "heartbeat.action.query": f"SELECT pg_logical_emit_message(true, '{MARK}heartbeat', '')",
        # They are for the slot alone, and so are other people's.
        "message.prefix.exclude.list": ".*",
        "skipped.operations": "none",
        "tombstones.on.delete": "true",
        **VALUES,
    }


# How values look: exact where JSON has no type for them, and the same whatever the column is.
VALUES: dict[str, str] = {
    "binary.handling.mode": "bytes",
    "decimal.handling.mode": "string",
    "field.name.adjustment.mode": "avro",
    "hstore.handling.mode": "json",
    "include.unknown.datatypes": "false",
    "interval.handling.mode": "string",
    # A large value that did not change is left out of the log: it is looked up in the table.
    "post.processors": "reselector",
    # Not found, it stays left out: a row that is gone by now must not hold up all others.
    "reselector.reselect.null.values": "false",
    "reselector.reselect.unavailable.values": "true",
    "reselector.reselect.use.event.key": "true",
    "reselector.type": "io.debezium.processors.reselect.ReselectColumnsPostProcessor",
    "schema.name.adjustment.mode": "avro",
    "time.precision.mode": "isostring",
}


def _reached(place: Place, password: Path) -> dict[str, str]:
    # A name is proved by its certificate; without one, what is dialled is the address judged.
    host = place.host if place.tls == SECURE else place.address
    trust = {"database.sslfactory": "org.postgresql.ssl.DefaultJavaSSLFactory"}
    return {
        "database.hostname": host,
        "database.port": str(place.port),
        "database.user": place.user,
        "database.password": f"${{file:{password.parent}:{password.name}}}",
        "database.dbname": place.database,
        "database.sslmode": place.tls,
        **(trust if place.tls == SECURE else {}),
    }


def reached_by(told: Mapping[str, str]) -> Place:
    """Returns where a connector that is told this reaches its database."""
    host = told["database.hostname"]
    return Place(
        host=host,
        address=host,
        port=int(told["database.port"]),
        database=told["database.dbname"],
        user=told["database.user"],
        tls=told["database.sslmode"],
    )
