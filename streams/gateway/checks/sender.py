"""Who asks, and where the answer goes."""

from __future__ import annotations

from datetime import datetime

from infra.catalog import CatalogView
from infra.identity import quoted, unproven
from schemas.events import (
    Reason,
    Refusal,
)
from streams.gateway.asked import Asked


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
