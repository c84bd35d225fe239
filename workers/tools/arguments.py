"""Arguments of a call, as they must be before anything is called with them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import regex
from jsonschema.exceptions import SchemaError
from referencing.exceptions import Unresolvable

from schemas.jsonschemas import bounded, require_schema
from workers.tools import Fault, ToolFailed

# Processor time that checking may take: a few lines of schema can be years of work.
CHECK_S = 1.0
MOST_QUOTED = 200


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
        wrong = next(bounded(parameters, CHECK_S).iter_errors(arguments), None)
    except (RecursionError, TimeoutError, Unresolvable, SchemaError, regex.error):
        raise ToolFailed(Fault.SOURCE, "its parameters cannot be checked by in time") from None
    if wrong is not None:
        asked = json.dumps(wrong.validator_value, default=str)[:MOST_QUOTED]
        where = f"at {wrong.json_path}: {wrong.validator} is {asked}"
        raise ToolFailed(Fault.ARGUMENTS, f"the arguments do not fit the parameters {where}")
