"""Arguments of a call, as they must be before anything is called with them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jsonschema
import regex
from jsonschema.exceptions import SchemaError, ValidationError
from referencing.exceptions import Unresolvable

from schemas.jsonschemas import OFFLINE, kind_of, require_schema, unique_items
from workers.tools import Fault, ToolFailed

# Processor time that checking may take: a few lines of schema can be years of work.
CHECK_S = 1.0
MOST_QUOTED = 200

# What jsonschema calls for a keyword of a schema.
Keyword = Callable[[Any, Any, Any, Any], Iterable[ValidationError] | None]


def read_arguments(texts: tuple[str, ...], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of a call; may take ``CHECK_S``, so never in a loop.

    Args:
        texts: The inputs of the request: one JSON object.
        parameters: JSON Schema of the arguments.

    Raises:
        ToolFailed: They are none, or do not fit; says where, and what is asked for there.
    """
    if len(texts) != 1:
        raise ToolFailed(Fault.ARGUMENTS, "the arguments are one text in inputs: a JSON object")
    try:
        found = json.loads(texts[0])
        json.dumps(found, allow_nan=False, ensure_ascii=False).encode()
    except (RecursionError, ValueError):
        raise ToolFailed(Fault.ARGUMENTS, "the arguments are no JSON") from None
    if not isinstance(found, dict):
        raise ToolFailed(Fault.ARGUMENTS, "the arguments are no JSON object")
    _check(found, parameters)
    return found


def _check(arguments: dict[str, Any], parameters: Mapping[str, Any]) -> None:
    try:
        require_schema(parameters)
    except ValueError as problem:
        raise ToolFailed(Fault.SOURCE, f"its parameters cannot be checked by: {problem}") from None
    try:
        wrong = next(iter(_validator(parameters, time.thread_time() + CHECK_S)(arguments)), None)
    except (RecursionError, TimeoutError, Unresolvable, SchemaError, regex.error):
        raise ToolFailed(Fault.SOURCE, "its parameters cannot be checked by in time") from None
    if wrong is not None:
        asked = json.dumps(wrong.validator_value, default=str)[:MOST_QUOTED]
        where = f"at {wrong.json_path}: {wrong.validator} is {asked}"
        raise ToolFailed(Fault.ARGUMENTS, f"the arguments do not fit the parameters {where}")


def _validator(
    schema: Mapping[str, Any], until: float
) -> Callable[[object], Iterator[ValidationError]]:
    """Returns what yields errors, and gives up with TimeoutError at a time of the processor."""
    kind = kind_of(schema)
    keywords = {**kind.VALIDATORS, "pattern": _pattern(until), "uniqueItems": unique_items}
    bounded = {name: _bounded(keyword, until) for name, keyword in keywords.items()}
    found = jsonschema.validators.extend(kind, bounded)(schema, registry=OFFLINE)  # type: ignore[no-untyped-call]
    errors: Callable[[object], Iterator[ValidationError]] = found.iter_errors
    return errors


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
