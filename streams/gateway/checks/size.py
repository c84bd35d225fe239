"""How large a request may be."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from infra.catalog import CatalogView
from schemas.events import (
    InferenceRequested,
    Reason,
    Refusal,
)
from schemas.topics import (
    INFERENCE_REQUESTED,
)
from streams.gateway.asked import Asked

# What holds a text in its record; without it, empty ones would come at no cost in any number.
ROOM_BYTES = 8


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


def _too_large(message: str) -> Refusal:
    return Refusal(reason=Reason.REQUEST_TOO_LARGE, message=message, field="messages")


def _texts(request: InferenceRequested) -> Iterator[str]:
    yield from (request.request_id, request.tenant, request.principal, request.endpoint)
    yield from (request.reply_to, request.tool_choice, request.json_schema or "")
    yield from (request.version or "", request.parts_to or "")
    yield from request.sampling.stop
    yield from request.inputs
    yield from (request.query or "", request.search or "")
    for message in request.messages:
        yield from (message.content, message.name or "", message.tool_call_id or "")
        for call in message.tool_calls:
            yield from (call.id, call.name, call.arguments)
    for tool in request.tools:
        yield from (tool.name, tool.description, tool.parameters)
    for tag in request.tags.items():
        yield from tag
