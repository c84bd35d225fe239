"""Rows: what is recorded of a request, once nothing more can become of it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

from infra.catalog import CatalogView
from schemas.events import (
    InferenceCompleted,
    InferenceRecorded,
    InferenceRefused,
    InferenceRequested,
    Outcome,
    Reason,
    Signed,
)
from schemas.openai import completion_to_openai, request_to_openai
from schemas.topics import (
    INFERENCE_RECORDED,
    Outgoing,
)

MILLISECOND = timedelta(milliseconds=1)

# How the row of a request that ended without a completion is marked.
OUTCOMES = {
    Reason.CANCELLED: Outcome.CANCELLED,
    Reason.CONTEXT_EXCEEDED: Outcome.REFUSED,
    Reason.REQUEST_INVALID: Outcome.REFUSED,
}


def record_refusal(
    refused: InferenceRefused, view: CatalogView, now: datetime
) -> Iterator[Outgoing]:
    """Records a request that no route was tried for."""
    request = refused.request
    row = InferenceRecorded(
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
        deadline=request.deadline,
    )
    yield Outgoing(INFERENCE_RECORDED, _with_proof(row, refused.signed))


def row(completed: InferenceCompleted, now: datetime) -> InferenceRecorded:
    """Returns the row of a request that a route was tried for."""
    routed, answer, refusal = completed.routed, completed.completion, completed.refusal
    request = routed.request
    row = InferenceRecorded(
        request_id=request.request_id,
        tenant=request.tenant,
        principal=request.principal,
        endpoint=request.endpoint,
        route=routed.route.name,
        model=answer.model if answer else routed.route.model,
        entity=routed.route.entity or None,
        adapter=routed.route.adapter or None,
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
        deadline=request.deadline,
    )
    row = _with_proof(row, routed.signed)
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


def _with_proof(row: InferenceRecorded, signed: Signed | None) -> InferenceRecorded:
    """Returns a row with what an auditor needs to verify who asked."""
    if signed is None:
        return row
    return replace(
        row,
        key_id=signed.key_id,
        signature=base64.b64encode(signed.signature).decode(),
        signed_digest=signed.digest.hex(),
    )


def _json(body: dict[str, object]) -> str:
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:
        # Refused requests and log probabilities hold numbers that JSON lacks: recorded as null.
        return _json(json.loads(json.dumps(body), parse_constant=lambda number: None))


def _elapsed_ms(request: InferenceRequested, until: datetime) -> int:
    return max(0, (until - request.requested_at) // MILLISECOND)
