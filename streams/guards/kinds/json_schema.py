"""Answers that are JSON and satisfy a schema."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jsonschema
import regex
from jsonschema.exceptions import ValidationError

from schemas.jsonschemas import OFFLINE, kind_of, of_one_dialect, unique_items
from schemas.policies import JsonSchemaRule
from streams.guards.found import Detector, Hit

# What jsonschema calls for a keyword of a schema.
Keyword = Callable[[Any, Any, Any, Any], Iterable[ValidationError] | None]


def json_schema(rule: JsonSchemaRule) -> Detector:
    """Returns what hits all of a text that is no JSON, or that the schema does not take."""

    def within(text: str, begin: int, seconds: float) -> Iterator[Hit]:
        try:
            said = json.loads(text)
        except (RecursionError, ValueError):
            yield Hit(0, len(text), "NO_JSON", "deny")
            return
        if not _validator(rule.json_schema, time.thread_time() + seconds).is_valid(said):
            yield Hit(0, len(text), "NOT_OF_THE_SCHEMA", "deny")

    return Detector(within=within, says="something else than JSON of the schema", whole=True)


def _validator(schema: dict[str, Any], until: float) -> Any:
    """Returns a validator that gives up with ``TimeoutError`` at a time of the processor.

    A few lines of schema whose parts refer to each other twice are years of work.
    """
    kind = kind_of(schema)
    keywords = {**kind.VALIDATORS, "pattern": _pattern(until), "uniqueItems": unique_items}
    bounded = {name: _bounded(keyword, until) for name, keyword in keywords.items()}
    kind = jsonschema.validators.extend(kind, bounded)  # type: ignore[no-untyped-call]
    return kind(of_one_dialect(schema), registry=OFFLINE)


def _bounded(follow: Keyword, until: float) -> Keyword:
    def keyword(
        validator: Any, wanted: object, instance: object, schema: object
    ) -> Iterator[ValidationError]:
        _left(until)
        yield from follow(validator, wanted, instance, schema) or ()

    return keyword


def _pattern(until: float) -> Keyword:
    def keyword(
        validator: Any, wanted: str, instance: object, schema: object
    ) -> Iterator[ValidationError]:
        if isinstance(instance, str):
            compiled = regex.compile(wanted, regex.VERSION0)
            if not compiled.search(instance, timeout=_left(until)):
                yield ValidationError("a pattern is not matched")

    return keyword


def _left(until: float) -> float:
    left = until - time.thread_time()
    if left <= 0:
        raise TimeoutError
    return left
