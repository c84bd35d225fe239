"""Approvals: a person lets go on what waits, or does not, or nobody does in time.

Two steps. ``give`` looks at what somebody says: it is refused, or becomes a decision. ``decide``
acts on a decision, if it is the first about its approval. What nobody decides in time is decided by
the clock (``watch.py``), and comes the same way. A run of an agent waits for the decision itself,
and is told of it on the reply topic that it named.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import NAMESPACE_URL, uuid5

from infra.catalog import CatalogView
from infra.identity import Sender, identity, quoted, unproven_signer
from infra.signing import Signature, claim, milliseconds
from schemas.agents import run_of
from schemas.events import (
    ApprovalDecided,
    ApprovalGiven,
    ApprovalWanted,
    AuditOutcome,
    AuditRecorded,
    InferenceReplied,
    Reason,
    Refusal,
)
from schemas.kinds import Privilege
from schemas.topics import (
    APPROVAL_DECIDED,
    AUDIT_RECORDED,
    LONGEST_DEADLINE_MS,
    REPLY,
    Outgoing,
)
from streams.gateway.board import Decision
from streams.gateway.desk import Desk
from streams.gateway.judged import goes_on, held_back
from streams.gateway.refuse import DENIALS
from streams.gateway.reply import signed

# Characters of a reason that a person gives.
MOST_REASON = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What somebody says about an approval, and what is known of that.

    Attributes:
        given: What is said.
        topic: Topic that the record lies on.
        place: Where it lies: topic/partition/offset.
        signed: The signature in its headers.
        wanted: What it is about; None where nothing waits under this name.
        decision: What was decided about it before.
        trace_id: W3C trace id in its headers.
    """

    given: ApprovalGiven
    topic: str
    place: str
    signed: Signature | None = None
    wanted: ApprovalWanted | None = None
    decision: Decision | None = None
    trace_id: str | None = None

    @property
    def sender(self) -> Sender:
        """Who it says that it is from, and what it brings to prove it."""
        return Sender(
            tenant=self.given.tenant,
            principal=self.given.principal,
            deadline=self.given.deadline,
            topic=self.topic,
            signed=self.signed,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A decision, where it lies, and the first about the same approval."""

    event: ApprovalDecided
    place: str
    first: bool
    trace_id: str | None = None


def give(answered: Answered, view: CatalogView, now: datetime) -> Iterator[Outgoing]:
    """Makes a decision of what somebody says, or refuses it with a reply."""
    given, wanted = answered.given, answered.wanted
    # What was read again after a crash is told of by the decision that it became.
    if answered.decision is not None and answered.decision.given_id == given.given_id:
        return
    refusal = unfit(answered, view, now)
    if refusal is None and wanted is not None:
        decided = ApprovalDecided(
            approval_id=wanted.approval_id,
            tenant=wanted.tenant,
            wanted=wanted,
            granted=given.granted,
            principal=identity(answered.sender, view),
            given=given,
            signed=signed(answered.signed),
            decided_at=now,
        )
        yield Outgoing(APPROVAL_DECIDED, decided)
        return
    refusal = refusal or _unknown(given)
    if refusal.reason in DENIALS:
        yield Outgoing(AUDIT_RECORDED, _kept_out(answered, refusal, view, now))
    yield from _told(given, claim(answered.signed), view, now, refusal=refusal)


def unfit(answered: Answered, view: CatalogView, now: datetime) -> Refusal | None:
    """Returns why what somebody says decides nothing; None where it decides."""
    if refusal := unproven_signer(answered.sender, view, now):
        return refusal
    who = identity(answered.sender, view)
    if refusal := _unanswerable(answered.given, who, view, now):
        return refusal
    if answered.decision is not None:
        return settled_before(answered.decision)
    wanted = answered.wanted
    if wanted is None or wanted.tenant != answered.given.tenant:
        return _unknown(answered.given)
    return may_not(who, wanted, view) or late(wanted, now)


def late(wanted: ApprovalWanted, now: datetime) -> Refusal | None:
    """Returns that nobody waits for an approval any more; None where somebody does."""
    if now < wanted.until:
        return None
    return Refusal(
        reason=Reason.DEADLINE_EXPIRED,
        message=f"too late: nobody waits for it since {wanted.until.isoformat()}",
    )


def may_not(who: str, wanted: ApprovalWanted, view: CatalogView) -> Refusal | None:
    """Returns why somebody may not decide about an approval; None where they may."""
    if who in _asked_by(wanted, view):
        said = f"{who} asked for it, and somebody else must decide"
    elif any(view.access.may(who, Privilege.MANAGE, each) for each in wanted.deciders):
        return None
    else:
        said = f"{who} may not decide: it takes MANAGE on {' or '.join(wanted.deciders)}"
    return Refusal(reason=Reason.PRIVILEGE_MISSING, message=said)


def settled_before(decision: Decision) -> Refusal:
    """Returns what is told to whoever decides what is decided."""
    by = f"by {decision.principal}" if decision.principal else "by its deadline"
    how = "granted" if decision.granted else "denied"
    return Refusal(
        reason=Reason.CONFLICT,
        message=f"already {how} {by} at {decision.decided_at.isoformat()}; that stands",
    )


def decide(decided: Decided, view: CatalogView, now: datetime, desk: Desk) -> Iterator[Outgoing]:
    """Acts on the first decision about an approval, and tells who decided; others do nothing."""
    event, given = decided.event, decided.event.given
    claimed = claim(_signature(event))
    if not decided.first:
        if given is not None:
            yield from _told(given, claimed, view, now, refusal=_second())
        return
    if given is not None:
        yield Outgoing(AUDIT_RECORDED, _done(decided, view))
        yield from _told(given, claimed, view, now)
    held = event.wanted.held
    if held is None:
        yield from _run_told(event, view, now)
    elif event.granted:
        yield from goes_on(held, view, now, desk)
    else:
        yield from held_back(held, _denied(event), view, now, desk)


def _run_told(event: ApprovalDecided, view: CatalogView, now: datetime) -> Iterator[Outgoing]:
    """Tells a run of an agent what was decided about its call, if it named where."""
    wanted = event.wanted
    if wanted.reply_to is None or run_of(wanted.request_id) is None:
        return
    if not view.has_reply_topic(wanted.reply_to):
        return
    result = {"granted": event.granted, "principal": event.principal, "reason": _reason(event)}
    replied = InferenceReplied(
        request_id=wanted.request_id,
        result=json.dumps(result, ensure_ascii=False),
        replied_at=now,
    )
    yield Outgoing(REPLY.at(wanted.reply_to), replied)


def _reason(event: ApprovalDecided) -> str:
    """Returns why it was decided so, in words; empty where who decided gave no reason."""
    if event.given is not None:
        return event.given.reason[:MOST_REASON]
    cancelled = event.decided_at < event.wanted.until
    return "the caller cancelled the request" if cancelled else "nobody decided in time"


def nobody_decided(wanted: ApprovalWanted, now: datetime) -> Outgoing:
    """Returns the decision of the clock; before the deadline, that the caller waits no more."""
    decided = ApprovalDecided(
        approval_id=wanted.approval_id,
        tenant=wanted.tenant,
        wanted=wanted,
        granted=False,
        decided_at=now,
    )
    return Outgoing(APPROVAL_DECIDED, decided)


def _denied(event: ApprovalDecided) -> Refusal:
    rules = " and ".join(event.wanted.rules)
    if event.given is None and event.decided_at < event.wanted.until:
        return Refusal(reason=Reason.CANCELLED, message="the caller cancelled the request")
    if event.given is None:
        said = f"nobody approved in time, and {rules} wants that; ask again with a later deadline"
    else:
        reason = event.given.reason[:MOST_REASON]
        said = f"{event.principal} denied it ({rules})" + (f": {reason}" if reason else "")
    return Refusal(
        reason=Reason.APPROVAL_DENIED,
        message=said,
        rule=event.wanted.rules[0] if event.wanted.rules else None,
    )


def _asked_by(wanted: ApprovalWanted, view: CatalogView) -> set[str]:
    """Returns who asked, and who did so for them."""
    asked, held = {wanted.principal}, wanted.held
    routed = held and (held.routed or (held.completed and held.completed.routed))
    key = view.keys.get(routed.signed.key_id) if routed and routed.signed else None
    return asked | {key.principal} if key else asked


def _unknown(given: ApprovalGiven) -> Refusal:
    return Refusal(
        reason=Reason.NOT_FOUND,
        message=f"nothing waits as {quoted(given.approval_id)}; see tessera approvals list",
        field="approval_id",
    )


def _second() -> Refusal:
    return Refusal(
        reason=Reason.CONFLICT, message="somebody else has decided it meanwhile; that stands"
    )


def _unanswerable(
    given: ApprovalGiven, who: str, view: CatalogView, now: datetime
) -> Refusal | None:
    tenant = view.tenants.get(view.principals[who].tenant or "")
    if tenant is None or given.reply_to not in tenant.reply_topics:
        return Refusal(
            reason=Reason.REPLY_ADDRESS_FORBIDDEN,
            message=f"{quoted(given.reply_to)} is no reply topic of the tenant of {who}",
            field="reply_to",
        )
    if given.deadline <= now:
        return Refusal(
            reason=Reason.DEADLINE_EXPIRED,
            message="the deadline of the command passed before the gateway saw it",
            field="deadline",
        )
    if given.deadline > now + timedelta(milliseconds=LONGEST_DEADLINE_MS):
        return Refusal(
            reason=Reason.REQUEST_INVALID,
            message=f"the deadline lies more than {LONGEST_DEADLINE_MS} ms ahead",
            field="deadline",
        )
    if len(given.reason) > MOST_REASON:
        return Refusal(
            reason=Reason.REQUEST_INVALID,
            message=f"a reason may have {MOST_REASON} characters",
            field="reason",
        )
    return None


def _told(
    given: ApprovalGiven,
    claimed: str,
    view: CatalogView,
    now: datetime,
    *,
    refusal: Refusal | None = None,
) -> Iterator[Outgoing]:
    """Tells whoever decides what came of it, on the topic of a tenant's that they named."""
    if view.has_reply_topic(given.reply_to):
        replied = InferenceReplied(
            request_id=given.given_id,
            refusal=refusal,
            result=None if refusal else "{}",
            claim=claimed,
            replied_at=now,
        )
        yield Outgoing(REPLY.at(given.reply_to), replied)


def _signature(event: ApprovalDecided) -> Signature | None:
    if event.signed is None or event.given is None:
        return None
    return Signature(
        key_id=event.signed.key_id,
        deadline_ms=milliseconds(event.given.deadline),
        signature=event.signed.signature,
        digest=event.signed.digest,
    )


def _kind(name: str, view: CatalogView) -> str:
    """Returns what is asked, as the catalog calls it."""
    asked = view.endpoints.get(name)
    return asked.kind if asked else "endpoint"


def _done(decided: Decided, view: CatalogView) -> AuditRecorded:
    event, wanted = decided.event, decided.event.wanted
    return AuditRecorded(
        audit_id=str(uuid5(NAMESPACE_URL, decided.place)),
        at=event.decided_at,
        source="gateway",
        principal=event.principal,
        tenant=wanted.tenant,
        key_id=event.signed.key_id if event.signed else None,
        action=_action(granted=event.granted),
        kind=_kind(wanted.endpoint, view),
        name=wanted.endpoint,
        outcome=AuditOutcome.DONE,
        reason=(event.given.reason or None) if event.given else None,
        request_id=wanted.request_id,
        trace_id=decided.trace_id,
    )


def _kept_out(
    answered: Answered, refusal: Refusal, view: CatalogView, now: datetime
) -> AuditRecorded:
    given, wanted = answered.given, answered.wanted
    proven = unproven_signer(answered.sender, view, now) is None
    who = identity(answered.sender, view) if proven else given.principal
    return AuditRecorded(
        audit_id=str(uuid5(NAMESPACE_URL, answered.place)),
        at=now,
        source="gateway",
        principal=who,
        tenant=given.tenant,
        key_id=answered.signed.key_id if answered.signed else None,
        action=_action(granted=given.granted),
        kind=_kind(wanted.endpoint, view) if wanted else "endpoint",
        name=wanted.endpoint if wanted else "",
        outcome=AuditOutcome.DENIED,
        reason=f"{refusal.reason}: {refusal.message}",
        request_id=wanted.request_id if wanted else None,
        trace_id=answered.trace_id,
    )


def _action(*, granted: bool) -> str:
    return "approval.granted" if granted else "approval.denied"
