"""Replies: what the caller hears, and where."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from infra.catalog import CatalogView
from infra.identity import tenant_of
from infra.signing import Signature, claim, milliseconds
from schemas.events import (
    InferenceRefused,
    InferenceReplied,
    InferenceRouted,
    Refusal,
    Signed,
)
from schemas.topics import (
    INFERENCE_REFUSED,
    REPLY,
    Outgoing,
)


def to_caller(
    tenant: str, reply_to: str, replied: InferenceReplied, view: CatalogView
) -> Iterator[Outgoing]:
    """Sends a reply to the address that the caller gave, or to the tenant's own if it is foreign.

    A tenant that the catalog does not know, or no longer, has none. The tenant is that of who asked
    (``home``), whomever they act for.
    """
    if known := view.tenants.get(tenant):
        owned = reply_to in known.reply_topics
        yield Outgoing(REPLY.at(reply_to if owned else known.reply_topics[0]), replied)


def home(routed: InferenceRouted, view: CatalogView) -> str:
    """Returns the tenant on whose topics a request that was admitted is answered: its signer's."""
    request, signed = routed.request, routed.signed
    key = view.keys.get(signed.key_id) if signed else None
    if key is None or key.principal == request.principal:
        return request.tenant
    return tenant_of(key.principal, view) or request.tenant


def turned_back(
    routed: InferenceRouted, refusal: Refusal, view: CatalogView, now: datetime
) -> Iterator[Outgoing]:
    """Says that a request goes nowhere, though it was on its way: to its caller, and to the log."""
    request = routed.request
    refused = InferenceRefused(
        request=request,
        refusal=refusal,
        signed=routed.signed,
        refused_at=now,
        decision_id=routed.decision_id,
    )
    yield Outgoing(INFERENCE_REFUSED, refused)
    replied = InferenceReplied(
        request_id=request.request_id,
        refusal=refusal,
        claim=claimed(routed),
        replied_at=now,
    )
    yield from to_caller(home(routed, view), request.reply_to, replied, view)


def signed(signature: Signature | None) -> Signed | None:
    """Returns the signature of a record as events carry it."""
    if signature is None:
        return None
    return Signed(key_id=signature.key_id, signature=signature.signature, digest=signature.digest)


def claimed(routed: InferenceRouted) -> str:
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


def epoch_ms(instant: datetime) -> int:
    """Returns an instant in milliseconds since 1970."""
    return int(instant.timestamp() * 1000)
