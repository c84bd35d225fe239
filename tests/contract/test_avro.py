"""The schemas themselves: whole, documented, and changed only on purpose."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastavro
import pytest

from schemas.avro import AVSC, SchemaInvalid, definitions, fingerprint, roots, whole
from schemas.events import EVENTS

FINGERPRINTS = Path(__file__).with_name("fingerprints.json")
# Accepts a wanted change of the contract.
ACCEPT = "python -m tests.contract.test_avro"


def fingerprints() -> dict[str, str]:
    """Returns the fingerprint of each event's schema in Avro's parsing canonical form."""
    return {name: fingerprint(name) for name in sorted(EVENTS)}


def parts(schema: Any) -> Iterator[Any]:
    """Yields every schema inside a schema."""
    yield schema
    if isinstance(schema, list):
        for each in schema:
            yield from parts(each)
    elif isinstance(schema, dict):
        for field in schema.get("fields", ()):
            yield from parts(field["type"])
        for key in ("items", "values"):
            if key in schema:
                yield from parts(schema[key])


def test_the_contract_has_not_changed_by_accident() -> None:
    accepted = json.loads(FINGERPRINTS.read_text())
    assert fingerprints() == accepted, f"if the change is wanted, run: {ACCEPT}"


@pytest.mark.parametrize("name", sorted(EVENTS))
def test_a_whole_schema_stands_alone(name: str) -> None:
    parsed = fastavro.parse_schema(whole(name))
    assert isinstance(parsed, dict)
    assert parsed["name"] == name


@pytest.mark.parametrize("name", sorted(EVENTS))
def test_a_whole_schema_defines_each_type_once(name: str) -> None:
    defined = Counter(
        part["name"]
        for part in parts(whole(name))
        if isinstance(part, dict) and part["type"] in ("record", "enum")
    )
    assert set(defined.values()) == {1}


def test_every_file_is_named_after_its_event_and_major() -> None:
    for name, path in roots().items():
        last = name.rpartition(".")[2]
        snake = "".join(f"_{c.lower()}" if c.isupper() else c for c in last).lstrip("_")
        assert path.name == f"{snake}_v1.avsc"


def test_every_record_lies_in_a_namespace_of_ours() -> None:
    assert all(name.startswith("tessera.") for name in definitions())


def test_making_a_schema_whole_leaves_the_definitions_alone() -> None:
    before = json.dumps(definitions())
    whole("tessera.inference.InferenceCompleted")
    assert json.dumps(definitions()) == before


def test_a_type_that_no_file_defines_is_named(tmp_path: Path) -> None:
    schema = {
        "type": "record",
        "name": "a.R",
        "fields": [{"name": "x", "type": {"type": "array", "items": "a.Nowhere"}}],
    }
    (tmp_path / "r_v1.avsc").write_text(json.dumps(schema))
    with pytest.raises(SchemaInvalid, match=r"a\.Nowhere is used but no \.avsc file defines it"):
        whole("a.R", tmp_path)


def test_what_is_no_record_cannot_be_made_whole() -> None:
    with pytest.raises(SchemaInvalid, match="Nothing"):
        whole("tessera.inference.Nothing", AVSC)


if __name__ == "__main__":
    FINGERPRINTS.write_text(json.dumps(fingerprints(), indent=2) + "\n")
