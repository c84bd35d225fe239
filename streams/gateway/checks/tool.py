"""What a function is called with: arguments, and which of its versions."""

from __future__ import annotations

from datetime import datetime

from infra.catalog import CatalogView, Endpoint
from schemas.events import Reason, Refusal, Task
from schemas.openai import parsed
from streams.gateway.asked import Asked
from streams.gateway.routing import of_version


def arguments_sensible(asked: Asked, view: CatalogView, now: datetime) -> Refusal | None:
    """Arguments are one JSON object; whether they fit, whoever runs the function says."""
    request = asked.request
    if request.task is not Task.TOOL:
        return None
    if len(request.inputs) == 1 and isinstance(parsed(request.inputs[0]), dict):
        return None
    return Refusal(
        reason=Reason.REQUEST_INVALID,
        message="inputs holds a call's arguments: exactly one text, which is a JSON object",
        field="inputs",
    )


def version_there(asked: Asked, view: CatalogView, now: datetime) -> Refusal | None:
    """A function runs in a version that it has; nothing else is asked by versions."""
    request = asked.request
    if request.version is not None and request.task is not Task.TOOL:
        return Refusal(
            reason=Reason.REQUEST_INVALID,
            message=f"{request.task} takes no version: only functions are called by theirs",
            field="version",
        )
    found = of_version(request, view.endpoints[request.endpoint], view)
    return None if isinstance(found, Endpoint) else found
