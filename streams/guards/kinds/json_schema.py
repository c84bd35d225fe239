"""Answers that are JSON and satisfy a schema."""

from __future__ import annotations

import json
from collections.abc import Iterator

from schemas.jsonschemas import bounded
from schemas.policies import JsonSchemaRule
from streams.guards.found import Detector, Hit


def json_schema(rule: JsonSchemaRule) -> Detector:
    """Returns what hits all of a text that is no JSON, or that the schema does not take."""

    def within(text: str, begin: int, seconds: float) -> Iterator[Hit]:
        try:
            said = json.loads(text)
        except (RecursionError, ValueError):
            yield Hit(0, len(text), "NO_JSON", "deny")
            return
        if not bounded(rule.json_schema, seconds).is_valid(said):
            yield Hit(0, len(text), "NOT_OF_THE_SCHEMA", "deny")

    return Detector(within=within, says="something else than JSON of the schema", whole=True)
