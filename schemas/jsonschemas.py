"""JSON Schemas that others wrote: what checking by them may not do, and not take."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jsonschema
import referencing
import regex
from jsonschema.exceptions import SchemaError, ValidationError

# jsonschema would fetch a foreign $ref over the network: with this registry it finds nothing.
OFFLINE: referencing.Registry[bool | Mapping[str, Any]] = referencing.Registry()
# Checking a schema takes time that grows with it; of all tools of a request together.
MOST_CHARACTERS = 32 * 1024
REFERENCES = frozenset({"$dynamicRef", "$recursiveRef", "$ref"})
# Their patterns cannot be stopped; what they leave over is looked for without counting.
UNBOUNDED = frozenset({"patternProperties", "unevaluatedItems", "unevaluatedProperties"})

# What jsonschema calls for a keyword of a schema.
Keyword = Callable[[Any, Any, Any, Any], Iterable[ValidationError] | None]


def kind_of(schema: Mapping[str, Any]) -> Any:
    """Returns the class of validators of the dialect that a schema is written in."""
    return jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)


def require_schema(schema: Mapping[str, Any]) -> None:
    """Makes sure that a schema can be checked by, and that its time can be bounded.

    Raises:
        ValueError: It is no JSON Schema, refers to something outside itself, or has
            a keyword of which nobody knows how long it takes.
    """
    if not isinstance(schema.get("$schema", ""), str):
        raise ValueError("this is no JSON Schema: its $schema is no text")
    try:
        kind_of(schema).check_schema(schema)
        for name, value in _members(schema):
            if name in REFERENCES and isinstance(value, str) and not value.startswith("#"):
                raise ValueError("a schema refers to nothing outside itself")
            if name in UNBOUNDED:
                raise ValueError(f"a schema here knows no {name}")
    except SchemaError as error:
        where = f"{error.json_path} breaks {error.validator}"
        raise ValueError(f"this is no JSON Schema: {where}") from None
    except RecursionError:
        raise ValueError("this is no JSON Schema: it is too deep") from None


def of_one_dialect(schema: Any) -> Any:
    """Returns a schema whose parts name no dialect.

    From a part that names one on, jsonschema would go on with validators of its own: whatever
    bounds the time of those that are asked would bound nothing there.
    """
    if isinstance(schema, Mapping):
        return {
            name: of_one_dialect(value)
            for name, value in schema.items()
            if name != "$schema" or not isinstance(value, str)
        }
    return [of_one_dialect(each) for each in schema] if isinstance(schema, list) else schema


def unique_items(
    validator: Any, wanted: object, instance: object, schema: object
) -> Iterator[ValidationError]:
    """Yields an error where a list holds something twice: in time that grows with the list.

    It goes in the place of jsonschema's own, which compares all with all.
    """
    if not wanted or not isinstance(instance, list):
        return
    said = {json.dumps(_plain(item), sort_keys=True) for item in instance}
    if len(said) < len(instance):
        yield ValidationError("items are not unique")


def bounded(schema: Mapping[str, Any], seconds: float) -> Any:
    """Returns a validator that gives up with ``TimeoutError`` after so long on the processor.

    A few lines of schema whose parts refer to each other twice are years of work.

    Args:
        schema: One that ``require_schema`` takes.
        seconds: Of this thread's time, from now on.
    """
    until = time.thread_time() + seconds
    kind = kind_of(schema)
    keywords = {**kind.VALIDATORS, "pattern": _pattern(until), "uniqueItems": unique_items}
    timed = {name: _timed(keyword, until) for name, keyword in keywords.items()}
    kind = jsonschema.validators.extend(kind, timed)  # type: ignore[no-untyped-call]
    return kind(of_one_dialect(schema), registry=OFFLINE)


def _timed(follow: Keyword, until: float) -> Keyword:
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


def _plain(value: Any) -> Any:
    """Returns a value in which numbers that are equal are written the same way."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return value


def _members(value: Any) -> Iterator[tuple[str, Any]]:
    """Yields the members of all objects in a JSON value."""
    left = [value]
    while left:
        here = left.pop()
        if isinstance(here, Mapping):
            yield from here.items()
            left.extend(here.values())
        elif isinstance(here, list):
            left.extend(here)
