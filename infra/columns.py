"""Avro schemas as Arrow columns: the shape of a table that holds one event a row.

What it knows: which column type stands for which Avro type, and which columns may be null. What it
does not know: tables, files, and the log.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from schemas.avro import SchemaInvalid, full_name, whole
from schemas.events import Event

# The Arrow types of the records and enums met so far, by full name: Avro defines a type where it
# first stands and names it afterwards.
Met = dict[str, Any]

PLAIN: dict[str, Any] = {
    "boolean": pa.bool_(),
    "bytes": pa.binary(),
    "double": pa.float64(),
    "float": pa.float32(),
    "int": pa.int32(),
    "long": pa.int64(),
    "string": pa.string(),
}
LOGICAL: dict[str, Callable[[dict[str, Any]], Any]] = {
    "date": lambda _: pa.date32(),
    "decimal": lambda schema: pa.decimal128(schema["precision"], schema.get("scale", 0)),
    "timestamp-micros": lambda _: pa.timestamp("us", "UTC"),
    "timestamp-millis": lambda _: pa.timestamp("us", "UTC"),
}


def arrow_schema(event_type: type[Event]) -> pa.Schema:
    """Returns the columns of an event: records are structs, enums strings, instants UTC.

    A column may be null where its Avro field may be null or has a default, so that a field added
    later reads as null in older rows.

    Raises:
        SchemaInvalid: A type has no column type, or a record contains itself.
    """
    return pa.schema(list(_column_type(whole(event_type.SCHEMA), "", {})))


def _column_type(schema: Any, namespace: str, met: Met) -> Any:
    if isinstance(schema, list):
        branches = [branch for branch in schema if branch != "null"]
        if len(branches) != 1:
            raise SchemaInvalid(f"a column cannot hold the union {schema}")
        return _column_type(branches[0], namespace, met)
    if isinstance(schema, str):
        return _known_type(schema, namespace, met)
    if logical := schema.get("logicalType"):
        if logical not in LOGICAL:
            raise SchemaInvalid(f"a column cannot hold the logical type {logical}")
        return LOGICAL[logical](schema)
    if schema["type"] in COMPLEX:
        return COMPLEX[schema["type"]](schema, namespace, met)
    return _column_type(schema["type"], namespace, met)


def _known_type(name: str, namespace: str, met: Met) -> Any:
    if name in PLAIN:
        return PLAIN[name]
    name = name if "." in name else f"{namespace}.{name}"
    if name not in met:
        raise SchemaInvalid(f"a column cannot hold {name}: it is unknown, or contains itself")
    return met[name]


def _record_type(schema: dict[str, Any], namespace: str, met: Met) -> Any:
    name = full_name(schema, namespace)
    fields = [_field(field, name.rpartition(".")[0], met) for field in schema["fields"]]
    return met.setdefault(name, pa.struct(fields))


def _field(field: dict[str, Any], namespace: str, met: Met) -> Any:
    nullable = isinstance(field["type"], list) or "default" in field
    return pa.field(field["name"], _column_type(field["type"], namespace, met), nullable=nullable)


def _enum_type(schema: dict[str, Any], namespace: str, met: Met) -> Any:
    return met.setdefault(full_name(schema, namespace), pa.string())


def _array_type(schema: dict[str, Any], namespace: str, met: Met) -> Any:
    return pa.list_(pa.field("element", _column_type(schema["items"], namespace, met)))


def _map_type(schema: dict[str, Any], namespace: str, met: Met) -> Any:
    values = _column_type(schema["values"], namespace, met)
    if pa.types.is_nested(values):
        # Delta can neither append to nor compact such a column once the record has a new field.
        raise SchemaInvalid("a column cannot hold a map of records or arrays: use an array")
    return pa.map_(pa.string(), values)


COMPLEX: dict[str, Callable[[dict[str, Any], str, Met], Any]] = {
    "array": _array_type,
    "enum": _enum_type,
    "map": _map_type,
    "record": _record_type,
}
