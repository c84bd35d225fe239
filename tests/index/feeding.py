"""A table whose changes lie on a topic as Debezium writes them, and what an index should hold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import fastavro
from aiokafka.partitioner import murmur2
from confluent_kafka.admin import NewTopic
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

from infra.changes.rows import UNAVAILABLE
from infra.vectors import Place, Vectors
from schemas.codec import FRAME
from schemas.indexes import IndexSpec
from schemas.search import Search
from schemas.topics import captured
from tests.harness import Bus, unique
from tests.seed import changes, publish

PARTITIONS = 3
LOCATION = "public.docs"
COLUMNS = {"id": "long", "title": ["null", "string"], "body": ["null", "string"], "price": "long"}

Row = dict[str, Any]


class Table:
    """A table in a database that is not there, and the topic of its changes.

    Args:
        bus: Where the topic is made.
        columns: Avro types of its columns; the first is the key.
    """

    def __init__(self, bus: Bus, columns: dict[str, Any] | None = None) -> None:
        self._bus = bus
        self.name = f"main.tests.{unique('docs')}"
        self.topic = captured(self.name, LOCATION)
        self.rows: dict[int, Row] = {}
        self._lsn = 1000
        made = bus.admin.create_topics([NewTopic(self.topic, PARTITIONS, 1)])
        made[self.topic].result(30)
        self.shape(columns or COLUMNS)
        spec = {"location": LOCATION, "connection": "main.tests.database", "capture": {}}
        publish(bus, *changes([{"kind": "table", "name": self.name, "spec": spec}]))

    def shape(self, columns: dict[str, Any]) -> None:
        """Gives the table these columns from now on."""
        key = {"type": "record", "name": "Key", "fields": [{"name": "id", "type": "long"}]}
        row = {"type": "record", "name": "Value", "fields": _fields(columns)}
        source = {"lsn": "long", "sequence": ["null", "string"], "ts_ms": "long"}
        value = {
            "type": "record",
            "name": "Envelope",
            "fields": [
                {"name": "before", "type": ["null", row]},
                {"name": "after", "type": ["null", "Value"]},
                {
                    "name": "source",
                    "type": {"type": "record", "name": "Source", "fields": _fields(source)},
                },
                {"name": "op", "type": "string"},
            ],
        }
        self._key, self._value = (
            registered(self._bus, self.topic, part, schema)
            for part, schema in (("key", key), ("value", value))
        )

    def write(self, key: int, **columns: Any) -> None:
        """Inserts a row, or updates what is named of it; a body that is not named is left out."""
        before = self.rows.get(key)
        row = {"title": None, "body": None, "price": 0, **(before or {}), **columns, "id": key}
        self.rows[key] = row
        told = dict(row)
        if before and "body" not in columns and before["body"] is not None:
            told["body"] = UNAVAILABLE
        self._tell("u" if before else "c", key, told)

    def delete(self, key: int) -> None:
        """Deletes a row."""
        del self.rows[key]
        self._tell("d", key, None)
        self._bus.put(self.topic, encoded(self._key, {"id": key}), None)

    def truncate(self) -> None:
        """Deletes all rows."""
        self.rows.clear()
        self._tell("t", None, None)

    def settle(self) -> None:
        """Waits until all lies on the log."""
        self._bus.settle()

    def texts(self) -> dict[int, tuple[str, int]]:
        """Returns what an index of it should hold: text and price by key."""
        return {
            key: (f"{row['title'] or ''}: {row['body'] or ''}".strip(), row["price"])
            for key, row in self.rows.items()
        }

    def _tell(self, op: str, key: int | None, row: Row | None) -> None:
        self._lsn += 8
        value = {
            "before": None,
            "after": row,
            "source": {
                "lsn": self._lsn,
                "sequence": json.dumps([str(self._lsn - 8), str(self._lsn)]),
                "ts_ms": 1_700_000_000_000 + self._lsn,
            },
            "op": op,
        }
        name = None if key is None else encoded(self._key, {"id": key})
        # Of no key, it goes anywhere.
        place = 1 if name is None else (murmur2(name) & 0x7FFFFFFF) % PARTITIONS
        self._bus.put(self.topic, name, encoded(self._value, value), partition=place)


def registered(bus: Bus, topic: str, part: str, schema: Row) -> tuple[int, Any]:
    """Registers a schema of a topic's keys or values; returns its id, and what encodes by it."""
    with SchemaRegistryClient({"url": bus.registry_settings.url}) as client:
        text = json.dumps({**schema, "namespace": topic.replace("-", "_")})
        number = client.register_schema(f"{topic}-{part}", Schema(text, "AVRO"))
    return number, fastavro.parse_schema(json.loads(text))


def encoded(schema: tuple[int, Any], value: Row) -> bytes:
    """Returns a value as it lies on a topic."""
    out = BytesIO()
    out.write(FRAME.pack(0, schema[0]))
    fastavro.schemaless_writer(out, schema[1], value)
    return out.getvalue()


def rows_on_a_topic(bus: Bus, columns: dict[str, Any], rows: Sequence[Row]) -> str:
    """Writes rows to a topic of their own, as any program may, each under its first column."""
    topic = unique("rows")
    bus.admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result(30)
    schema = registered(
        bus, topic, "value", {"type": "record", "name": "Row", "fields": _fields(columns)}
    )
    for row in rows:
        bus.put(topic, str(next(iter(row.values()))).encode(), encoded(schema, row))
    bus.settle()
    return topic


def _fields(columns: dict[str, Any]) -> list[Row]:
    return [
        {"name": name, "type": kind, **({"default": None} if isinstance(kind, list) else {})}
        for name, kind in columns.items()
    ]


async def held(vectors: Vectors, place: Place, spec: IndexSpec) -> dict[int, tuple[str, int]]:
    """Returns what an index holds: text and price by key; no text where a beginning comes twice.

    A store that was killed may have left some of a row of before, until it is told again.
    """
    found: dict[int, tuple[str, int]] = {}
    twice: set[int] = set()
    after: str | None = None
    while True:
        search = Search(operation="scan", k=1000, after=after)
        page = await vectors.scan(place, spec, search, where=None)
        for hit in page.hits:
            key = hit.key["id"]
            if key in found and not hit.position:
                twice.add(key)
            found[key] = (hit.text, hit.columns["price"])
        after = page.next
        if after is None:
            return {
                key: ("" if key in twice else text, price) for key, (text, price) in found.items()
            }
