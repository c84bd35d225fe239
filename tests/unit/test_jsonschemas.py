"""Schemas that others wrote, where they are none."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.jsonschemas import require_schema


@pytest.mark.parametrize(
    "schema",
    [
        {"$schema": {}},
        {"$schema": 7},
        {"properties": []},
        {"type": "no such type"},
        {"required": [{}]},
    ],
)
def test_what_is_no_schema_is_said_to_be_none(schema: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="this is no JSON Schema"):
        require_schema(schema)
