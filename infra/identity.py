"""Who sent a record: what it proves of that, as an ordered table of pure checks.

A record is proven when its signature is genuine, by a key in force, of a principal of the tenant
that it names; or when its tenant is believed unsigned. In a request, who holds MANAGE on the root
may name somebody else, as those do who run agents: that one acts then, but the answer goes to who
signed. Everybody may write to the topics of
requests and commands, so what is not proven may be a forgery under somebody else's id.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from infra.catalog import CatalogView
from infra.signing import DEADLINE, KEY, SIGNATURE, Signature, is_genuine, milliseconds
from schemas.events import Reason, Refusal
from schemas.kinds import ROOT, Privilege

# Clocks differ: a key counts this much earlier, and a planned revocation, too.
SKEW = timedelta(seconds=60)
# Characters of a caller's name for something that a refusal quotes.
QUOTED = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Who a record says that it is from, and what it brings to prove it.

    Attributes:
        tenant: Who pays; also the record key that is signed, whatever key the record lies under.
        principal: Who acts; empty for whoever signed.
        deadline: The deadline in the record's value.
        topic: Topic that the record lies on.
        signed: The signature in its headers.
        replayed: Whether a copy of it was taken before.
        for_others: Whether records of its kind may be sent for somebody else.
    """

    tenant: str
    principal: str
    deadline: datetime
    topic: str
    signed: Signature | None
    replayed: bool = False
    for_others: bool = False


Check = Callable[[Sender, CatalogView, datetime], Refusal | None]


def identity(sender: Sender, view: CatalogView) -> str:
    """Returns who acts, given that the record is proven."""
    if acts_for_another(sender, view):
        return sender.principal
    return signer(sender, view) or sender.principal or sender.tenant


def signer(sender: Sender, view: CatalogView) -> str | None:
    """Returns whose key a record names; None where it names none that is known."""
    key = view.keys.get(sender.signed.key_id) if sender.signed else None
    return key.principal if key else None


def acts_for_another(sender: Sender, view: CatalogView) -> bool:
    """Returns whether who signed names somebody else, and may, given that they signed."""
    return may_for_others(sender, view) and sender.principal not in ("", signer(sender, view))


def may_for_others(sender: Sender, view: CatalogView) -> bool:
    """Returns whether who signed may name somebody else, given that they signed."""
    who = signer(sender, view)
    if not sender.for_others or who is None:
        return False
    return view.access.holds(who, Privilege.MANAGE, ROOT)


def answered_as(sender: Sender, view: CatalogView, now: datetime) -> str:
    """Returns the tenant on whose topics a sender is answered: its own, whomever it acts for.

    That takes a genuine signature: nobody can write into topics of those they only name.
    """
    who = signer(sender, view)
    if who is None or not acts_for_another(sender, view):
        return sender.tenant
    if any(check(sender, view, now) for check in (key_in_force, signature_genuine)):
        return sender.tenant
    return tenant_of(who, view) or sender.tenant


def tenant_of(principal: str, view: CatalogView) -> str | None:
    """Returns the tenant that a principal acts for; None where there is neither."""
    known = view.principals.get(principal)
    return known.tenant if known else None


def unproven(sender: Sender, view: CatalogView, now: datetime) -> Refusal | None:
    """Returns why a record proves not who sent it, or None when it does."""
    return next((refusal for check in PROOFS if (refusal := check(sender, view, now))), None)


def tenant_known(sender: Sender, view: CatalogView, now: datetime) -> Refusal | None:
    """Somebody must pay."""
    if sender.tenant in view.tenants:
        return None
    return Refusal(
        reason=Reason.TENANT_UNKNOWN,
        message=f"there is no tenant {quoted(sender.tenant)}",
        field="tenant",
    )


def signature_there(sender: Sender, view: CatalogView, now: datetime) -> Refusal | None:
    """Only a tenant of whom the catalog says so is believed without a signature."""
    tenant = sender.tenant
    if sender.signed or view.tenants[tenant].accept_unsigned:
        return None
    return Refusal(
        reason=Reason.SIGNATURE_MISSING,
        message=f"records of {tenant} must be signed: set CLIENT_KEY to file:PATH of a private "
        f"key, or send the headers {KEY}, {DEADLINE} and {SIGNATURE}",
    )


def taken_once(sender: Sender, view: CatalogView, now: datetime) -> Refusal | None:
    """A signature is good for one record.

    First of all that is said of a signature: a copy that came when the key had expired meanwhile
    must not be taken for the refusal of the record itself.
    """
    if not sender.replayed:
        return None
    return Refusal(
        reason=Reason.SIGNATURE_REPLAYED,
        message="this record was taken before, and is answered once; "
        "to ask again, send a new request id under a new signature",
    )


def key_known(sender: Sender, view: CatalogView, now: datetime) -> Refusal | None:
    """The catalog must know whose key it is."""
    if sender.signed is None or sender.signed.key_id in view.keys:
        return None
    return Refusal(
        reason=Reason.KEY_UNKNOWN,
        message=f"the catalog has no key {quoted(sender.signed.key_id)}; create it there first",
    )


def key_in_force(sender: Sender, view: CatalogView, now: datetime) -> Refusal | None:
    """A key counts from one instant to another, and not at all once revoked."""
    if sender.signed is None:
        return None
    key = view.keys[sender.signed.key_id]
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


def signature_genuine(sender: Sender, view: CatalogView, now: datetime) -> Refusal | None:
    """The key's owner must have signed this value, for this topic, tenant and deadline."""
    if sender.signed is None:
        return None
    if sender.signed.deadline_ms != milliseconds(sender.deadline):
        return Refusal(
            reason=Reason.SIGNATURE_INVALID,
            message=f"the header {DEADLINE} is not the deadline of the record's value",
            field="deadline",
        )
    public_key = view.keys[sender.signed.key_id].public_key
    if is_genuine(sender.signed, public_key, sender.topic, sender.tenant.encode()):
        return None
    return Refusal(
        reason=Reason.SIGNATURE_INVALID,
        message=f"the signature is none by key {sender.signed.key_id} over this value for topic "
        f"{sender.topic}, the tenant as key, and the deadline",
    )


def principal_own(sender: Sender, view: CatalogView, now: datetime) -> Refusal | None:
    """Whoever acts must be who signed, or named by one who may, and be of the tenant that pays."""
    claimed, tenant = sender.principal, sender.tenant
    who = identity(sender, view)
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


PROOFS: tuple[Check, ...] = (
    tenant_known,
    signature_there,
    taken_once,
    key_known,
    key_in_force,
    signature_genuine,
    principal_own,
)


def unsigned(sender: Sender, view: CatalogView, now: datetime) -> Refusal | None:
    """What a person decides must be signed, whatever the tenant's requests need."""
    if sender.signed:
        return None
    return Refusal(
        reason=Reason.SIGNATURE_MISSING,
        message="who decides must sign: set CLIENT_KEY to file:PATH of a private key",
    )


def signer_named(sender: Sender, view: CatalogView, now: datetime) -> Refusal | None:
    """Whoever acts must be who signed, for whichever tenant that one acts."""
    who = identity(sender, view)
    if who not in view.principals:
        said = f"the catalog knows no principal {quoted(who)}"
    elif sender.principal not in ("", who):
        said = f"the key is {who}'s and not {quoted(sender.principal)}'s; leave principal empty"
    else:
        return None
    return Refusal(reason=Reason.PRINCIPAL_FOREIGN, message=said, field="principal")


# What proves who decides about what is another tenant's: as above, save for whom that one acts.
PROOFS_OF_SIGNER: tuple[Check, ...] = (
    unsigned,
    key_known,
    key_in_force,
    signature_genuine,
    signer_named,
)


def unproven_signer(sender: Sender, view: CatalogView, now: datetime) -> Refusal | None:
    """Returns why a record proves not who signed it, whoever pays, or None when it does."""
    checks = (check(sender, view, now) for check in PROOFS_OF_SIGNER)
    return next((refusal for refusal in checks if refusal), None)


def quoted(name: str) -> str:
    """Returns the beginning of a name that a caller gave, as a refusal quotes it."""
    return repr(name[:QUOTED])
