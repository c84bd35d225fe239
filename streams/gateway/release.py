"""Release: what becomes of an answer, or of the lack of one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from infra.catalog import CatalogView
from schemas.events import (
    Attempt,
    InferenceCompleted,
    InferencePart,
    InferenceReplied,
    InferenceRouted,
    Reason,
    Refusal,
)
from schemas.topics import (
    INFERENCE_RECORDED,
    INFERENCE_ROUTED,
    Outgoing,
)
from streams.gateway.reply import claimed, epoch_ms, to_caller
from streams.gateway.rows import row

# Faults of the route, not of the caller: another route may do better.
FALL_BACK_ON = frozenset(
    {
        Reason.PROVIDER_FAILED,
        Reason.PROVIDER_TIMEOUT,
        Reason.PROVIDER_UNAVAILABLE,
        Reason.RATE_LIMITED,
        Reason.STREAM_CUT,
    }
)


def release(completed: InferenceCompleted, view: CatalogView, now: datetime) -> Iterator[Outgoing]:
    """Sends the answer to the caller and records it, or tries the next route."""
    routed = completed.routed
    refusal = completed.refusal
    if refusal and refusal.reason in FALL_BACK_ON and now < routed.request.deadline:
        # A pool that the catalog names no more has no topic, or nobody who reads it.
        left = tuple(route for route in routed.fallbacks if route.pool in view.pools)
        if left:
            yield fall_back(replace(routed, fallbacks=left), refusal, now)
            return
    replied = InferenceReplied(
        request_id=routed.request.request_id,
        attempt=routed.attempt,
        epoch=epoch_ms(completed.started_at),
        seq=completed.parts,
        completion=completed.completion,
        refusal=refusal,
        tried=routed.tried,
        claim=claimed(routed),
        replied_at=now,
    )
    yield from to_caller(routed.request.tenant, routed.request.reply_to, replied, view)
    yield Outgoing(INFERENCE_RECORDED, row(completed, now))


def fall_back(routed: InferenceRouted, refusal: Refusal, now: datetime) -> Outgoing:
    """Returns the request on its way to the next route; each failure shortens the list."""
    following, *rest = routed.fallbacks
    onward = replace(
        routed,
        route=following,
        fallbacks=tuple(rest),
        attempt=routed.attempt + 1,
        tried=(*routed.tried, Attempt(route=routed.route, refusal=refusal)),
        routed_at=now,
    )
    return Outgoing(INFERENCE_ROUTED.member(following.pool), onward)


def release_part(part: InferencePart, view: CatalogView, now: datetime) -> Iterator[Outgoing]:
    """Sends a part on to the caller, unless nobody waits for it any more.

    Parts say not which record they answer; what is final does, and has the whole text again.
    """
    if now < part.deadline:
        replied = InferenceReplied(
            request_id=part.request_id,
            attempt=part.attempt,
            epoch=part.epoch,
            seq=part.seq,
            delta=part.delta,
            replied_at=now,
        )
        yield from to_caller(part.tenant, part.reply_to, replied, view)
