"""When nobody waits any more."""

from __future__ import annotations

from datetime import datetime, timedelta

from infra.catalog import CatalogView
from schemas.events import (
    Reason,
    Refusal,
)
from streams.gateway.asked import Asked


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
