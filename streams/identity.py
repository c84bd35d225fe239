"""Who asks: what a record proves of it, as an ordered table of pure checks.

A request is proven when its signature is genuine, by a key in force, of a principal of the tenant
that it names; or when its tenant is believed unsigned. Everybody may write to the request topic, so
what is not proven may be a forgery under somebody else's request id. It is refused without harm to
that request: recorded under an id of its own (``Asked.refused_id``), and replied to with the claim
of the refused record, by which a client tells whether its own is meant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import NAMESPACE_URL, uuid5

from infra.catalog import CatalogView
from infra.signing import DEADLINE, KEY, SIGNATURE, Signature, is_genuine, milliseconds
from schemas.events import InferenceRequested, Reason, Refusal
from schemas.topics import INFERENCE_REQUESTED

# Clocks differ: a key counts this much earlier, and a planned revocation, too.
SKEW = timedelta(seconds=60)
# Characters of a caller's name for something that a refusal quotes.
QUOTED = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request and what its record tells of who sent it.

    Attributes:
        request: What is asked.
        signed: The signature in the record's headers.
        topic: Topic that the record lies on.
        place: Where it lies: topic/partition/offset.
        size: Bytes of its value.
        trace_id: W3C trace id in its headers.
        replayed: Whether a copy of it was taken before.
        moved_again: Whether it was put here twice, since a process ended amid moving it.
    """

    request: InferenceRequested
    signed: Signature | None = None
    topic: str = INFERENCE_REQUESTED.name
    place: str
    size: int = 0
    trace_id: str | None = None
    replayed: bool = False
    moved_again: bool = False

    @property
    def refused_id(self) -> str:
        """Names the refusal of this record, and no other, however often it is read."""
        return str(uuid5(NAMESPACE_URL, self.place))


Check = Callable[[Asked, CatalogView, datetime], Refusal | None]


def identity(asked: Asked, view: CatalogView) -> str:
    """Returns who acts, given that the request is proven."""
    key = view.keys.get(asked.signed.key_id) if asked.signed else None
    return key.principal if key else asked.request.principal or asked.request.tenant


def first(
    checks: Iterable[Check], asked: Asked, view: CatalogView, now: datetime
) -> Refusal | None:
    """Returns what the first failing check says."""
    for check in checks:
        if refusal := check(asked, view, now):
            return refusal
    return None


def unproven(asked: Asked, view: CatalogView, now: datetime) -> Refusal | None:
    """Returns why a request proves not who sent it, or None when it does."""
    return first(PROOFS, asked, view, now)


def tenant_known(asked: Asked, view: CatalogView, now: datetime) -> Refusal | None:
    """Somebody must pay."""
    if asked.request.tenant in view.tenants:
        return None
    return Refusal(
        reason=Reason.TENANT_UNKNOWN,
        message=f"there is no tenant {quoted(asked.request.tenant)}",
        field="tenant",
    )


def signature_there(asked: Asked, view: CatalogView, now: datetime) -> Refusal | None:
    """Only a tenant of whom the catalog says so is believed without a signature."""
    tenant = asked.request.tenant
    if asked.signed or view.tenants[tenant].accept_unsigned:
        return None
    return Refusal(
        reason=Reason.SIGNATURE_MISSING,
        message=f"requests of {tenant} must be signed: set CLIENT_KEY to file:PATH of a private "
        f"key, or send the headers {KEY}, {DEADLINE} and {SIGNATURE}",
    )


def taken_once(asked: Asked, view: CatalogView, now: datetime) -> Refusal | None:
    """A signature is good for one request.

    First of all that is said of a signature: a copy that came when the key had expired meanwhile
    must not be taken for the refusal of the request itself.
    """
    if not asked.replayed:
        return None
    return Refusal(
        reason=Reason.SIGNATURE_REPLAYED,
        message="this record was taken before, and is answered once; "
        "to ask again, send a new request id under a new signature",
    )


def key_known(asked: Asked, view: CatalogView, now: datetime) -> Refusal | None:
    """The catalog must know whose key it is."""
    if asked.signed is None or asked.signed.key_id in view.keys:
        return None
    return Refusal(
        reason=Reason.KEY_UNKNOWN,
        message=f"the catalog has no key {quoted(asked.signed.key_id)}; create it there first",
    )


def key_in_force(asked: Asked, view: CatalogView, now: datetime) -> Refusal | None:
    """A key counts from one instant to another, and not at all once revoked."""
    if asked.signed is None:
        return None
    key = view.keys[asked.signed.key_id]
    if key.revoked_at is not None and key.revoked_at <= now + SKEW:
        return Refusal(
            reason=Reason.KEY_REVOKED,
            message=f"key {key.key_id} was revoked at {key.revoked_at.isoformat()}; use another",
        )
    if now < key.not_before - SKEW:
        return Refusal(
            reason=Reason.KEY_EXPIRED,
            message=f"key {key.key_id} does not count before {key.not_before.isoformat()}",
        )
    if key.expires_at is not None and key.expires_at <= now:
        return Refusal(
            reason=Reason.KEY_EXPIRED,
            message=f"key {key.key_id} expired at {key.expires_at.isoformat()}; use another",
        )
    return None


def signature_genuine(asked: Asked, view: CatalogView, now: datetime) -> Refusal | None:
    """The key's owner must have signed this value, for this topic, tenant and deadline."""
    if asked.signed is None:
        return None
    if asked.signed.deadline_ms != milliseconds(asked.request.deadline):
        return Refusal(
            reason=Reason.SIGNATURE_INVALID,
            message=f"the header {DEADLINE} is not the deadline of the request",
            field="deadline",
        )
    record_key = INFERENCE_REQUESTED.key(asked.request).encode()
    public_key = view.keys[asked.signed.key_id].public_key
    if is_genuine(asked.signed, public_key, asked.topic, record_key):
        return None
    return Refusal(
        reason=Reason.SIGNATURE_INVALID,
        message=f"the signature is none by key {asked.signed.key_id} over this value for topic "
        f"{asked.topic}, the tenant as key, and the deadline",
    )


def principal_own(asked: Asked, view: CatalogView, now: datetime) -> Refusal | None:
    """Whoever acts must be who signed, and act for the tenant that pays."""
    claimed, tenant = asked.request.principal, asked.request.tenant
    who = identity(asked, view)
    principal = view.principals.get(who)
    if principal is None:
        said = f"the catalog knows no principal {quoted(who)}"
    elif claimed not in ("", who):
        said = f"the key is {who}'s and not {quoted(claimed)}'s; leave principal empty"
    elif principal.tenant != tenant:
        said = f"{who} does not act for {tenant}"
    else:
        return None
    return Refusal(reason=Reason.PRINCIPAL_FOREIGN, message=said, field="principal")


# What is said of a signature, in this order.
IDENTITY: tuple[Check, ...] = (
    signature_there,
    taken_once,
    key_known,
    key_in_force,
    signature_genuine,
    principal_own,
)
PROOFS: tuple[Check, ...] = (tenant_known, *IDENTITY)


def quoted(name: str) -> str:
    """Returns the beginning of a name that a caller gave, as a refusal quotes it."""
    return repr(name[:QUOTED])
