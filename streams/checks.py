"""What a request must satisfy to be admitted: an ordered table of pure checks.

Each looks at one thing and returns a refusal or nothing; the first refusal wins. A new rule is one
function here and one line in ``CHECKS``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

from infra.catalog import CatalogView
from infra.grants import chain
from infra.identity import identity, quoted, unproven
from schemas.events import InferenceRequested, Reason, Refusal, Role
from schemas.kinds import CONTAINERS, OBJECTS, ROOT, Privilege
from schemas.openai import TOOL_CHOICES, parsed
from schemas.topics import INFERENCE_REQUESTED
from streams.asked import Asked

Check = Callable[[Asked, CatalogView, datetime], Refusal | None]

MAX_STOPS = 16
MAX_LOGPROBS = 20
# Checking a schema takes time that grows with it, and a worker serves others meanwhile.
MAX_SCHEMA_CHARACTERS = 32 * 1024
# Of an object's name: catalog.schema.name.
LEVELS = 3
# What holds a text in its record; without it, empty ones would come at no cost in any number.
ROOM_BYTES = 8

# Inclusive bounds by OpenAI's names. Over them every provider refuses, so the gateway does at once.
BOUNDS: dict[str, tuple[float, float]] = {
    "frequency_penalty": (-2, 2),
    "max_tokens": (1, 2**31 - 1),
    "presence_penalty": (-2, 2),
    "temperature": (0, 2),
    "top_k": (-1, 2**31 - 1),
    "top_logprobs": (0, MAX_LOGPROBS),
    "top_p": (1e-6, 1),
}


def first_refusal(asked: Asked, view: CatalogView, now: datetime) -> Refusal | None:
    """Returns what the first failing check says, or None when the request is admitted."""
    return next((refusal for check in CHECKS if (refusal := check(asked, view, now))), None)


def sender_proven(asked: Asked, view: CatalogView, now: datetime) -> Refusal | None:
    """Who asks must be known; what it takes is the table in ``infra/identity.py``."""
    return unproven(asked.sender, view, now)


def reply_address_owned(asked: Asked, view: CatalogView, now: datetime) -> Refusal | None:
    """The address must be the tenant's own: otherwise a caller could write into any topic."""
    request = asked.request
    allowed = view.tenants[request.tenant].reply_topics
    if request.reply_to in allowed:
        return None
    return Refusal(
        reason=Reason.REPLY_ADDRESS_FORBIDDEN,
        message=f"{quoted(request.reply_to)} is no reply topic of {request.tenant}; "
        f"use {' or '.join(allowed)}",
        field="reply_to",
    )


def deadline_ahead(asked: Asked, view: CatalogView, now: datetime) -> Refusal | None:
    """Nobody waits for an answer after the deadline, and nobody may wait for ever."""
    request = asked.request
    if request.deadline <= now:
        late = (now - request.deadline) // timedelta(milliseconds=1)
        return Refusal(
            reason=Reason.DEADLINE_EXPIRED,
            message=f"the deadline passed {late} ms before the gateway saw the request",
            field="deadline",
        )
    longest = timedelta(milliseconds=view.limits.max_deadline_ms)
    if request.deadline > now + longest:
        return Refusal(
            reason=Reason.REQUEST_INVALID,
            message=f"the deadline lies more than {view.limits.max_deadline_ms} ms ahead",
            field="deadline",
        )
    return None


def endpoint_known(asked: Asked, view: CatalogView, now: datetime) -> Refusal | None:
    """Only what the catalog names can be asked.

    That there is no such endpoint is said only to who would see it if there were one. To all others
    it is as if they lacked the privilege, so that nobody finds out names by asking.
    """
    name = asked.request.endpoint
    if name in view.endpoints:
        return None
    if not _sees(identity(asked.sender, view), name, view):
        return _unseen(asked, view)
    return Refusal(
        reason=Reason.ENDPOINT_UNKNOWN,
        message=f"there is no endpoint {quoted(name)}",
        field="endpoint",
    )


def query_granted(asked: Asked, view: CatalogView, now: datetime) -> Refusal | None:
    """Whoever asks needs QUERY; who does not even see the endpoint learns no more than that."""
    who, name = identity(asked.sender, view), asked.request.endpoint
    if view.access.may(who, Privilege.QUERY, name):
        return None
    if not _sees(who, name, view):
        return _unseen(asked, view)
    because = view.access.explain(who, Privilege.QUERY, name).because
    return Refusal(
        reason=Reason.PRIVILEGE_MISSING,
        message=f"{who} may not query {name}: {because}",
        field="endpoint",
    )


def size_allowed(asked: Asked, view: CatalogView, now: datetime) -> Refusal | None:
    """The texts of a request must fit the limit together.

    First of all checks: what tells of a request (a refusal, its row) must fit a record, too.
    """
    size = sum(len(text.encode()) + ROOM_BYTES for text in _texts(asked.request))
    if size > view.limits.max_request_bytes:
        return _too_large(
            f"the request carries {size} bytes of text; "
            f"at most {view.limits.max_request_bytes} are taken"
        )
    # So large a record was not moved to where its key belongs, where a copy of it would be known.
    if asked.size > INFERENCE_REQUESTED.max_bytes // 2:
        return _too_large(f"the record has {asked.size} bytes, most of them no text of a request")
    return None


def messages_sensible(asked: Asked, view: CatalogView, now: datetime) -> Refusal | None:
    """There must be something to answer, and each turn must be somebody's."""
    request = asked.request
    if not request.messages:
        return _invalid("messages", "messages is empty; give at least one")
    for index, message in enumerate(request.messages):
        if message.role is Role.UNKNOWN:
            return _invalid("messages", f"messages[{index}].role is not known here")
        if message.role is Role.TOOL and message.tool_call_id is None:
            return _invalid("messages", f"messages[{index}] answers a tool but names no call")
    return None


def sampling_sensible(asked: Asked, view: CatalogView, now: datetime) -> Refusal | None:
    """Sampling parameters must lie within OpenAI's bounds."""
    request = asked.request
    for field, (low, high) in BOUNDS.items():
        value = getattr(request.sampling, field)
        # Written so that NaN fails.
        if value is not None and not low <= value <= high:
            return _invalid(
                f"sampling.{field}", f"{field} is {value}; it must lie from {low:g} to {high:g}"
            )
    stop = request.sampling.stop
    if len(stop) > MAX_STOPS or "" in stop:
        return _invalid("sampling.stop", f"stop takes up to {MAX_STOPS} texts, none of them empty")
    return None


def schemas_sensible(  # noqa: PLR0911 - one return for each thing that can be wrong
    asked: Asked, view: CatalogView, now: datetime
) -> Refusal | None:
    """What is said to be JSON Schema must at least be a JSON object, and tools well named."""
    request = asked.request
    if len(request.json_schema or "") > MAX_SCHEMA_CHARACTERS:
        return _invalid("json_schema", f"a schema may have {MAX_SCHEMA_CHARACTERS} characters")
    if sum(len(tool.parameters) for tool in request.tools) > MAX_SCHEMA_CHARACTERS:
        return _invalid("tools", f"all parameters may have {MAX_SCHEMA_CHARACTERS} characters")
    if request.json_schema is not None and not _is_object(request.json_schema):
        return _invalid("json_schema", "json_schema is not the text of a JSON object")
    names = [tool.name for tool in request.tools]
    if len(set(names)) < len(names) or "" in names:
        return _invalid("tools", "each tool needs a name of its own")
    for tool in request.tools:
        if not _is_object(tool.parameters):
            return _invalid("tools", f"the parameters of {quoted(tool.name)} are no JSON object")
    if request.tool_choice not in TOOL_CHOICES and request.tool_choice not in names:
        return _invalid("tool_choice", "tool_choice must be auto, none, required, or a tool's name")
    if request.tool_choice == "required" and not names:
        return _invalid("tool_choice", "a tool is required and none is offered")
    return None


CHECKS: tuple[Check, ...] = (
    size_allowed,
    sender_proven,
    reply_address_owned,
    deadline_ahead,
    endpoint_known,
    query_granted,
    messages_sensible,
    sampling_sensible,
    schemas_sensible,
)


def _invalid(field: str, message: str) -> Refusal:
    return Refusal(reason=Reason.REQUEST_INVALID, message=message, field=field)


def _too_large(message: str) -> Refusal:
    return Refusal(reason=Reason.REQUEST_TOO_LARGE, message=message, field="messages")


def _sees(who: str, name: str, view: CatalogView) -> bool:
    """Returns whether somebody sees an object, or would see it if there were one of this name."""
    # A name of very many levels would take very long, and cannot exist.
    levels = chain(name) if name.count(".") == LEVELS - 1 else (ROOT,)
    there = next((level for level in levels if _exists(level, view)), ROOT)
    return view.access.holds(who, Privilege.BROWSE, there)


def _exists(name: str, view: CatalogView) -> bool:
    found = (view.entry(kind, name) for kind in (*OBJECTS, *CONTAINERS))
    return any(entry is not None and entry[1] is not None for entry in found)


def _unseen(asked: Asked, view: CatalogView) -> Refusal:
    return Refusal(
        reason=Reason.PRIVILEGE_MISSING,
        message=f"{identity(asked.sender, view)} may not query {quoted(asked.request.endpoint)}, "
        "or there is none; ask its owner for QUERY on it, and USE on its catalog and schema",
        field="endpoint",
    )


def _texts(request: InferenceRequested) -> Iterator[str]:
    yield from (request.request_id, request.tenant, request.principal, request.endpoint)
    yield from (request.reply_to, request.tool_choice, request.json_schema or "")
    yield from request.sampling.stop
    for message in request.messages:
        yield from (message.content, message.name or "", message.tool_call_id or "")
        for call in message.tool_calls:
            yield from (call.id, call.name, call.arguments)
    for tool in request.tools:
        yield from (tool.name, tool.description, tool.parameters)
    for tag in request.tags.items():
        yield from tag


def _is_object(text: str) -> bool:
    return isinstance(parsed(text), dict)
