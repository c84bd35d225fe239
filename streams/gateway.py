"""The gateway: who may ask what, where it goes, and what the caller hears.

Two decisions, both pure. ``admit`` stands before the workers, ``release`` behind them; what they
need of each other travels inside the events. Policy on requests is the table in ``checks.py``;
policy on answers has its place in ``release``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from infra.catalog import CatalogView
from schemas.events import (
    Attempt,
    InferenceCompleted,
    InferencePart,
    InferenceRecorded,
    InferenceRefused,
    InferenceReplied,
    InferenceRequested,
    InferenceRouted,
    Outcome,
    Reason,
    Refusal,
)
from schemas.openai import completion_to_openai, request_to_openai
from schemas.topics import (
    INFERENCE_COMPLETED,
    INFERENCE_PARTS,
    INFERENCE_RECORDED,
    INFERENCE_REFUSED,
    INFERENCE_REQUESTED,
    INFERENCE_ROUTED,
    REPLY,
    Outgoing,
    Topic,
)
from streams.checks import first_refusal
from streams.steps import Fail, Runtime, Step, Work, steps

MILLISECOND = timedelta(milliseconds=1)

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

# How the row of a request that ended without a completion is marked.
OUTCOMES = {
    Reason.CANCELLED: Outcome.CANCELLED,
    Reason.CONTEXT_EXCEEDED: Outcome.REFUSED,
    Reason.REQUEST_INVALID: Outcome.REFUSED,
}


def admit(request: InferenceRequested, view: CatalogView, now: datetime) -> Iterator[Outgoing]:
    """Sends a request on its first route, or refuses it with a reply."""
    if refusal := first_refusal(request, view, now):
        yield from refuse(request, refusal, view, now)
        return
    endpoint = view.endpoints[request.endpoint]
    first, *fallbacks = endpoint.routes
    routed = InferenceRouted(
        request=request,
        route=first,
        fallbacks=tuple(fallbacks),
        # Without an output policy, parts spare themselves the way through release.
        parts_to=None if endpoint.output_policy else request.reply_to,
        routed_at=now,
    )
    yield Outgoing(INFERENCE_ROUTED.member(first.pool), routed)


def refuse(
    request: InferenceRequested, refusal: Refusal, view: CatalogView, now: datetime
) -> Iterator[Outgoing]:
    """Says that a request goes nowhere: to the caller, where there is an address, and to the log.

    A caller who gave a foreign address hears of it on the tenant's own; an unknown tenant has none.
    """
    if refusal.reason is Reason.REQUEST_TOO_LARGE:
        request = replace(request, messages=(), tools=(), json_schema=None, tags={})
    yield Outgoing(
        INFERENCE_REFUSED, InferenceRefused(request=request, refusal=refusal, refused_at=now)
    )
    if tenant := view.tenants.get(request.tenant):
        owned = request.reply_to in tenant.reply_topics
        yield Outgoing(
            REPLY.at(request.reply_to if owned else tenant.reply_topics[0]),
            InferenceReplied(request_id=request.request_id, refusal=refusal, replied_at=now),
        )


def release(completed: InferenceCompleted, view: CatalogView, now: datetime) -> Iterator[Outgoing]:
    """Sends the answer to the caller and records it, or tries the next route."""
    routed = completed.routed
    refusal = completed.refusal
    if refusal and refusal.reason in FALL_BACK_ON and routed.fallbacks and _waited_for(routed, now):
        yield fall_back(routed, refusal, now)
        return
    yield Outgoing(
        REPLY.at(routed.request.reply_to),
        InferenceReplied(
            request_id=routed.request.request_id,
            attempt=routed.attempt,
            epoch=_epoch_ms(completed.started_at),
            seq=completed.parts,
            completion=completed.completion,
            refusal=refusal,
            tried=routed.tried,
            replied_at=now,
        ),
    )
    yield Outgoing(INFERENCE_RECORDED, _row(completed, now))


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
    """Sends a part on to the caller, unless nobody waits for it any more."""
    if now < part.deadline:
        replied = InferenceReplied(
            request_id=part.request_id,
            attempt=part.attempt,
            epoch=part.epoch,
            seq=part.seq,
            delta=part.delta,
            replied_at=now,
        )
        yield Outgoing(REPLY.at(part.reply_to), replied)


def record_refusal(
    refused: InferenceRefused, view: CatalogView, now: datetime
) -> Iterator[Outgoing]:
    """Records a request that no route was tried for."""
    request = refused.request
    yield Outgoing(
        INFERENCE_RECORDED,
        InferenceRecorded(
            request_id=request.request_id,
            tenant=request.tenant,
            principal=request.principal,
            endpoint=request.endpoint,
            outcome=Outcome.REFUSED,
            reason=refused.refusal.reason,
            message=refused.refusal.message,
            request=_json(request_to_openai(request, request.endpoint)),
            requested_at=request.requested_at,
            elapsed_ms=_elapsed_ms(request, refused.refused_at),
            tags=request.tags,
        ),
    )


STEPS: Mapping[Topic[Any], Step] = {
    INFERENCE_COMPLETED: release,
    INFERENCE_PARTS: release_part,
    INFERENCE_REFUSED: record_refusal,
    INFERENCE_REQUESTED: admit,
}


def open_gateway(runtime: Runtime, fail: Fail) -> Mapping[Topic[Any], Work]:
    """Returns the work of the gateway."""
    return steps(STEPS, runtime, fail)


def _waited_for(routed: InferenceRouted, now: datetime) -> bool:
    return now < routed.request.deadline


def _row(completed: InferenceCompleted, now: datetime) -> InferenceRecorded:
    routed, answer, refusal = completed.routed, completed.completion, completed.refusal
    request = routed.request
    row = InferenceRecorded(
        request_id=request.request_id,
        tenant=request.tenant,
        principal=request.principal,
        endpoint=request.endpoint,
        route=routed.route.name,
        model=answer.model if answer else routed.route.model,
        outcome=OUTCOMES.get(refusal.reason, Outcome.FAILED) if refusal else Outcome.COMPLETED,
        reason=refusal.reason if refusal else None,
        message=refusal.message if refusal else None,
        request=_json(request_to_openai(request, request.endpoint)),
        attempts=routed.attempt + 1,
        requested_at=request.requested_at,
        first_token_ms=_elapsed_ms(request, completed.first_token_at)
        if completed.first_token_at
        else None,
        elapsed_ms=_elapsed_ms(request, now),
        tags=request.tags,
    )
    if answer is None:
        return row
    return replace(
        row,
        response=_json(completion_to_openai(answer, request.request_id)),
        finish_reason=answer.finish_reason,
        prompt_tokens=answer.usage.prompt_tokens,
        completion_tokens=answer.usage.completion_tokens,
        cached_tokens=answer.usage.cached_tokens,
        reasoning_tokens=answer.usage.reasoning_tokens,
    )


def _json(body: dict[str, object]) -> str:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))


def _elapsed_ms(request: InferenceRequested, until: datetime) -> int:
    return max(0, (until - request.requested_at) // MILLISECOND)


def _epoch_ms(instant: datetime) -> int:
    return int(instant.timestamp() * 1000)
