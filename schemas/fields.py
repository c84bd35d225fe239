"""One field of a record: its Python type, its default, and code for each direction.

All of it is source text; ``generate`` puts it together.
"""

from __future__ import annotations

import json
import keyword
from datetime import date, datetime
from decimal import Decimal
from uuid import UUID

from schemas.avro import Schema, SchemaInvalid

PLAIN: dict[str, type] = {
    "boolean": bool,
    "bytes": bytes,
    "double": float,
    "float": float,
    "int": int,
    "long": int,
    "string": str,
}

# The functions of ``binary`` that encode them.
ENCODED: dict[str, str] = {
    "boolean": "BOOLEANS[{}]",
    "bytes": "raw({})",
    "date": "days({})",
    "double": "double({})",
    "float": "single({})",
    "int": "long({})",
    "long": "long({})",
    "string": "text({})",
    "timestamp-micros": "micros({})",
    "timestamp-millis": "millis({})",
    "uuid": "text(str({}))",
}

# fastavro converts these by itself, both ways.
LOGICAL: dict[tuple[str, str], type] = {
    ("bytes", "decimal"): Decimal,
    ("int", "date"): date,
    ("long", "timestamp-micros"): datetime,
    ("long", "timestamp-millis"): datetime,
    ("string", "uuid"): UUID,
}


class Field:
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

    def encoded(self) -> str:
        """Returns an expression from the event's attribute to its binary encoding."""
        return self._encode(f"self.{self.name}", self.schema)

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
            return f"{self._type(branch(schema, self.where))} | None"
        if isinstance(schema, str):
            return PLAIN[schema].__name__
        match schema["type"]:
            case "record" | "enum":
                return class_name(str(schema["name"]))
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
                    return f" = {class_name(str(schema['name']))}.{default}"
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
            inner = self._write(value, branch(schema, self.where))
            if inner == value and self._type(schema).startswith("tuple["):
                # Where a union stands, fastavro takes a tuple for a branch's name and its value.
                inner = f"list({value})"
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

    def _encode(self, value: str, schema: Schema) -> str:
        schema = self._resolve(schema)
        if isinstance(schema, str):
            return f"binary.{ENCODED[schema].format(value)}"
        if isinstance(schema, list):
            inner = self._encode(value, branch(schema, self.where))
            return f"binary.ABSENT if {value} is None else binary.PRESENT + {inner}"
        match kind := str(schema.get("logicalType", schema["type"])):
            case "array":
                inner = self._encode("item", schema["items"])  # type: ignore[arg-type]
                encoded = f"items([{inner} for item in {value}])"
            case "decimal":
                encoded = f"decimal({value}, {schema['precision']}, {schema['scale']})"
            case "enum":
                return f"{table_of(str(schema['name']))}[{value}]"
            case "map":
                inner = self._encode("item", schema["values"])  # type: ignore[arg-type]
                pair = f"binary.text(key) + ({inner})"
                encoded = f"items([{pair} for key, item in {value}.items()])"
            case "record":
                return f"{value}.to_bytes()"
            case _:
                encoded = ENCODED[kind].format(value)
        return f"binary.{encoded}"

    def _read(self, value: str, schema: Schema) -> str:
        schema = self._resolve(schema)
        if isinstance(schema, list):
            inner = self._read(value, branch(schema, self.where))
            return value if inner == value else f"None if {value} is None else {inner}"
        if isinstance(schema, dict):
            match schema["type"]:
                case "record":
                    return f"{class_name(str(schema['name']))}.from_avro({value})"
                case "enum":
                    return f"{class_name(str(schema['name']))}({value})"
                case "array":
                    inner = self._read("item", schema["items"])  # type: ignore[arg-type]
                    items = f"tuple([{inner} for item in {value}])"
                    return f"tuple({value})" if inner == "item" else items
                case "map":
                    inner = self._read("item", schema["values"])  # type: ignore[arg-type]
                    pairs = f"{{key: {inner} for key, item in {value}.items()}}"
                    return value if inner == "item" else pairs
        return value


def branch(union: list[object], where: str) -> Schema:
    """Returns the type beside null in a union.

    Raises:
        SchemaInvalid: It is another union.
    """
    if len(union) != 2 or union[0] != "null":  # noqa: PLR2004
        raise SchemaInvalid(f'{where}: a union must be ["null", T], not {json.dumps(union)}')
    return union[1]  # type: ignore[return-value]


def class_name(name: str) -> str:
    """Returns the name of the class of a type, given its full name."""
    return name.rpartition(".")[2]


def table_of(enum: str) -> str:
    """Returns the name of the table of an enum's encoded symbols."""
    return f"_{enum.upper()}"
