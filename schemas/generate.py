"""Writes ``events.py`` from the .avsc files: one frozen dataclass a record, one StrEnum an enum.

    python -m schemas.generate            write it
    python -m schemas.generate --check    exit 1 and show the difference if it is stale

Each dataclass writes itself in Avro's binary encoding, and converts itself to and from what
fastavro reads and writes, in straight-line code: this runs for every record on the bus.
"""

from __future__ import annotations

import argparse
import difflib
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from schemas.avro import AVSC, Schema, SchemaInvalid, definitions, roots
from schemas.fields import PLAIN, Field, branch, class_name, table_of

TARGET = Path(__file__).parent / "events.py"

HEADER = '''"""The events of the bus, generated from avsc/ by schemas.generate: do not edit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, ClassVar
from uuid import UUID

from schemas import binary

'''

BASE = '''
class Event:
    """A record of the bus: immutable, and able to go to and from Avro."""

    __slots__ = ()
    SCHEMA: ClassVar[str]

    def to_bytes(self) -> bytes:
        """Returns the record in Avro's binary encoding."""
        raise NotImplementedError

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        raise NotImplementedError

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> Any:
        """Returns the event that fastavro read."""
        raise NotImplementedError

'''


def render(folder: Path = AVSC) -> str:
    """Returns the source of ``events.py``.

    Raises:
        SchemaInvalid: A schema uses something outside the contract's rules; the message says
            where and what.
    """
    known = definitions(folder)
    for name, count in Counter(map(class_name, known)).items():
        if count > 1:
            raise SchemaInvalid(f"{name} is the name of {count} types; their classes would be one")
    enums = [name for name, schema in known.items() if schema["type"] == "enum"]
    records = list(_after_their_parts(known))
    lines = [HEADER]
    lines += [_enum(known[name]) for name in sorted(enums)]
    lines.append(BASE)
    lines += [_record(known[name], known) for name in records]
    events = "".join(f'    "{name}": {class_name(name)},\n' for name in sorted(roots(folder)))
    lines.append(f"\nEVENTS: dict[str, type[Event]] = {{\n{events}}}\n")
    return "".join(lines)


def _after_their_parts(known: dict[str, dict[str, object]]) -> Iterator[str]:
    """Yields record names so that each stands after the records that its fields default to."""
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> Iterator[str]:
        if name in path:
            raise SchemaInvalid(f"{name} contains itself: {' > '.join(path)}")
        if name in done:
            return
        for part in _uses(known[name], known):
            yield from visit(part, (*path, name))
        done.add(name)
        yield name

    for name in sorted(known):
        if known[name]["type"] == "record":
            yield from visit(name, ())


def _uses(schema: dict[str, object], known: dict[str, dict[str, object]]) -> Iterator[str]:
    for field in _fields(schema):
        where = f"{schema['name']}.{field['name']}"
        name = _innermost(field["type"], str(schema["namespace"]), where)  # type: ignore[arg-type]
        if name in known and known[name]["type"] == "record":
            yield name


def _innermost(schema: Schema, namespace: str, where: str) -> str:
    if isinstance(schema, list):
        return _innermost(branch(schema, where), namespace, where)
    if isinstance(schema, str):
        return schema if schema in PLAIN or "." in schema else f"{namespace}.{schema}"
    if schema["type"] in ("record", "enum"):
        return f"{schema.get('namespace', namespace)}.{schema['name']}"
    inner = schema.get("items") or schema.get("values") or schema["type"]
    return _innermost(inner, namespace, where)  # type: ignore[arg-type]


def _fields(schema: dict[str, object]) -> list[dict[str, object]]:
    return schema["fields"]  # type: ignore[return-value]


def _doc(schema: dict[str, object]) -> str:
    if not schema.get("doc"):
        raise SchemaInvalid(f"{schema['name']} has no doc")
    return str(schema["doc"])


def _enum(schema: dict[str, object]) -> str:
    symbols: list[str] = schema["symbols"]  # type: ignore[assignment]
    if schema.get("default") not in symbols:
        raise SchemaInvalid(f"{schema['name']}: an enum must have a default symbol")
    members = "".join(f'    {symbol} = "{symbol}"\n' for symbol in symbols)
    name = schema["name"]
    table = f"{table_of(str(name))} = binary.symbols({name})\n"
    return f'\nclass {name}(StrEnum):\n    """{_doc(schema)}"""\n\n{members}\n\n{table}'


def _record(schema: dict[str, object], known: dict[str, dict[str, object]]) -> str:
    name, namespace = str(schema["name"]), str(schema["namespace"])
    typed = [Field(field, namespace, name, known) for field in _fields(schema)]
    return "".join(
        [
            "\n@dataclass(slots=True, frozen=True, kw_only=True)\n",
            f"class {name}(Event):\n",
            _docstring(schema, typed),
            f'    SCHEMA: ClassVar[str] = "{namespace}.{name}"\n\n',
            *(f"    {field.declaration()}\n" for field in typed),
            "\n    def to_bytes(self) -> bytes:\n",
            '        """Returns the record in Avro\'s binary encoding."""\n',
            '        return b"".join((\n',
            *(f"            {field.encoded()},\n" for field in typed),
            "        ))\n",
            "\n    def to_avro(self) -> dict[str, Any]:\n",
            '        """Returns the record as fastavro writes it."""\n',
            "        return {\n",
            *(f'            "{field.name}": {field.written()},\n' for field in typed),
            "        }\n\n",
            "    @classmethod\n",
            f"    def from_avro(cls, record: dict[str, Any]) -> {name}:\n",
            '        """Returns the event that fastavro read."""\n',
            "        return cls(\n",
            *(f"            {field.name}={field.read()},\n" for field in typed),
            "        )\n\n",
        ]
    )


def _docstring(schema: dict[str, object], typed: list[Field]) -> str:
    attributes = [
        textwrap.fill(
            f"{field.name}: {field.doc}", 92, initial_indent="    ", subsequent_indent="        "
        )
        for field in typed
    ]
    text = "\n".join([textwrap.fill(_doc(schema), 90), "", "Attributes:", *attributes])
    return textwrap.indent(f'"""{text}\n"""\n\n', "    ", lambda line: bool(line.strip()))


def main() -> int:
    """Writes or checks ``events.py``; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether it is fresh")
    check = parser.parse_args().check
    try:
        fresh = render()
    except SchemaInvalid as problem:
        print(f"schemas: {problem}", file=sys.stderr)
        return 1
    current = TARGET.read_text() if TARGET.exists() else ""
    if fresh == current:
        return 0
    if not check:
        TARGET.write_text(fresh)
        return 0
    sys.stdout.writelines(
        difflib.unified_diff(
            current.splitlines(True), fresh.splitlines(True), "events.py", "from avsc/"
        )
    )
    print("schemas: events.py is stale; run python -m schemas.generate", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
