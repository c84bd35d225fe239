"""Lineage for tests: edges in a word, and the walk as anybody would write it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib import import_module
from uuid import uuid4

from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import URL, Engine, create_engine, text

from catalog.lineage.lineage import NAMES
from catalog.lineage.walks import Walk
from infra.secrets import resolve
from infra.stack.local import LocalStack
from schemas.events import LineageEdge, LineageRecorded

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)

# Downstream, relation, upstream and the minute of the day's noon.
Told = tuple[str, str, str, int]


def minute(number: int) -> datetime:
    return NOON + timedelta(minutes=number)


def edge(downstream: str, relation: str, upstream: str, **attributes: str) -> LineageEdge:
    """An edge between things that are written ``kind name``."""
    downstream_kind, _, downstream_name = downstream.partition(" ")
    upstream_kind, _, upstream_name = upstream.partition(" ")
    return LineageEdge(
        downstream_kind=downstream_kind,
        downstream=downstream_name,
        relation=relation,
        upstream_kind=upstream_kind,
        upstream=upstream_name,
        attributes=attributes,
    )


def told(*edges: LineageEdge, cause: str = "test", at: datetime = NOON) -> LineageRecorded:
    return LineageRecorded(cause_id=cause, at=at, edges=edges)


def naive_walk(edges: Iterable[Told], walk: Walk) -> set[tuple[str, str, str]]:
    """The edges that a walk must find, where its limit cuts nothing off."""
    in_time = [
        (downstream, relation, upstream)
        for downstream, relation, upstream, at in edges
        if (walk.since is None or minute(at) >= walk.since)
        and (walk.until is None or minute(at) < walk.until)
    ]
    start = f"{walk.start.kind} {walk.start.name}"
    found: set[tuple[str, str, str]] = set()
    distance = {start: 0}
    queue = [start]
    while queue:
        here = queue.pop(0)
        if distance[here] == walk.depth:
            continue
        for downstream, relation, upstream in in_time:
            near, far = (upstream, downstream) if walk.downstream else (downstream, upstream)
            if near != here or (relation == NAMES and here != start):
                continue
            found.add((downstream, relation, upstream))
            if relation != NAMES and far not in distance:
                distance[far] = distance[here] + 1
                queue.append(far)
    return found


@contextmanager
def database(stack: LocalStack) -> Iterator[Engine]:
    """A database of its own with the tables of lineage, as the migration makes them."""
    environment = stack.environment()
    server = URL.create(
        "postgresql+psycopg",
        environment["POSTGRES_USER"],
        resolve(environment["POSTGRES_PASSWORD"]),
        environment["POSTGRES_HOST"],
        int(environment["POSTGRES_PORT"]),
        "postgres",
    )
    name = f"lineage_{uuid4().hex[:8]}"
    admin = create_engine(server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    admin.dispose()
    engine = create_engine(server.set(database=name))
    with engine.begin() as connection, Operations.context(MigrationContext.configure(connection)):
        import_module("catalog.store.migrations.versions.0002_lineage").upgrade()
    try:
        yield engine
    finally:
        engine.dispose()
