"""Replies: what the caller hears, and where."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from infra.catalog import CatalogView
from infra.signing import Signature, claim, milliseconds
from schemas.events import (
    InferenceReplied,
    InferenceRouted,
    Signed,
)
from schemas.topics import (
    REPLY,
    Outgoing,
)


def to_caller(
    tenant: str, reply_to: str, replied: InferenceReplied, view: CatalogView
) -> Iterator[Outgoing]:
    """Sends a reply to the address that the caller gave, or to the tenant's own if it is foreign.

    A tenant that the catalog does not know, or no longer, has none.
    """
    if known := view.tenants.get(tenant):
        owned = reply_to in known.reply_topics
        yield Outgoing(REPLY.at(reply_to if owned else known.reply_topics[0]), replied)


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
