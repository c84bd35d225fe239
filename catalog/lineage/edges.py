"""The table of lineage edges: telling them, and walking along them.

An edge is told any number of times, in any order, by whoever knows it, and the table comes out the
same: it keeps the first and the last time at which the edge was so, and what was said of it last.

A walk is breadth-first, a query for each step, so that cycles end and a thing that a million others
came from costs no more than the limit. What a spec ``names`` is found next to the start only, and
is not gone on from: what an endpoint names today says nothing of what answered then.

What it knows: PostgreSQL. What it does not know: where edges come from, and who may see them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Column, DateTime, Index, RowMapping, TextClause, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Connection, Engine
from sqlmodel import Field, SQLModel

from catalog.lineage.lineage import KINDS, NAMES, Node
from catalog.lineage.walks import Found, Link, Walk
from schemas.events import LineageRecorded


class Edge(SQLModel, table=True):
    """A row: one thing came from another.

    The ids stand for kind and name, which may be of any length, in the keys and indexes.

    Attributes:
        first_at: The earliest time at which it was told to be so.
        last_at: The latest.
        cause_id: What made it known last.
        attributes: What was said of it last.
    """

    __tablename__ = "lineage_edge"
    __table_args__ = (
        Index(
            "lineage_edge_upstream",
            "upstream_id",
            text("last_at DESC"),
            "relation",
            "downstream_id",
        ),
        Index(
            "lineage_edge_downstream",
            "downstream_id",
            text("last_at DESC"),
            "relation",
            "upstream_id",
        ),
    )

    downstream_id: UUID = Field(primary_key=True)
    relation: str = Field(primary_key=True)
    upstream_id: UUID = Field(primary_key=True)
    downstream_kind: str
    downstream: str
    upstream_kind: str
    upstream: str
    attributes: dict[str, str] = Field(sa_column=Column(JSONB, nullable=False))
    first_at: datetime = Field(sa_type=DateTime(timezone=True))
    last_at: datetime = Field(sa_type=DateTime(timezone=True))
    cause_id: str


class Position(SQLModel, table=True):
    """A row: how far a partition has been read for edges.

    Attributes:
        next: The first offset of which nothing is here.
    """

    __tablename__ = "lineage_position"

    topic: str = Field(primary_key=True)
    partition: int = Field(primary_key=True)
    next: int = Field(sa_type=BigInteger)


def node_id(node: Node) -> UUID:
    """Returns what stands for a thing in the table: half of the SHA-256 of its kind and name."""
    kind, name = node
    return UUID(bytes=hashlib.sha256(f"{kind}\0{name}".encode()).digest()[:16])


# One batch may tell an edge twice, and rows are locked in one order by all who tell.
_TELL = text("""
INSERT INTO lineage_edge AS known (
    downstream_id, relation, upstream_id, downstream_kind, downstream, upstream_kind, upstream,
    attributes, first_at, last_at, cause_id)
SELECT DISTINCT ON (downstream_id, relation, upstream_id)
    downstream_id, relation, upstream_id, downstream_kind, downstream, upstream_kind, upstream,
    attributes::jsonb,
    min(at) OVER (PARTITION BY downstream_id, relation, upstream_id),
    at, cause_id
FROM unnest(
    CAST(:downstream_id AS uuid[]), CAST(:relation AS text[]), CAST(:upstream_id AS uuid[]),
    CAST(:downstream_kind AS text[]), CAST(:downstream AS text[]),
    CAST(:upstream_kind AS text[]), CAST(:upstream AS text[]),
    CAST(:attributes AS text[]), CAST(:at AS timestamptz[]), CAST(:cause_id AS text[])
) AS told (
    downstream_id, relation, upstream_id, downstream_kind, downstream, upstream_kind, upstream,
    attributes, at, cause_id)
ORDER BY downstream_id, relation, upstream_id, at DESC, cause_id DESC, attributes::jsonb DESC
ON CONFLICT (downstream_id, relation, upstream_id) DO UPDATE SET
    first_at = least(known.first_at, excluded.first_at),
    last_at = greatest(known.last_at, excluded.last_at),
    cause_id = CASE WHEN (excluded.last_at, excluded.cause_id, excluded.attributes)
        > (known.last_at, known.cause_id, known.attributes)
        THEN excluded.cause_id ELSE known.cause_id END,
    attributes = CASE WHEN (excluded.last_at, excluded.cause_id, excluded.attributes)
        > (known.last_at, known.cause_id, known.attributes)
        THEN excluded.attributes ELSE known.attributes END
WHERE excluded.first_at < known.first_at
    OR (excluded.last_at, excluded.cause_id, excluded.attributes)
        > (known.last_at, known.cause_id, known.attributes)
""")


def tell(connection: Connection, told: Iterable[LineageRecorded]) -> int:
    """Stores edges in one statement; what is known already changes nothing.

    Returns:
        How many edges were told.
    """
    columns: dict[str, list[Any]] = {name: [] for name in _TELL.compile().params}
    for recorded in told:
        for edge in recorded.edges:
            downstream = Node(edge.downstream_kind, edge.downstream)
            upstream = Node(edge.upstream_kind, edge.upstream)
            row = {
                "at": recorded.at,
                "attributes": json.dumps(dict(edge.attributes)),
                "cause_id": recorded.cause_id,
                "downstream": edge.downstream,
                "downstream_id": node_id(downstream),
                "downstream_kind": edge.downstream_kind,
                "relation": edge.relation,
                "upstream": edge.upstream,
                "upstream_id": node_id(upstream),
                "upstream_kind": edge.upstream_kind,
            }
            for name, value in row.items():
                columns[name].append(value)
    count = len(columns["at"])
    if count:
        connection.execute(_TELL, columns)
    return count


# A step takes milliseconds: compiling it would take longer, and whoever waits has a deadline.
_SETTINGS = text(
    "SELECT set_config('jit', 'off', true), set_config('statement_timeout', '5s', true)"
)


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Yields a transaction to look at edges in.

    A statement that takes more than five seconds raises OperationalError, from QueryCanceled.
    """
    with engine.begin() as connection:
        connection.execute(_SETTINGS)
        yield connection


def walk(connection: Connection, wanted: Walk) -> Found:
    """Returns the edges within reach of a thing; none where nothing is known of it."""
    links: list[Link] = []
    seen = {wanted.start}
    frontier = [wanted.start]
    for step in range(wanted.depth):
        bounds = {
            "ids": [node_id(node) for node in frontier],
            "most": wanted.limit - len(links) + 1,
            "since": wanted.since,
            "until": wanted.until,
        }
        found = connection.execute(_step(wanted, first=not step), bounds)
        fresh = [_link(row) for row in found.mappings()]
        links += fresh
        if len(links) > wanted.limit:
            return Found(tuple(links[: wanted.limit]), cut=True)
        frontier = []
        for link in fresh:
            far = link.downstream if wanted.downstream else link.upstream
            if link.relation != NAMES and far not in seen:
                seen.add(far)
                frontier.append(far)
        if not frontier:
            break
    return Found(tuple(links), cut=False)


def _step(wanted: Walk, *, first: bool) -> TextClause:
    near, far = ("upstream", "downstream") if wanted.downstream else ("downstream", "upstream")
    conditions = [f"{near}_id = near.id"]
    if not first:
        conditions.append(f"relation <> '{NAMES}'")
    if wanted.since:
        conditions.append("last_at >= :since")
    if wanted.until:
        conditions.append("first_at < :until")
    return text(
        f"""
        SELECT edge.*
        FROM unnest(CAST(:ids AS uuid[])) WITH ORDINALITY AS near (id, position)
        CROSS JOIN LATERAL (
            SELECT * FROM lineage_edge
            WHERE {" AND ".join(conditions)}
            ORDER BY last_at DESC, relation, {far}_id
            LIMIT :most
        ) AS edge
        ORDER BY near.position
        LIMIT :most
        """
    )


def _link(row: RowMapping) -> Link:
    return Link(
        downstream=Node(row["downstream_kind"], row["downstream"]),
        relation=row["relation"],
        upstream=Node(row["upstream_kind"], row["upstream"]),
        attributes=row["attributes"],
        first_at=row["first_at"].astimezone(UTC),
        last_at=row["last_at"].astimezone(UTC),
        cause_id=row["cause_id"],
    )


_KNOWN = text("""
SELECT wanted.kind
FROM unnest(CAST(:ids AS uuid[]), CAST(:kinds AS text[])) AS wanted (id, kind)
WHERE EXISTS (SELECT FROM lineage_edge WHERE downstream_id = wanted.id)
    OR EXISTS (SELECT FROM lineage_edge WHERE upstream_id = wanted.id)
""")


def kinds_of(connection: Connection, name: str) -> list[str]:
    """Returns the kinds of the things under a name that edges lead to or from, in order."""
    ids = [node_id(Node(kind, name)) for kind in KINDS]
    return sorted(connection.execute(_KNOWN, {"ids": ids, "kinds": list(KINDS)}).scalars())


_TENANTS = text("""
SELECT downstream, attributes ->> 'tenant' AS tenant FROM lineage_edge
WHERE downstream_id = ANY(CAST(:ids AS uuid[])) AND relation = 'asked_by'
""")


def tenants_of(connection: Connection, responses: Iterable[str]) -> dict[str, set[str]]:
    """Returns who is said to have asked for each response; those that nobody is named for lack."""
    found: dict[str, set[str]] = {}
    ids = [node_id(Node("response", each)) for each in responses]
    for name, tenant in connection.execute(_TENANTS, {"ids": ids}):
        found.setdefault(name, set()).add(tenant or "")
    return found
