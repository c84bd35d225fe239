"""The generator: what each Avro type becomes, and what the contract's rules refuse."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from datetime import UTC, date, datetime
from decimal import Decimal
from importlib.util import module_from_spec, spec_from_file_location
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID

import fastavro
import pytest

from schemas import generate
from schemas.avro import SchemaInvalid, whole
from schemas.generate import render

Json = dict[str, Any]

SHAPE = {
    "type": "record",
    "name": "Shape",
    "namespace": "tests",
    "doc": "One field of each kind.",
    "fields": [
        {"name": "truth", "type": "boolean", "default": True, "doc": "A boolean."},
        {"name": "small", "type": "int", "default": -1, "doc": "An int."},
        {"name": "large", "type": "long", "doc": "A long."},
        {"name": "rough", "type": "float", "doc": "A float."},
        {"name": "fine", "type": "double", "default": 0.5, "doc": "A double."},
        {"name": "raw", "type": "bytes", "doc": "Bytes."},
        {"name": "said", "type": "string", "default": 'a "quoted" line\n', "doc": "A string."},
        {"name": "maybe", "type": ["null", "string"], "default": None, "doc": "Perhaps a string."},
        {"name": "list", "type": {"type": "array", "items": "long"}, "default": [], "doc": "List."},
        {"name": "map", "type": {"type": "map", "values": "long"}, "default": {}, "doc": "Map."},
        {
            "name": "colour",
            "default": "RED",
            "doc": "An enum.",
            "type": {
                "type": "enum",
                "name": "Colour",
                "doc": "Colours.",
                "symbols": ["UNKNOWN", "RED"],
                "default": "UNKNOWN",
            },
        },
        {
            "name": "inner",
            "doc": "A record.",
            "type": {
                "type": "record",
                "name": "Inner",
                "doc": "Inside.",
                "fields": [{"name": "depth", "type": "int", "doc": "How deep."}],
            },
        },
        {"name": "other", "type": ["null", "Inner"], "default": None, "doc": "By short name."},
        {"name": "inners", "type": {"type": "array", "items": "tests.Inner"}, "doc": "Records."},
        {
            "name": "named",
            "type": {"type": "map", "values": {"type": "array", "items": "Inner"}},
            "doc": "Lists of records by name.",
        },
        {"name": "colours", "type": {"type": "array", "items": "Colour"}, "doc": "Enums."},
        {
            "name": "price",
            "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
            "doc": "A decimal.",
        },
        {"name": "day", "type": {"type": "int", "logicalType": "date"}, "doc": "A date."},
        {
            "name": "at",
            "type": {"type": "long", "logicalType": "timestamp-millis"},
            "doc": "Milliseconds.",
        },
        {
            "name": "exactly",
            "type": ["null", {"type": "long", "logicalType": "timestamp-micros"}],
            "default": None,
            "doc": "Microseconds.",
        },
        {"name": "id", "type": {"type": "string", "logicalType": "uuid"}, "doc": "A UUID."},
    ],
}


def field(schema: object, **more: object) -> Json:
    return {"name": "field", "type": schema, "doc": "A field.", **more}


def record(*fields: Json, name: str = "Subject") -> Json:
    return {
        "type": "record",
        "name": name,
        "namespace": "tests",
        "doc": "A record.",
        "fields": list(fields),
    }


def written(folder: Path, *schemas: Json) -> Path:
    for schema in schemas:
        (folder / f"{schema['name'].lower()}_v1.avsc").write_text(json.dumps(schema))
    return folder


@pytest.fixture
def generated(tmp_path: Path) -> Iterator[ModuleType]:
    """The module generated for ``Shape``, imported as any other."""
    source = tmp_path / "generated_for_a_test.py"
    source.write_text(render(written(tmp_path, SHAPE)))
    spec = spec_from_file_location(source.stem, source)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[source.stem] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[source.stem]


def shape(events: ModuleType, **changes: object) -> Any:
    inner = events.Inner(depth=1)
    given = {
        "large": 2**62,
        "rough": 0.25,
        "raw": b"\x00\xff",
        "inner": inner,
        "inners": (inner, events.Inner(depth=2)),
        "named": {"a": (inner,), "b": ()},
        "colours": (events.Colour.RED, events.Colour.UNKNOWN),
        "price": Decimal("12.50"),
        "day": date(2030, 2, 28),
        "at": datetime(2030, 1, 1, 12, 0, 0, 123000, tzinfo=UTC),
        "id": UUID(int=7),
        **changes,
    }
    return events.Shape(**given)


def there_and_back(event: Any, folder: Path) -> Any:
    schema = fastavro.parse_schema(whole("tests.Shape", folder))
    body = BytesIO()
    fastavro.schemaless_writer(body, schema, event.to_avro())
    assert event.to_bytes() == body.getvalue()
    body.seek(0)
    return type(event).from_avro(fastavro.schemaless_reader(body, schema, None))


def test_every_kind_of_field_comes_back_as_it_was_written(
    generated: ModuleType, tmp_path: Path
) -> None:
    plain = shape(generated)
    full = shape(
        generated,
        maybe="yes",
        list=(1, 2),
        map={"a": 1},
        other=generated.Inner(depth=3),
        exactly=datetime(2030, 1, 1, 12, 0, 0, 123456, tzinfo=UTC),
    )
    assert there_and_back(plain, tmp_path) == plain
    assert there_and_back(full, tmp_path) == full


def test_defaults_are_those_of_the_schema(generated: ModuleType) -> None:
    made = shape(generated)
    assert made.truth is True
    assert (made.small, made.fine, made.said) == (-1, 0.5, 'a "quoted" line\n')
    assert (made.maybe, made.other, made.exactly) == (None, None, None)
    assert (made.list, made.map) == ((), {})
    assert made.colour is generated.Colour.RED


def test_a_generated_event_cannot_be_changed(generated: ModuleType) -> None:
    with pytest.raises(FrozenInstanceError):
        shape(generated).large = 0
    assert not hasattr(shape(generated), "__dict__")


def test_a_field_without_a_default_must_be_given(generated: ModuleType) -> None:
    with pytest.raises(TypeError, match="depth"):
        generated.Inner()


def test_only_the_records_that_have_a_file_are_events(generated: ModuleType) -> None:
    assert {"tests.Shape": generated.Shape} == generated.EVENTS
    assert generated.Inner.SCHEMA == "tests.Inner"


def test_documentation_becomes_docstrings(generated: ModuleType) -> None:
    assert generated.Shape.__doc__.startswith("One field of each kind.")
    assert "price: A decimal." in generated.Shape.__doc__
    assert generated.Colour.__doc__ == "Colours."


def test_a_type_of_another_file_is_found_by_its_full_name(tmp_path: Path) -> None:
    folder = written(
        tmp_path,
        record(field("tests.Part"), name="Alpha"),
        record(field("int"), name="Part"),
    )
    source = render(folder)
    assert source.index("class Part(Event)") < source.index("class Alpha(Event)")


ENUM = {"type": "enum", "name": "Colour", "doc": "Colours.", "symbols": ["RED"]}

REFUSED: dict[str, tuple[Json, str]] = {
    "a default of another kind": (
        record(field({"type": "array", "items": "int"}, default=[1])),
        r"Subject\.field: default \[1\] is not supported",
    ),
    "a default that is no value of the type": (
        record(field("int", default="many")),
        r'Subject\.field: default "many" is not supported',
    ),
    "a field without doc": (
        record({"name": "field", "type": "int"}),
        r"Subject\.field has no doc",
    ),
    "a field without doc inside": (
        record(field(record({"name": "deep", "type": "int"}, name="Inner"))),
        r"Inner\.deep has no doc",
    ),
    "a keyword": (
        record({"name": "class", "type": "int", "doc": "A field."}),
        r"Subject\.class is a Python keyword",
    ),
    "a logical type that is not known": (
        record(field({"type": "long", "logicalType": "time-micros"})),
        r"Subject\.field: .*time-micros.* is not supported",
    ),
    "a record inside itself": (
        record(field(["null", "Subject"], default=None)),
        r"tests\.Subject contains itself",
    ),
    "a record without doc": (
        {key: value for key, value in record(field("int")).items() if key != "doc"},
        r"Subject has no doc",
    ),
    "a type that nobody defines": (
        record(field("tests.Nowhere")),
        r"Subject\.field: tests\.Nowhere is defined nowhere",
    ),
    "a union in the other order": (
        record(field(["string", "null"])),
        r'Subject.*: a union must be \["null", T\]',
    ),
    "a union of three": (
        record(field(["null", "int", "string"], default=None)),
        r'Subject.*: a union must be \["null", T\]',
    ),
    "a union of two types": (
        record(field(["int", "string"])),
        r'Subject.*: a union must be \["null", T\]',
    ),
    "an enum default outside its symbols": (
        record(field({**ENUM, "default": "BLUE"})),
        r"Colour: an enum must have a default symbol",
    ),
    "an enum without default": (
        record(field(ENUM)),
        r"Colour: an enum must have a default symbol",
    ),
    "an enum without doc": (
        record(field({"type": "enum", "name": "Colour", "symbols": ["RED"], "default": "RED"})),
        r"Colour has no doc",
    ),
    "fixed": (
        record(field({"type": "fixed", "name": "Hash", "size": 16})),
        r"Subject\.field: .*fixed.* is not supported",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_breaks_a_rule_is_refused_with_its_place(what: str, tmp_path: Path) -> None:
    schema, message = REFUSED[what]
    with pytest.raises(SchemaInvalid, match=message):
        render(written(tmp_path, schema))


def test_records_that_contain_each_other_are_refused_with_the_way_round(tmp_path: Path) -> None:
    folder = written(
        tmp_path,
        record(field("tests.Two"), name="One"),
        record(field({"type": "array", "items": "tests.One"}), name="Two"),
    )
    with pytest.raises(SchemaInvalid, match=r"tests\.One > tests\.Two"):
        render(folder)


def test_a_name_that_two_files_define_is_refused(tmp_path: Path) -> None:
    written(tmp_path, record(field("int")))
    (tmp_path / "again_v1.avsc").write_text(json.dumps(record(field("int"))))
    with pytest.raises(SchemaInvalid, match=r"subject_v1\.avsc: tests\.Subject is defined twice"):
        render(tmp_path)


def test_two_classes_of_one_name_in_two_namespaces_are_refused(tmp_path: Path) -> None:
    written(tmp_path, record(field("int")))
    (tmp_path / "twin_v1.avsc").write_text(
        json.dumps({**record(field("int")), "namespace": "elsewhere"})
    )
    with pytest.raises(SchemaInvalid, match="Subject"):
        render(tmp_path)


def test_a_file_that_is_no_json_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "broken_v1.avsc").write_text("{")
    with pytest.raises(SchemaInvalid, match=r"broken_v1\.avsc"):
        render(tmp_path)


def test_a_check_shows_what_is_stale_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "events.py"
    target.write_text("stale = True\n")
    monkeypatch.setattr(generate, "TARGET", target)
    monkeypatch.setattr(sys, "argv", ["generate", "--check"])
    assert generate.main() == 1
    shown = capsys.readouterr()
    assert "-stale = True" in shown.out
    assert "stale" in shown.err
    assert target.read_text() == "stale = True\n"
    monkeypatch.setattr(sys, "argv", ["generate"])
    assert generate.main() == 0
    monkeypatch.setattr(sys, "argv", ["generate", "--check"])
    assert generate.main() == 0
