"""Events between the commit and the bus: rows of text, readable by whoever looks at the table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import psycopg
from pydantic import TypeAdapter
from sqlalchemy import Connection, delete, func, select

from catalog.store.tables import OUTBOX
from schemas.events import Event
from schemas.topics import AUDIT_RECORDED, CATALOG_CHANGED, LINEAGE_RECORDED, Outgoing, Topic

E = TypeVar("E", bound=Event)

# What the catalog publishes.
PUBLISHED: tuple[Topic[Any], ...] = (AUDIT_RECORDED, CATALOG_CHANGED, LINEAGE_RECORDED)
TOPICS = {topic.name: topic for topic in PUBLISHED}
PAYLOADS: dict[str, TypeAdapter[Any]] = {
    topic.name: TypeAdapter(topic.event) for topic in PUBLISHED
}

# The driver's own: one transaction may tell of hundreds of thousands.
COPY = "COPY outbox (topic, payload) FROM STDIN"

ROWS_AT_ONCE = 500
BYTES_AT_ONCE = 8 * 1024 * 1024


class Waiting(NamedTuple):
    """An event that waits in the outbox; ids grow in commit order."""

    id: int
    outgoing: Outgoing


class Row(NamedTuple):
    """An event as it lies in the table."""

    topic: str
    payload: str


def row(topic: Topic[E], event: E) -> Row:
    """Returns an event as a row."""
    return Row(topic.name, PAYLOADS[topic.name].dump_json(event).decode())


def put(connection: Connection, rows: Sequence[Row]) -> None:
    """Adds rows, in their order."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    with driver.cursor() as cursor, cursor.copy(COPY) as copy:
        for each in rows:
            copy.write_row(each)


def waiting(connection: Connection) -> list[Waiting]:
    """Returns the oldest events, as many as travel together; empty if none waits."""
    first = select(OUTBOX).order_by(OUTBOX.c.id).limit(ROWS_AT_ONCE).subquery()
    size = func.octet_length(first.c.payload)
    before = func.sum(size).over(order_by=first.c.id) - size
    sized = select(first, before.label("before")).subquery()
    found = connection.execute(
        select(sized.c.id, sized.c.topic, sized.c.payload)
        .where(sized.c.before < BYTES_AT_ONCE)
        .order_by(sized.c.id)
    )
    return [
        Waiting(id, Outgoing(TOPICS[topic], PAYLOADS[topic].validate_json(payload)))
        for id, topic, payload in found
    ]


def forget(connection: Connection, last: int) -> None:
    """Removes events up to an id: they lie on the bus."""
    connection.execute(delete(OUTBOX).where(OUTBOX.c.id <= last))
