"""Answers that are JSON and satisfy a schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import referencing

from schemas.policies import JsonSchemaRule
from streams.guards.found import Detector, Hit

# A foreign $ref is not fetched over the network: with this registry it is not found.
_NOWHERE: referencing.Registry[Any] = referencing.Registry()


def json_schema(rule: JsonSchemaRule) -> Detector:
    """Returns what hits all of a text that is no JSON, or that the schema does not take."""
    kind = jsonschema.validators.validator_for(
        rule.json_schema, default=jsonschema.Draft202012Validator
    )
    validator = kind(rule.json_schema, registry=_NOWHERE)

    def find(text: str, begin: int) -> Iterator[Hit]:
        try:
            said = json.loads(text)
        except ValueError:
            yield Hit(0, len(text), "NO_JSON", "deny")
            return
        if not validator.is_valid(said):
            yield Hit(0, len(text), "NOT_OF_THE_SCHEMA", "deny")

    return Detector(find=find, says="something else than JSON of the schema", whole=True)
