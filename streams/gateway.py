"""The gateway: who may ask what, where it goes, and what the caller hears.

Two decisions, both pure. ``admit`` stands before the workers, ``release`` behind them; what they
need of each other travels inside the events. Policy on requests is the table in ``checks.py``, with
who asks in ``infra/identity.py``; policy on answers has its place in ``release``.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from infra.catalog import CatalogView
from infra.identity import identity, unproven
from infra.provision import require
from infra.signing import Signature, claim, milliseconds
from schemas.events import (
    Attempt,
    AuditOutcome,
    AuditRecorded,
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
    Sampling,
    Signed,
)
from schemas.openai import completion_to_openai, request_to_openai
from schemas.topics import (
    AUDIT_RECORDED,
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
from streams.admission import Admission
from streams.asked import Asked
from streams.checks import first_refusal
from streams.steps import Fail, Runtime, Step, Work, steps

MILLISECOND = timedelta(milliseconds=1)
# Characters; no topic of Kafka's has a longer name.
LONGEST_NAME = 249

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

# Refusals for who asks: an auditor hears of them.
DENIALS = frozenset(
    {
        Reason.KEY_EXPIRED,
        Reason.KEY_REVOKED,
        Reason.KEY_UNKNOWN,
        Reason.PRINCIPAL_FOREIGN,
        Reason.PRIVILEGE_MISSING,
        Reason.SIGNATURE_INVALID,
        Reason.SIGNATURE_MISSING,
        Reason.SIGNATURE_REPLAYED,
    }
)

# How the row of a request that ended without a completion is marked.
OUTCOMES = {
    Reason.CANCELLED: Outcome.CANCELLED,
    Reason.CONTEXT_EXCEEDED: Outcome.REFUSED,
    Reason.REQUEST_INVALID: Outcome.REFUSED,
}


def admit(asked: Asked, view: CatalogView, now: datetime) -> Iterator[Outgoing]:
    """Sends a request on its first route, or refuses it with a reply.

    Onward it carries who was found to act. What was put here twice was decided the first time.
    """
    if asked.moved_again:
        return
    if refusal := first_refusal(asked, view, now):
        yield from refuse(asked, refusal, view, now)
        return
    request = replace(asked.request, principal=identity(asked.sender, view))
    endpoint = view.endpoints[request.endpoint]
    first, *fallbacks = endpoint.routes
    routed = InferenceRouted(
        request=request,
        route=first,
        fallbacks=tuple(fallbacks),
        # Without an output policy, parts spare themselves the way through release.
        parts_to=None if endpoint.output_policy else request.reply_to,
        signed=_signed(asked.signed),
        routed_at=now,
    )
    yield Outgoing(INFERENCE_ROUTED.member(first.pool), routed)


def refuse(asked: Asked, refusal: Refusal, view: CatalogView, now: datetime) -> Iterator[Outgoing]:
    """Says that a request goes nowhere: to the caller, where there is an address, and to the log.

    A caller who gave a foreign address hears of it on the tenant's own; an unknown tenant has none.

    A request that proves not who sent it may be a forgery under another's id, whose row and answer
    it must not spoil. So it is recorded under an id of its own. A copy of a record that was taken
    before has its row already. The reply says which record is refused, as every terminal one does:
    the caller who sent it hears of it, and another under the same id knows that it is not meant.
    """
    request = asked.request
    if refusal.reason is Reason.REQUEST_TOO_LARGE:
        request = _stripped(request)
    proven = unproven(asked.sender, view, now) is None
    who = identity(asked.sender, view) if proven else request.principal
    if refusal.reason is not Reason.SIGNATURE_REPLAYED:
        known_as = request.request_id if proven else asked.refused_id
        refused = InferenceRefused(
            request=replace(request, request_id=known_as, principal=who),
            refusal=refusal,
            signed=_signed(asked.signed),
            refused_at=now,
        )
        yield Outgoing(INFERENCE_REFUSED, refused)
    if refusal.reason in DENIALS:
        yield Outgoing(AUDIT_RECORDED, _denial(asked, refusal, who, now))
    replied = InferenceReplied(
        request_id=request.request_id,
        refusal=refusal,
        claim=claim(asked.signed),
        replied_at=now,
    )
    yield from _to_caller(request.tenant, request.reply_to, replied, view)


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
        epoch=_epoch_ms(completed.started_at),
        seq=completed.parts,
        completion=completed.completion,
        refusal=refusal,
        tried=routed.tried,
        claim=_claim(routed),
        replied_at=now,
    )
    yield from _to_caller(routed.request.tenant, routed.request.reply_to, replied, view)
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
        yield from _to_caller(part.tenant, part.reply_to, replied, view)


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


STEPS: Mapping[Topic[Any], Step] = {
    INFERENCE_COMPLETED: release,
    INFERENCE_PARTS: release_part,
    INFERENCE_REFUSED: record_refusal,
    INFERENCE_REQUESTED: admit,
}


def open_gateway(runtime: Runtime, fail: Fail) -> Mapping[Topic[Any], Work]:
    """Returns the work of the gateway.

    Raises:
        ProvisioningFailed: A topic that the catalog names does not exist.
    """
    require(runtime.kafka)
    admission = Admission(INFERENCE_REQUESTED, admit, runtime, fail)
    return {**steps(STEPS, runtime, fail), INFERENCE_REQUESTED: admission}


def _denial(asked: Asked, refusal: Refusal, who: str, now: datetime) -> AuditRecorded:
    request = asked.request
    return AuditRecorded(
        audit_id=asked.refused_id,
        at=now,
        source="gateway",
        principal=who[:LONGEST_NAME],
        tenant=request.tenant[:LONGEST_NAME],
        key_id=asked.signed.key_id if asked.signed else None,
        action="request.refused",
        kind="endpoint",
        name=request.endpoint[:LONGEST_NAME],
        outcome=AuditOutcome.DENIED,
        reason=f"{refusal.reason}: {refusal.message}",
        request_id=request.request_id[:LONGEST_NAME],
        trace_id=asked.trace_id,
    )


def _signed(signature: Signature | None) -> Signed | None:
    if signature is None:
        return None
    return Signed(key_id=signature.key_id, signature=signature.signature, digest=signature.digest)


def _claim(routed: InferenceRouted) -> str:
    """Returns which record was routed, by its proof; empty for one without a signature."""
    if routed.signed is None:
        return ""
    signed = Signature(
        key_id=routed.signed.key_id,
        # A signature for another deadline than the request's is not genuine.
        deadline_ms=milliseconds(routed.request.deadline),
        signature=routed.signed.signature,
        digest=routed.signed.digest,
    )
    return claim(signed)


def _to_caller(
    tenant: str, reply_to: str, replied: InferenceReplied, view: CatalogView
) -> Iterator[Outgoing]:
    """Sends a reply to the address that the caller gave, or to the tenant's own if it is foreign.

    A tenant that the catalog does not know, or no longer, has none.
    """
    if known := view.tenants.get(tenant):
        owned = reply_to in known.reply_topics
        yield Outgoing(REPLY.at(reply_to if owned else known.reply_topics[0]), replied)


def _stripped(request: InferenceRequested) -> InferenceRequested:
    """Returns what identifies a request, without what may have made it too large."""
    return replace(
        request,
        request_id=request.request_id[:LONGEST_NAME],
        tenant=request.tenant[:LONGEST_NAME],
        principal=request.principal[:LONGEST_NAME],
        endpoint=request.endpoint[:LONGEST_NAME],
        reply_to=request.reply_to[:LONGEST_NAME],
        messages=(),
        sampling=Sampling(),
        json_schema=None,
        tools=(),
        tool_choice="auto",
        tags={},
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


def _json(body: dict[str, object]) -> str:
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:
        # Refused requests and log probabilities hold numbers that JSON lacks: recorded as null.
        return _json(json.loads(json.dumps(body), parse_constant=lambda number: None))


def _elapsed_ms(request: InferenceRequested, until: datetime) -> int:
    return max(0, (until - request.requested_at) // MILLISECOND)


def _epoch_ms(instant: datetime) -> int:
    return int(instant.timestamp() * 1000)
