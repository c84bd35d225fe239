"""Who commands: what a record proves of it, as an ordered table of pure checks.

The rules are the gateway's. Everybody may write to the topic of commands, so what is not proven may
be a forgery under somebody else's request id: nothing of it is done or remembered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from infra.bus import Record
from infra.catalog import CatalogView
from infra.signing import DEADLINE, Signature, claimed, is_genuine, milliseconds
from schemas.events import CatalogWanted, Reason, Refusal
from schemas.topics import CATALOG_WANTED, LONGEST_DEADLINE_MS

# Characters of a caller's word that a refusal quotes.
QUOTED = 64
# A revocation that was planned ahead counts this much earlier: clocks differ.
SKEW = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Commanded:
    """A command, and what its record tells of who sent it."""

    wanted: CatalogWanted
    signed: Signature | None
    topic: str = CATALOG_WANTED.name

    @classmethod
    def of(cls, wanted: CatalogWanted, record: Record) -> Commanded:
        """Returns the command in a record."""
        return cls(wanted, claimed(record.headers, record.value or b""), record.topic)


Check = Callable[[Commanded, CatalogView, datetime], Refusal | None]


def identity(asked: Commanded, view: CatalogView) -> str:
    """Returns who commands, given that the command is proven."""
    key = view.keys.get(asked.signed.key_id) if asked.signed else None
    return key.principal if key else asked.wanted.principal or asked.wanted.tenant


def unproven(asked: Commanded, view: CatalogView, now: datetime) -> Refusal | None:
    """Returns why a command proves not who sent it, or None when it does."""
    return next((refusal for check in PROOFS if (refusal := check(asked, view, now))), None)


def tenant_known(asked: Commanded, view: CatalogView, now: datetime) -> Refusal | None:
    """Somebody must pay."""
    tenant = asked.wanted.tenant
    if tenant in view.tenants:
        return None
    return Refusal(
        reason=Reason.TENANT_UNKNOWN, message=f"there is no tenant {quoted(tenant)}", field="tenant"
    )


def signature_there(asked: Commanded, view: CatalogView, now: datetime) -> Refusal | None:
    """Only a tenant of whom the catalog says so is believed without a signature."""
    tenant = asked.wanted.tenant
    if asked.signed or view.tenants[tenant].accept_unsigned:
        return None
    return Refusal(
        reason=Reason.SIGNATURE_MISSING,
        message=f"commands of {tenant} must be signed: set CLIENT_KEY to file:PATH of a key",
    )


def key_in_force(asked: Commanded, view: CatalogView, now: datetime) -> Refusal | None:
    """A key counts from one instant to another, and not at all once revoked."""
    if asked.signed is None:
        return None
    key_id = asked.signed.key_id
    key = view.keys.get(key_id)
    if key is None:
        message = f"there is no key {quoted(key_id)}; tessera key create makes one known"
        return Refusal(reason=Reason.KEY_UNKNOWN, message=message)
    if key.revoked_at is not None and key.revoked_at <= now + SKEW:
        message = f"key {key_id} was revoked at {key.revoked_at.isoformat()}; use another"
        return Refusal(reason=Reason.KEY_REVOKED, message=message)
    if now < key.not_before - SKEW:
        message = f"key {key_id} does not count before {key.not_before.isoformat()}"
        return Refusal(reason=Reason.KEY_EXPIRED, message=message)
    if key.expires_at is not None and key.expires_at <= now:
        message = f"key {key_id} expired at {key.expires_at.isoformat()}; use another"
        return Refusal(reason=Reason.KEY_EXPIRED, message=message)
    return None


def signature_genuine(asked: Commanded, view: CatalogView, now: datetime) -> Refusal | None:
    """The key's owner must have signed this value, for this topic, tenant and deadline."""
    if asked.signed is None:
        return None
    if asked.signed.deadline_ms != milliseconds(asked.wanted.deadline):
        return Refusal(
            reason=Reason.SIGNATURE_INVALID,
            message=f"the header {DEADLINE} is not the deadline of the command",
            field="deadline",
        )
    public_key = view.keys[asked.signed.key_id].public_key
    record_key = CATALOG_WANTED.key(asked.wanted).encode()
    if is_genuine(asked.signed, public_key, asked.topic, record_key):
        return None
    return Refusal(
        reason=Reason.SIGNATURE_INVALID,
        message=f"the signature is none by key {asked.signed.key_id} over this value for topic "
        f"{asked.topic}, the tenant as key, and the deadline",
    )


def principal_own(asked: Commanded, view: CatalogView, now: datetime) -> Refusal | None:
    """Whoever commands must be who signed, and act for the tenant that it names."""
    claimed_name, tenant = asked.wanted.principal, asked.wanted.tenant
    who = identity(asked, view)
    principal = view.principals.get(who)
    if principal is None:
        said = f"the catalog knows no principal {quoted(who)}"
    elif claimed_name not in ("", who):
        said = f"the key is {who}'s and not {quoted(claimed_name)}'s; leave principal empty"
    elif principal.tenant != tenant:
        said = f"{who} does not act for {tenant}"
    else:
        return None
    return Refusal(reason=Reason.PRINCIPAL_FOREIGN, message=said, field="principal")


# What must be proven, in this order.
PROOFS: tuple[Check, ...] = (
    tenant_known,
    signature_there,
    key_in_force,
    signature_genuine,
    principal_own,
)


def unanswerable(asked: Commanded, view: CatalogView, now: datetime) -> Refusal | None:
    """Returns why a proven command is not taken up: a foreign address, or a deadline too far."""
    wanted = asked.wanted
    allowed = view.tenants[wanted.tenant].reply_topics
    if wanted.reply_to not in allowed:
        return Refusal(
            reason=Reason.REPLY_ADDRESS_FORBIDDEN,
            message=f"{quoted(wanted.reply_to)} is no reply topic of {wanted.tenant}; "
            f"use {' or '.join(allowed)}",
            field="reply_to",
        )
    if wanted.deadline > now + timedelta(milliseconds=LONGEST_DEADLINE_MS):
        return Refusal(
            reason=Reason.REQUEST_INVALID,
            message=f"the deadline lies more than {LONGEST_DEADLINE_MS} ms ahead",
            field="deadline",
        )
    return None


def late(wanted: CatalogWanted, now: datetime) -> Refusal | None:
    """Returns the refusal of a command whose answer is of no use any more."""
    if wanted.deadline > now:
        return None
    return Refusal(
        reason=Reason.DEADLINE_EXPIRED,
        message="the deadline passed before the registrar saw the command; nothing was done",
        field="deadline",
    )


def quoted(word: str) -> str:
    """Returns the beginning of a word that a caller gave, as a refusal quotes it."""
    return repr(word[:QUOTED])
