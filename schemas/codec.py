"""Events to bytes and back: Avro behind the Confluent frame (a zero byte, the schema id, the body).

The codec does no input or output. It is given the ids under which the registry knows our schemas,
and is taught the schemas of other writers as they turn up.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from io import BytesIO
from typing import Any, TypeVar

import fastavro

from schemas.avro import full_name, is_bounded, whole
from schemas.events import EVENTS, Event

E = TypeVar("E", bound=Event)
# A schema as fastavro has parsed it.
_Parsed = Any

FRAME = struct.Struct(">bI")


class Unreadable(ValueError):
    """Bytes that are no event of the kind that the topic carries; the message says why."""


class SchemaUnlearned(LookupError):
    """The writer's schema is not known here yet: ``Codec.learn`` it and decode again."""

    def __init__(self, schema_id: int) -> None:
        super().__init__(f"schema id {schema_id} has not been learned")
        self.schema_id = schema_id


class Unencodable(ValueError):
    """An event holds what its schema cannot say; the message quotes nothing of it."""


class SchemaUnregistered(LookupError):
    """An event has no id in the registry, so it must not go on the bus."""


# What comes of bytes, or of values, that are not what the schema says.
_BROKEN = (
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    MemoryError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
    fastavro.schema.SchemaParseException,
    fastavro.read.SchemaResolutionError,
)


class Codec:
    """Encodes and decodes events.

    Args:
        ids: The registry's id for each event, by full name (``tessera.inference.Completion``).
    """

    def __init__(self, ids: Mapping[str, int]) -> None:
        self._own = {name: fastavro.parse_schema(whole(name)) for name in EVENTS}
        self._frames = {name: FRAME.pack(0, schema_id) for name, schema_id in ids.items()}
        self._ids = dict(ids)
        self._writers = {schema_id: (name, self._own[name]) for name, schema_id in ids.items()}

    def encode(self, event: Event) -> bytes:
        """Returns the framed bytes of an event.

        Raises:
            SchemaUnregistered: The registry gave no id for this event.
            Unencodable: A value is out of its type's range, or no text.
        """
        frame = self._frames.get(event.SCHEMA)
        if frame is None:
            raise SchemaUnregistered(
                f"{event.SCHEMA} is not registered: run provisioning before this process"
            )
        try:
            return frame + event.to_bytes()
        except _BROKEN as problem:
            raise Unencodable(f"{event.SCHEMA}: {type(problem).__name__}") from None

    def decode(self, value: bytes | None, expected: type[E]) -> E:
        """Returns the event in a record's value, whatever version its writer had.

        Raises:
            Unreadable: The value is not a framed ``expected``.
            SchemaUnlearned: The writer's schema id is new here.
        """
        schema_id, name, writer = self._writer(value)
        if name != expected.SCHEMA:
            raise Unreadable(f"the value is a {name}, the topic carries {expected.SCHEMA}")
        reader = None if self._ids.get(name) == schema_id else self._own[name]
        record = _fields(value or b"", name, writer, reader)
        try:
            event: E = expected.from_avro(record)
        except _BROKEN as problem:
            raise Unreadable(f"the value is no {name}: {type(problem).__name__}") from None
        return event

    # `Any`: what the fields of a foreign record hold, only its schema says.
    def plain(self, value: bytes) -> tuple[int, dict[str, Any]]:
        """Returns a record of any schema as its fields, after the id of that schema.

        Raises:
            Unreadable: It is no framed record.
            SchemaUnlearned: Its schema id is new here.
        """
        schema_id, name, writer = self._writer(value)
        return schema_id, _fields(value, name, writer, None)

    def learn(self, schema_id: int, schema: Mapping[str, object]) -> None:
        """Remembers a writer's schema.

        Raises:
            Unreadable: It is no Avro record schema, or one whose values could take any amount of
                memory whatever their length.
        """
        try:
            name = full_name(dict(schema), "")
            bounded = is_bounded(dict(schema))
            parsed = fastavro.parse_schema(dict(schema))
        except _BROKEN as problem:
            raise Unreadable(f"schema {schema_id} is no Avro record: {problem}") from None
        if not bounded:
            raise Unreadable(f"schema {schema_id} describes values without bound")
        self._writers[schema_id] = (name, parsed)

    def _writer(self, value: bytes | None) -> tuple[int, str, _Parsed]:
        """Returns the id of a value's schema, its name, and the schema."""
        if not value:
            raise Unreadable("the value is empty")
        if len(value) < FRAME.size or value[0] != 0:
            raise Unreadable("the value does not start with the Confluent frame")
        schema_id = FRAME.unpack_from(value)[1]
        if schema_id not in self._writers:
            raise SchemaUnlearned(schema_id)
        return schema_id, *self._writers[schema_id]


def _fields(value: bytes, name: str, writer: _Parsed, reader: _Parsed | None) -> dict[str, Any]:
    body = BytesIO(value)
    body.seek(FRAME.size)
    try:
        record = fastavro.schemaless_reader(body, writer, reader)
    except _BROKEN as problem:
        raise Unreadable(f"the value is no {name}: {type(problem).__name__}") from None
    if body.tell() != len(value):
        raise Unreadable(f"{len(value) - body.tell()} bytes follow the {name}")
    return record  # type: ignore[return-value]
