"""Reads the .avsc files and makes each schema whole.

A file may use a type of another file by its full name. What goes to a registry must stand alone,
so ``whole`` puts each foreign type in where it is first used.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

AVSC = Path(__file__).parent / "avsc"

Schema = dict[str, object] | list[object] | str

PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})


class SchemaInvalid(ValueError):
    """An .avsc file breaks a rule; the message names the file or type and the rule."""


def full_name(schema: dict[str, object], namespace: str) -> str:
    """Returns the name of a record or enum with its namespace."""
    name = str(schema["name"])
    return name if "." in name else f"{schema.get('namespace', namespace)}.{name}"


@cache
def definitions(folder: Path = AVSC) -> dict[str, dict[str, object]]:
    """Returns every record and enum defined in a folder by full name, in file order."""
    found: dict[str, dict[str, object]] = {}
    for path in sorted(folder.glob("*.avsc")):
        for name, schema in _named(json.loads(path.read_text()), ""):
            if name in found:
                raise SchemaInvalid(f"{path.name}: {name} is defined twice")
            found[name] = schema
    return found


@cache
def roots(folder: Path = AVSC) -> dict[str, Path]:
    """Returns the file of each top-level record, by full name."""
    paths = sorted(folder.glob("*.avsc"))
    return {full_name(json.loads(path.read_text()), ""): path for path in paths}


def whole(name: str, folder: Path = AVSC) -> dict[str, object]:
    """Returns the schema of a record with every type that it uses inside.

    Raises:
        SchemaInvalid: A type is used that no file defines.
    """
    schema = _inline(name, "", set(), definitions(folder))
    if not isinstance(schema, dict):
        raise SchemaInvalid(f"{name} is no record")
    return schema


def _named(schema: Schema, namespace: str) -> Iterator[tuple[str, dict[str, object]]]:
    """Yields the records and enums inside a schema, the outermost first, with full names."""
    if isinstance(schema, list):
        for branch in schema:
            yield from _named(branch, namespace)  # type: ignore[arg-type]
    elif isinstance(schema, dict):
        if schema["type"] in ("record", "enum"):
            name = full_name(schema, namespace)
            namespace = name.rpartition(".")[0]
            yield name, {**schema, "namespace": namespace}
        for part in _parts(schema):
            yield from _named(part, namespace)


def _parts(schema: dict[str, object]) -> Iterator[Schema]:
    for field in schema.get("fields", ()):  # type: ignore[attr-defined]
        yield field["type"]
    for key in ("items", "values"):
        if key in schema:
            yield schema[key]  # type: ignore[misc]
    if isinstance(schema["type"], dict | list):
        yield schema["type"]


def _inline(
    schema: Schema, namespace: str, seen: set[str], known: dict[str, dict[str, object]]
) -> Schema:
    if isinstance(schema, list):
        return [_inline(branch, namespace, seen, known) for branch in schema]  # type: ignore[arg-type]
    if isinstance(schema, str):
        if schema in PRIMITIVES:
            return schema
        name = schema if "." in schema else f"{namespace}.{schema}"
        if name in seen:
            return name
        if name not in known:
            raise SchemaInvalid(f"{name} is used but no .avsc file defines it")
        return _inline(known[name], name.rpartition(".")[0], seen, known)
    if schema["type"] in ("record", "enum"):
        seen.add(full_name(schema, namespace))
        namespace = str(schema.get("namespace", namespace))
    copy = dict(schema)
    if "fields" in copy:
        copy["fields"] = [
            {**field, "type": _inline(field["type"], namespace, seen, known)}
            for field in copy["fields"]  # type: ignore[attr-defined]
        ]
    for key in ("items", "values"):
        if key in copy:
            copy[key] = _inline(copy[key], namespace, seen, known)  # type: ignore[arg-type]
    if isinstance(copy["type"], dict | list):
        copy["type"] = _inline(copy["type"], namespace, seen, known)
    return copy
