"""Refusals before any route was tried."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from infra.catalog import CatalogView
from infra.identity import answered_as, identity, unproven
from infra.signing import claim
from schemas.events import (
    AuditOutcome,
    AuditRecorded,
    InferenceRefused,
    InferenceReplied,
    InferenceRequested,
    Reason,
    Refusal,
    Sampling,
)
from schemas.policies import LimitRule
from schemas.topics import (
    AUDIT_RECORDED,
    INFERENCE_REFUSED,
    Outgoing,
)
from streams.gateway.asked import Asked
from streams.gateway.desk import policies_of
from streams.gateway.reply import signed, to_caller
from streams.gateway.rows import without_texts
from streams.guards import masked_request

# Characters; no topic of Kafka's has a longer name.
LONGEST_NAME = 249

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

BY_GUARDS = frozenset({Reason.POLICY_DENIED, Reason.POLICY_FAILED})


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
    shown = _shown(request, refusal, view)
    proven = unproven(asked.sender, view, now) is None
    who = identity(asked.sender, view) if proven else request.principal
    if refusal.reason is not Reason.SIGNATURE_REPLAYED:
        known_as = request.request_id if proven else asked.refused_id
        refused = InferenceRefused(
            request=replace(shown, request_id=known_as, principal=who),
            refusal=refusal,
            signed=signed(asked.signed),
            refused_at=now,
            decision_id=asked.charge_id,
        )
        yield Outgoing(INFERENCE_REFUSED, refused)
    if refusal.reason in DENIALS:
        yield Outgoing(AUDIT_RECORDED, _denial(asked, refusal, who, view, now))
    replied = InferenceReplied(
        request_id=request.request_id,
        refusal=refusal,
        claim=claim(asked.signed),
        replied_at=now,
    )
    tenant = answered_as(asked.sender, view, now)
    yield from to_caller(tenant, request.reply_to, replied, view)


def _shown(request: InferenceRequested, refusal: Refusal, view: CatalogView) -> InferenceRequested:
    """Returns a refused request as it may be recorded: masked, or without texts.

    Guards are asked only where one of them refused: who asks too often shall cost little.
    """
    policies = policies_of(request.tenant, request.endpoint, view)
    if isinstance(policies, Refusal):
        return without_texts(request)
    if all(isinstance(rule, LimitRule) for _, policy in policies for rule in policy.rules):
        return request
    if refusal.reason in BY_GUARDS:
        return masked_request(request, policies)
    return without_texts(request)


def _denial(
    asked: Asked, refusal: Refusal, who: str, view: CatalogView, now: datetime
) -> AuditRecorded:
    request = asked.request
    endpoint = view.endpoints.get(request.endpoint)
    return AuditRecorded(
        audit_id=asked.refused_id,
        at=now,
        source="gateway",
        principal=who[:LONGEST_NAME],
        tenant=request.tenant[:LONGEST_NAME],
        key_id=asked.signed.key_id if asked.signed else None,
        action="request.refused",
        kind=endpoint.kind if endpoint else "endpoint",
        name=request.endpoint[:LONGEST_NAME],
        outcome=AuditOutcome.DENIED,
        reason=f"{refusal.reason}: {refusal.message}",
        request_id=request.request_id[:LONGEST_NAME],
        trace_id=asked.trace_id,
    )


def _stripped(request: InferenceRequested) -> InferenceRequested:
    """Returns what identifies a request, without what may have made it too large."""
    return replace(
        without_texts(request),
        request_id=request.request_id[:LONGEST_NAME],
        tenant=request.tenant[:LONGEST_NAME],
        principal=request.principal[:LONGEST_NAME],
        endpoint=request.endpoint[:LONGEST_NAME],
        reply_to=request.reply_to[:LONGEST_NAME],
        sampling=Sampling(),
        tool_choice="auto",
        tags={},
        version=None,
    )
