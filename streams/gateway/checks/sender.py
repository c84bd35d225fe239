"""Who asks, and where the answer goes."""

from __future__ import annotations

from datetime import datetime

from infra.catalog import CatalogView
from infra.identity import answered_as, may_for_others, quoted, unproven
from schemas.events import (
    Reason,
    Refusal,
)
from schemas.topics import BEHIND
from streams.gateway.asked import Asked


def sender_proven(asked: Asked, view: CatalogView, now: datetime) -> Refusal | None:
    """Who asks must be known; what it takes is the table in ``infra/identity.py``."""
    return unproven(asked.sender, view, now)


def reply_address_owned(asked: Asked, view: CatalogView, now: datetime) -> Refusal | None:
    """The address must be of the tenant of who signed: else a caller could write into any topic."""
    request = asked.request
    tenant = answered_as(asked.sender, view, now)
    known = view.tenants.get(tenant)
    allowed = known.reply_topics if known else ()
    if request.reply_to in allowed:
        return None
    whose = tenant if tenant == request.tenant else f"{tenant}, whose principal signed"
    return Refusal(
        reason=Reason.REPLY_ADDRESS_FORBIDDEN,
        message=f"{quoted(request.reply_to)} is no reply topic of {whose}; "
        f"use {' or '.join(allowed) or 'another key'}",
        field="reply_to",
    )


def parts_address_owned(asked: Asked, view: CatalogView, now: datetime) -> Refusal | None:
    """Parts may go elsewhere than the answer: to the tenant; to any where others are asked for."""
    request = asked.request
    if request.parts_to is None:
        return None
    known = view.tenants.get(request.tenant)
    allowed = known.reply_topics if known else ()
    if request.parts_to in allowed:
        return None
    # Whoever a run answers may ask for others itself.
    if view.has_reply_topic(request.parts_to) and may_for_others(asked.sender, view):
        return None
    return Refusal(
        reason=Reason.REPLY_ADDRESS_FORBIDDEN,
        message=f"{quoted(request.parts_to)} is no reply topic of {request.tenant}; "
        f"use {' or '.join(allowed) or 'another key'}, or leave it out",
        field="parts_to",
    )


def id_own(asked: Asked, view: CatalogView, now: datetime) -> Refusal | None:
    """Only who may ask for others, as runs of agents do, gives ids that say whose they are."""
    # One slash at its end makes two with those that runs put behind it.
    if BEHIND not in f"{asked.request.request_id}/" or may_for_others(asked.sender, view):
        return None
    return Refusal(
        reason=Reason.REQUEST_INVALID,
        message=f"an id has no {BEHIND} in it and no / at its end: so run those of what agents "
        "ask for",
        field="request_id",
    )
