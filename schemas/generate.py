"""Writes ``events.py`` from the .avsc files: one frozen dataclass a record, one StrEnum an enum.

    python -m schemas.generate            write it
    python -m schemas.generate --check    exit 1 and show the difference if it is stale

Each dataclass converts itself to and from what fastavro reads and writes, in straight-line code:
this runs for every record on the bus.
"""

from __future__ import annotations

import argparse
import difflib
import json
import keyword
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from uuid import UUID

from schemas.avro import AVSC, Schema, SchemaInvalid, definitions, roots

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

'''

BASE = '''
class Event:
    """A record of the bus: immutable, and able to go to and from Avro."""

    __slots__ = ()
    SCHEMA: ClassVar[str]

    def to_avro(self) -> dict[str, Any]:
        """Returns the record as fastavro writes it."""
        raise NotImplementedError

    @classmethod
    def from_avro(cls, record: dict[str, Any]) -> Any:
        """Returns the event that fastavro read."""
        raise NotImplementedError

'''

PLAIN: dict[str, type] = {
    "boolean": bool,
    "bytes": bytes,
    "double": float,
    "float": float,
    "int": int,
    "long": int,
    "string": str,
}

# fastavro converts these by itself, both ways.
LOGICAL: dict[tuple[str, str], type] = {
    ("bytes", "decimal"): Decimal,
    ("int", "date"): date,
    ("long", "timestamp-micros"): datetime,
    ("long", "timestamp-millis"): datetime,
    ("string", "uuid"): UUID,
}


def render(folder: Path = AVSC) -> str:
    """Returns the source of ``events.py``.

    Raises:
        SchemaInvalid: A schema uses something outside the contract's rules; the message says
            where and what.
    """
    known = definitions(folder)
    for name, count in Counter(map(_class, known)).items():
        if count > 1:
            raise SchemaInvalid(f"{name} is the name of {count} types; their classes would be one")
    enums = [name for name, schema in known.items() if schema["type"] == "enum"]
    records = list(_after_their_parts(known))
    lines = [HEADER]
    lines += [_enum(known[name]) for name in sorted(enums)]
    lines.append(BASE)
    lines += [_record(known[name], known) for name in records]
    events = "".join(f'    "{name}": {_class(name)},\n' for name in sorted(roots(folder)))
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
        return _innermost(_branch(schema, where), namespace, where)
    if isinstance(schema, str):
        return schema if schema in PLAIN or "." in schema else f"{namespace}.{schema}"
    if schema["type"] in ("record", "enum"):
        return f"{schema.get('namespace', namespace)}.{schema['name']}"
    inner = schema.get("items") or schema.get("values") or schema["type"]
    return _innermost(inner, namespace, where)  # type: ignore[arg-type]


def _fields(schema: dict[str, object]) -> list[dict[str, object]]:
    return schema["fields"]  # type: ignore[return-value]


def _branch(union: list[object], where: str) -> Schema:
    if len(union) != 2 or union[0] != "null":  # noqa: PLR2004
        raise SchemaInvalid(f'{where}: a union must be ["null", T], not {json.dumps(union)}')
    return union[1]  # type: ignore[return-value]


def _doc(schema: dict[str, object]) -> str:
    if not schema.get("doc"):
        raise SchemaInvalid(f"{schema['name']} has no doc")
    return str(schema["doc"])


def _class(name: str) -> str:
    return name.rpartition(".")[2]


def _enum(schema: dict[str, object]) -> str:
    symbols: list[str] = schema["symbols"]  # type: ignore[assignment]
    if schema.get("default") not in symbols:
        raise SchemaInvalid(f"{schema['name']}: an enum must have a default symbol")
    members = "".join(f'    {symbol} = "{symbol}"\n' for symbol in symbols)
    return f'\nclass {schema["name"]}(StrEnum):\n    """{_doc(schema)}"""\n\n{members}\n'


def _record(schema: dict[str, object], known: dict[str, dict[str, object]]) -> str:
    name, namespace = str(schema["name"]), str(schema["namespace"])
    typed = [_Field(field, namespace, name, known) for field in _fields(schema)]
    return "".join(
        [
            "\n@dataclass(slots=True, frozen=True, kw_only=True)\n",
            f"class {name}(Event):\n",
            _docstring(schema, typed),
            f'    SCHEMA: ClassVar[str] = "{namespace}.{name}"\n\n',
            *(f"    {field.declaration()}\n" for field in typed),
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


def _docstring(schema: dict[str, object], typed: list[_Field]) -> str:
    attributes = [
        textwrap.fill(
            f"{field.name}: {field.doc}", 92, initial_indent="    ", subsequent_indent="        "
        )
        for field in typed
    ]
    text = "\n".join([textwrap.fill(_doc(schema), 90), "", "Attributes:", *attributes])
    return textwrap.indent(f'"""{text}\n"""\n\n', "    ", lambda line: bool(line.strip()))


class _Field:
    """One field of a record: its Python type, default, and code for both directions."""

    def __init__(
        self,
        field: dict[str, object],
        namespace: str,
        owner: str,
        known: dict[str, dict[str, object]],
    ) -> None:
        self.name = str(field["name"])
        self.where = f"{owner}.{self.name}"
        self.namespace = namespace
        self.known = known
        self.schema: Schema = field["type"]  # type: ignore[assignment]
        self.field = field
        if not field.get("doc"):
            raise SchemaInvalid(f"{self.where} has no doc")
        if keyword.iskeyword(self.name):
            raise SchemaInvalid(f"{self.where} is a Python keyword")
        self.doc = str(field["doc"])

    def declaration(self) -> str:
        """Returns the field as it stands in the dataclass."""
        return f"{self.name}: {self._type(self.schema)}{self._default()}"

    def written(self) -> str:
        """Returns an expression from the event's attribute to what fastavro writes."""
        return self._write(f"self.{self.name}", self.schema)

    def read(self) -> str:
        """Returns an expression from what fastavro read to the attribute."""
        return self._read(f'record["{self.name}"]', self.schema)

    def _resolve(self, schema: Schema) -> Schema:
        """Returns the definition behind a name."""
        if isinstance(schema, str) and schema not in PLAIN:
            name = schema if "." in schema else f"{self.namespace}.{schema}"
            if name not in self.known:
                raise SchemaInvalid(f"{self.where}: {name} is defined nowhere")
            return self.known[name]
        return schema

    def _type(self, schema: Schema) -> str:
        schema = self._resolve(schema)
        if isinstance(schema, list):
            return f"{self._type(_branch(schema, self.where))} | None"
        if isinstance(schema, str):
            return PLAIN[schema].__name__
        match schema["type"]:
            case "record" | "enum":
                return _class(str(schema["name"]))
            case "array":
                return f"tuple[{self._type(schema['items'])}, ...]"  # type: ignore[arg-type]
            case "map":
                return f"Mapping[str, {self._type(schema['values'])}]"  # type: ignore[arg-type]
            case plain if "logicalType" in schema:
                found = LOGICAL.get((str(plain), str(schema["logicalType"])))
            case plain:
                found = PLAIN.get(str(plain))
        if found:
            return found.__name__
        raise SchemaInvalid(f"{self.where}: {json.dumps(schema)} is not supported")

    def _default(self) -> str:
        if "default" not in self.field:
            return ""
        default = self.field["default"]
        schema = self._resolve(self.schema)
        if isinstance(schema, dict):
            match schema["type"]:
                case "enum":
                    return f" = {_class(str(schema['name']))}.{default}"
                case "array" if default == []:
                    return " = ()"
                case "map" if default == {}:
                    return " = field(default_factory=dict)"
        if isinstance(schema, list) and default is None:
            return " = None"
        if isinstance(schema, str) and type(default) is PLAIN[schema]:
            return f" = {default!r}"
        raise SchemaInvalid(f"{self.where}: default {json.dumps(default)} is not supported")

    def _write(self, value: str, schema: Schema) -> str:
        schema = self._resolve(schema)
        if isinstance(schema, list):
            inner = self._write(value, _branch(schema, self.where))
            return value if inner == value else f"None if {value} is None else {inner}"
        if isinstance(schema, dict):
            match schema["type"]:
                case "record":
                    return f"{value}.to_avro()"
                case "array":
                    inner = self._write("item", schema["items"])  # type: ignore[arg-type]
                    return value if inner == "item" else f"[{inner} for item in {value}]"
                case "map":
                    inner = self._write("item", schema["values"])  # type: ignore[arg-type]
                    pairs = f"{{key: {inner} for key, item in {value}.items()}}"
                    return value if inner == "item" else pairs
        return value

    def _read(self, value: str, schema: Schema) -> str:
        schema = self._resolve(schema)
        if isinstance(schema, list):
            inner = self._read(value, _branch(schema, self.where))
            return value if inner == value else f"None if {value} is None else {inner}"
        if isinstance(schema, dict):
            match schema["type"]:
                case "record":
                    return f"{_class(str(schema['name']))}.from_avro({value})"
                case "enum":
                    return f"{_class(str(schema['name']))}({value})"
                case "array":
                    inner = self._read("item", schema["items"])  # type: ignore[arg-type]
                    items = f"tuple([{inner} for item in {value}])"
                    return f"tuple({value})" if inner == "item" else items
                case "map":
                    inner = self._read("item", schema["values"])  # type: ignore[arg-type]
                    pairs = f"{{key: {inner} for key, item in {value}.items()}}"
                    return value if inner == "item" else pairs
        return value


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
