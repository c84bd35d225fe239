"""Reads the .avsc files and makes each schema whole.

A file may use a type of another file by its full name. What goes to a registry must stand alone,
so ``whole`` puts each foreign type in where it is first used.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import fastavro

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
    """Returns every record and enum defined in a folder by full name, in file order.

    Raises:
        SchemaInvalid: A file is no JSON, or a type is defined twice.
    """
    found: dict[str, dict[str, object]] = {}
    for path in sorted(folder.glob("*.avsc")):
        for name, schema in _named(_read(path), ""):
            if name in found:
                raise SchemaInvalid(f"{path.name}: {name} is defined twice")
            found[name] = schema
    return found


@cache
def roots(folder: Path = AVSC) -> dict[str, Path]:
    """Returns the file of each top-level record, by full name."""
    return {full_name(_read(path), ""): path for path in sorted(folder.glob("*.avsc"))}


def whole(name: str, folder: Path = AVSC) -> dict[str, object]:
    """Returns the schema of a record with every type that it uses inside.

    Raises:
        SchemaInvalid: A type is used that no file defines.
    """
    schema = _inline(name, "", set(), definitions(folder))
    if not isinstance(schema, dict):
        raise SchemaInvalid(f"{name} is no record")
    return schema


@cache
def fingerprint(name: str) -> str:
    """Returns the SHA-256 of a record's schema in Avro's parsing canonical form, in hexadecimal.

    As long as it is the same, the same values are the same bytes.
    """
    canonical = fastavro.schema.to_parsing_canonical_form(whole(name))
    return fastavro.schema.fingerprint(canonical, "SHA-256")


def is_bounded(schema: dict[str, object]) -> bool:
    """Returns whether the length of a value bounds what it takes to read it.

    It does not where a type holds itself (a short value can nest deeper than any stack), or where
    a list holds items that take no bytes (a short value can hold any number of them).
    """
    known = dict(_named(schema, ""))

    def bounded(part: Schema, namespace: str, inside: frozenset[str]) -> bool:
        if isinstance(part, list):
            return all(bounded(branch, namespace, inside) for branch in part)  # type: ignore[arg-type]
        if isinstance(part, str):
            return _referred(part, namespace) not in inside
        if "fields" in part:
            name = full_name(part, namespace)
            namespace, inside = name.rpartition(".")[0], inside | {name}
        if not all(bounded(each, namespace, inside) for each in _parts(part)):
            return False
        return "items" not in part or not _takes_no_bytes(part["items"], namespace, known)  # type: ignore[arg-type]

    return bounded(schema, "", frozenset())


def _takes_no_bytes(schema: Schema, namespace: str, known: dict[str, dict[str, object]]) -> bool:
    if isinstance(schema, list):
        return False
    if isinstance(schema, str) and schema in PRIMITIVES:
        return schema == "null"
    if isinstance(schema, str):
        name = _referred(schema, namespace)
        return name in known and _takes_no_bytes(known[name], namespace, known)
    if "fields" in schema:
        namespace = full_name(schema, namespace).rpartition(".")[0]
        return all(_takes_no_bytes(part, namespace, known) for part in _parts(schema))
    return schema["type"] == "null" or schema.get("size") == 0


def _read(path: Path) -> dict[str, object]:
    try:
        schema: dict[str, object] = json.loads(path.read_text())
    except ValueError as problem:
        raise SchemaInvalid(f"{path.name} is no JSON: {problem}") from None
    return schema


def _referred(name: str, namespace: str) -> str:
    return name if "." in name or name in PRIMITIVES else f"{namespace}.{name}"


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
        name = _referred(schema, namespace)
        if name in seen:
            return name
        if name not in known:
            raise SchemaInvalid(f"{name} is used but no .avsc file defines it")
        return _inline(known[name], name.rpartition(".")[0], seen, known)
    if schema["type"] in ("record", "enum"):
        # A type that stands inside another may have been needed before.
        if (name := full_name(schema, namespace)) in seen:
            return name
        seen.add(name)
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
