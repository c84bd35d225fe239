"""What a provider checks before it asks a model and after the model has answered.

A schema given as text must be a JSON Schema, and what it was given for must satisfy it. Engines
promise the second; it is checked all the same, because a caller builds on it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any

import jsonschema
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.protocols import Validator
from referencing.exceptions import Unresolvable

from schemas.events import (
    Completion,
    FinishReason,
    InferenceRequested,
    Reason,
    Refusal,
    Role,
    Task,
    ToolCall,
)
from schemas.jsonschemas import OFFLINE, kind_of, of_one_dialect, unique_items
from schemas.openai import TOOL_CHOICES
from workers.providers import ProviderRefused

REFERENCES = 2_000
# Of all vectors of an answer together: records of 16 MiB carry 4 bytes of each, and the request.
MOST_NUMBERS = 2048 * 1024
# Of the hits of an answer: its row must fit a record, too.
MOST_FOUND_BYTES = 4 * 1024 * 1024
Keyword = Callable[[Any, Any, Any, Any], Iterable[ValidationError] | None]

CHAT = frozenset({Task.CHAT})
# Whatever else ends an answer says itself that it is not whole.
CUT = frozenset({FinishReason.CONTENT_FILTER, FinishReason.LENGTH})


def require_answerable(request: InferenceRequested, tasks: frozenset[Task] = CHAT) -> None:
    """Makes sure that a request can be put to a model at all.

    Args:
        request: The request.
        tasks: What the provider can be asked for.

    Raises:
        ProviderRefused: It cannot; the refusal names the field.
    """
    if request.task not in tasks:
        message = f"the provider behind this route does no {request.task.lower()}"
        raise ProviderRefused(Refusal(reason=Reason.ROUTE_UNFIT, message=message, field="task"))
    if request.task is not Task.CHAT:
        if not request.inputs:
            raise _invalid("inputs", "there is at least one text")
        if request.task is Task.RERANK and not request.query:
            raise _invalid("query", "documents are ranked by a query")
        return
    if not request.messages or any(turn.role is Role.UNKNOWN for turn in request.messages):
        raise _invalid("messages", "every conversation has turns, each with a known role")
    if request.json_schema is not None:
        _validator(request.json_schema, "json_schema")
    for tool in request.tools:
        _validator(tool.parameters, "tools")
    names = {tool.name for tool in request.tools}
    if request.tool_choice not in TOOL_CHOICES | names:
        raise _invalid("tool_choice", "it is auto, none, required or the name of a tool offered")
    if request.tool_choice == "required" and not names:
        raise _invalid("tool_choice", "a tool is required and none is offered")


def require_kept(completion: Completion, request: InferenceRequested) -> None:
    """Makes sure that a completion keeps to the schemas of its request.

    A completion that was cut at max_tokens is left alone: its finish reason says so.

    Raises:
        ProviderRefused: It does not; the refusal says where, without the text.
    """
    if completion.finish_reason in CUT:
        return
    try:
        for call in completion.tool_calls:
            _check(call.arguments, _parameters(call, request), f"the arguments of {call.name}")
        if request.json_schema is not None and not completion.tool_calls:
            _check(completion.content, request.json_schema, "the completion")
    except ProviderRefused as broken:
        # It was produced, so it is paid for.
        raise ProviderRefused(broken.refusal, completion.usage) from None


def require_carriable(completion: Completion) -> None:
    """Makes sure that an event can carry the vectors of a completion, and what was found.

    Raises:
        ProviderRefused: There is too much of them.
    """
    if len((completion.found or "").encode()) > MOST_FOUND_BYTES:
        refusal = Refusal(
            reason=Reason.REQUEST_TOO_LARGE,
            message=f"what was found has more than {MOST_FOUND_BYTES} bytes: ask for fewer hits, "
            "fewer columns, or without vectors",
            field="search",
        )
        raise ProviderRefused(refusal, completion.usage)
    if sum(map(len, completion.vectors)) > MOST_NUMBERS:
        refusal = Refusal(
            reason=Reason.REQUEST_TOO_LARGE,
            message=f"the vectors have more than {MOST_NUMBERS} numbers: ask for fewer at a time",
            field="inputs",
        )
        raise ProviderRefused(refusal, completion.usage)


def _parameters(call: ToolCall, request: InferenceRequested) -> str:
    for tool in request.tools:
        if tool.name == call.name:
            return tool.parameters
    raise _broken("the model called a tool that it was not offered")


def _check(document: str, schema: str, what: str) -> None:
    try:
        value = json.loads(document)
    except (ValueError, RecursionError):
        raise _broken(f"{what}: no JSON") from None
    validator = _validator(schema, "json_schema")
    # A pattern can keep Python's re busy for years; the engine has already kept to it.
    if '"pattern' in json.dumps(validator.schema):
        return
    try:
        error = next(iter(_bounded(validator).iter_errors(value)), None)
    except (Unresolvable, RecursionError):
        return
    if isinstance(error, ValidationError):
        raise _broken(f"{what}: {error.json_path} breaks the schema's {error.validator}")


def _bounded(validator: Validator) -> Validator:
    """Returns a validator that gives up with RecursionError after so many references.

    A few lines of schema whose parts refer to each other twice are years of work.
    """
    budget = iter(range(REFERENCES))

    def bounded(follow: Keyword) -> Keyword:
        def keyword(
            at: Validator, target: object, instance: object, schema: object
        ) -> Iterator[ValidationError]:
            if next(budget, None) is None:
                raise RecursionError
            yield from follow(at, target, instance, schema) or ()

        return keyword

    known = {name: bounded(rule) for name, rule in validator.VALIDATORS.items() if "Ref" in name}
    known["$ref"] = bounded(validator.VALIDATORS["$ref"])
    known["uniqueItems"] = unique_items
    kind = jsonschema.validators.extend(type(validator), known)  # type: ignore[no-untyped-call]
    found: Validator = kind(of_one_dialect(validator.schema), registry=OFFLINE)
    return found


@lru_cache(maxsize=256)
def _validator(schema: str, field: str) -> Validator:
    try:
        form = json.loads(schema)
        if not isinstance(form, dict):
            raise _invalid(field, "a JSON Schema is an object")
        kind = kind_of(form)
        kind.check_schema(form)
    except (ValueError, RecursionError):
        raise _invalid(field, "a JSON Schema is given as JSON text") from None
    except SchemaError as error:
        where = f"{error.json_path} breaks {error.validator}"
        raise _invalid(field, f"this is no JSON Schema: {where}") from None
    validator: Validator = kind(form, registry=OFFLINE)
    return validator


def _invalid(field: str, message: str) -> ProviderRefused:
    return ProviderRefused(Refusal(reason=Reason.REQUEST_INVALID, message=message, field=field))


def _broken(message: str) -> ProviderRefused:
    return ProviderRefused(Refusal(reason=Reason.ANSWER_UNKEPT, message=message))
