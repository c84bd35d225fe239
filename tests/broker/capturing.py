"""A database with tables to capture, and the platform that captures them."""

from __future__ import annotations

import io
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any

import fastavro
import psycopg

from infra.bus import Record
from infra.registry import Registry
from infra.stack.local import LocalStack
from schemas.events import SourceReported, SourceState
from schemas.topics import SOURCE_REPORTED, captured
from tests.harness import Bus, eventually, unique
from tests.seed import changed, described, publish

# What the catalog may take until it is on the topic, with a machine that is shared.
SOON_S = 240.0
# What Kafka Connect says while it shares its work out anew, or is told of something else.
BUSY = (409, 500)
USER, PASSWORD = "capturer", "a word that is nowhere told"

Row = dict[str, Any]


@dataclass(frozen=True)
class Change:
    """A record of a captured topic, decoded."""

    key: Row | None
    value: Row | None

    @property
    def op(self) -> str:
        """What Debezium calls it; empty for a tombstone."""
        return self.value["op"] if self.value else ""

    @property
    def after(self) -> Row:
        """The row as it is now."""
        assert self.value is not None
        row: Row = self.value["after"]
        return row


@dataclass
class Town:
    """A stack with one database of tables."""

    stack: LocalStack
    bus: Bus
    folder: Path
    database: str = field(default_factory=lambda: unique("shop").replace("-", "_"))

    def __post_init__(self) -> None:
        self.password_file.write_text(PASSWORD + "\n")
        with self.session("postgres") as session:
            role = f"ROLE {USER} LOGIN REPLICATION PASSWORD '{PASSWORD}'"
            known = session.execute("SELECT FROM pg_roles WHERE rolname = %s", (USER,)).rowcount
            session.execute(f"{'ALTER' if known else 'CREATE'} {role}")
            session.execute(f"CREATE DATABASE {self.database} OWNER {USER}")

    @property
    def password_file(self) -> Path:
        """Where the password of the connection is."""
        return self.folder / "capturer.secret"

    def session(self, database: str = "") -> psycopg.Connection[Any]:
        """Returns a session of the superuser."""
        at = self.bus.environment
        return psycopg.connect(
            host=at["POSTGRES_HOST"],
            port=int(at["POSTGRES_PORT"]),
            user=at["POSTGRES_USER"],
            password=Path(at["POSTGRES_PASSWORD"].removeprefix("file:")).read_text(),
            dbname=database or self.database,
            autocommit=True,
        )

    @contextmanager
    def locked(self) -> Iterator[psycopg.Connection[Any]]:
        """Gives a session of the superuser, in which nobody who captures looks or comes back."""
        within = "SELECT FROM pg_stat_activity WHERE application_name = 'tessera-sources'"
        with self.session() as session:
            session.execute(f"ALTER ROLE {USER} NOLOGIN")
            try:
                eventually(lambda: not session.execute(within).rowcount, what="nobody looks")
                yield session
            finally:
                session.execute(f"ALTER ROLE {USER} LOGIN")

    def runs(self, *statements: str) -> None:
        """Runs statements as the owner of the tables."""
        with self.session() as session:
            session.execute(f"SET ROLE {USER}")
            for statement in statements:
                session.execute(statement.encode())

    def asks(self, query: str, *values: object) -> Any:
        """Returns the one value of a query; None where it has no row."""
        with self.session() as session:
            found = session.execute(query.encode(), values).fetchone()
        return found[0] if found else None

    def connection(self, name: str, **more: object) -> None:
        """Publishes a connection to the database."""
        self.publish("connection", name, {**self.shop, **more})

    @property
    def shop(self) -> dict[str, object]:
        """What a connection to the database holds."""
        return {
            "type": "postgresql",
            "url": f"postgresql://localhost:{self.bus.environment['POSTGRES_PORT']}/{self.database}",
            "user": USER,
            "secret": f"file:{self.password_file}",
            "private": True,
        }

    def table(
        self, name: str, location: str, *, connection: str = "main.tests.shop", capture: bool = True
    ) -> str:
        """Publishes a table, captured or not; returns its full name."""
        captures = {"capture": {"heartbeat": "1s"}} if capture else {}
        full = f"main.tests.{name}"
        self.publish("table", full, {"location": location, "connection": connection, **captures})
        return full

    def publish(self, kind: str, name: str, spec: dict[str, object]) -> None:
        """Publishes an entry of the catalog."""
        body = described({"kind": kind, "name": name, "spec": spec})
        publish(self.bus, changed(kind, name, body))

    def told(self, table: str) -> SourceReported | None:
        """Returns what was told of a table last."""
        reports = self.bus.events(SOURCE_REPORTED, table)
        return reports[-1] if reports else None

    def stands(
        self, table: str, *states: SourceState, timeout: float = SOON_S, of: str = ""
    ) -> SourceReported:
        """Returns the report that a table stands so, with these words in its reason."""
        found: list[SourceReported] = []

        def stands() -> bool:
            report = self.told(table)
            if report is not None and report.state in states and of in (report.reason or ""):
                found.append(report)
            return bool(found)

        eventually(stands, timeout, f"{table} in {', '.join(states)}, last {self.told(table)}")
        return found[0]

    def changes(self, table: str, location: str) -> list[Change]:
        """Returns what lies on the topic of a table."""
        return [self.decoded(record) for record in self.bus.records(captured(table, location))]

    def lacks_topics(self, table: str) -> None:
        """Returns once a table has no topic any more, not even one beside its own."""

        def gone() -> bool:
            return not any(table in each for each in self.bus.admin.list_topics(timeout=30).topics)

        eventually(gone, what=f"no topic of {table}")

    def arrive(
        self, table: str, location: str, wanted: Callable[[list[Change]], object]
    ) -> list[Change]:
        """Returns the changes of a table once they are what is wanted."""
        found: list[Change] = []

        def arrived() -> object:
            found[:] = self.changes(table, location)
            return wanted(found)

        eventually(arrived, SOON_S, f"changes of {table}")
        return found

    def connect(self, path: str, method: str = "GET", body: object = None) -> Any:
        """Returns what Kafka Connect says; asks again while it is busy."""
        asked = urllib.request.Request(
            f"{self.bus.environment['CONNECT_URL']}{path}",
            None if body is None else json.dumps(body).encode(),
            {"Content-Type": "application/json"},
            method=method,
        )
        said: list[bytes] = []

        def answers() -> bool:
            try:
                with urllib.request.urlopen(asked, timeout=30) as reply:
                    said.append(reply.read())
            except urllib.error.HTTPError as problem:
                if problem.code not in BUSY:
                    raise
                return False
            except (HTTPException, OSError):
                return False
            return True

        eventually(answers, SOON_S, "an answer of Kafka Connect")
        return json.loads(said[0]) if said[0] else None

    def decoded(self, record: Record) -> Change:
        """Returns a record of a captured topic."""
        return Change(_row(self.bus, record.key), _row(self.bus, record.value))


_schemas: dict[int, Any] = {}


def _row(bus: Bus, value: bytes | None) -> Row | None:
    if value is None:
        return None
    number = int.from_bytes(value[1:5])
    if number not in _schemas:
        _schemas[number] = Registry(bus.registry_settings).schema(number)
    row = fastavro.schemaless_reader(io.BytesIO(value[5:]), _schemas[number], None)
    assert isinstance(row, dict)
    return row
