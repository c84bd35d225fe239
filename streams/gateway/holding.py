"""Holding: what waits until somebody else, or a person, has said something of it.

Nothing waits here: what is held goes on as an event, and comes back as another one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from uuid import NAMESPACE_URL, uuid5

from infra.catalog import CatalogView
from schemas.events import (
    ApprovalWanted,
    Charge,
    Completion,
    InferenceCompleted,
    InferenceHeld,
    InferenceRouted,
    Judgement,
    Refusal,
    Route,
)
from schemas.topics import APPROVAL_WANTED, INFERENCE_HELD, Outgoing
from streams.gateway.desk import policies_of
from streams.gateway.reply import claimed
from streams.guards import Released, answer_texts, remote_rules, request_texts
from streams.guards.rules import Policies

# What is stopped, in the words of a question.
THINGS = {"input": "this request", "output": "the answer to it"}


def held_request(
    routed: InferenceRouted,
    policies: Policies,
    now: datetime,
    *,
    decision: str,
    approvals: Sequence[str] = (),
    asks: tuple[Charge, ...] = (),
    mirrors: tuple[Route, ...] = (),
    kept: Completion | None = None,
    trace_id: str | None = None,
) -> Outgoing | None:
    """Returns a request on its way to those who are to judge it; None where there is nobody.

    Args:
        routed: The request as it goes on, with what it reserves.
        policies: What it is held to.
        now: The moment.
        decision: Names the decision on its record, however often that is read.
        approvals: Rules here that want a person's approval.
        asks: What it asks of limits that tenants share.
        mirrors: Routes that get a copy.
        kept: What is kept as its answer.
        trace_id: W3C trace id of the request.
    """
    rules = remote_rules(policies, "input")
    if not rules and not approvals:
        return None
    request = routed.request
    held = InferenceHeld(
        held_id=_named(decision, "input"),
        tenant=request.tenant,
        request_id=request.request_id,
        stage="input",
        routed=routed,
        texts=request_texts(request),
        rules=rules,
        approvals=tuple(approvals),
        asks=asks,
        mirrors=mirrors,
        answer=kept,
        trace_id=trace_id,
        held_at=now,
        until=request.deadline,
    )
    return asking(held, now)


def held_answer(
    completed: InferenceCompleted, released: Released, view: CatalogView, now: datetime
) -> Outgoing | None:
    """Returns an answer on its way to those who are to judge it; None where there is nobody.

    What was judged already is not judged again.

    Args:
        completed: The answer as its worker gave it.
        released: What the guards here make of it.
        view: The catalog.
        now: The moment.
    """
    if completed.judgements is not None:
        return None
    routed = completed.routed
    request = routed.request
    policies = policies_of(request.tenant, request.endpoint, view)
    rules = () if isinstance(policies, Refusal) else remote_rules(policies, "output")
    if not rules and not released.approvals:
        return None
    # Who uses an id twice is asked about twice: each is another answer.
    place = (
        request.tenant,
        request.request_id,
        claimed(routed),
        routed.decision_id or routed.charge_id,
    )
    held = InferenceHeld(
        held_id=_named(*place, str(routed.attempt), "output"),
        tenant=request.tenant,
        request_id=request.request_id,
        stage="output",
        completed=completed,
        texts=answer_texts(released.kept),
        rules=rules,
        approvals=released.approvals,
        held_at=now,
        until=request.deadline,
    )
    return asking(held, now)


def asking(held: InferenceHeld, now: datetime) -> Outgoing:
    """Returns what is held on its way to the rules that are left, or to a person when none is."""
    if held.rules:
        return Outgoing(INFERENCE_HELD, held)
    routed = routed_of(held)
    request, policies = routed.request, {rule.partition("/")[0] for rule in held.approvals}
    wanted = ApprovalWanted(
        approval_id=_named(held.held_id, "approval"),
        tenant=held.tenant,
        request_id=held.request_id,
        principal=request.principal,
        endpoint=request.endpoint,
        stage=held.stage,
        rules=held.approvals,
        question=f"{request.principal or held.tenant} asks {request.endpoint}, and "
        f"{' and '.join(held.approvals)} lets {THINGS[held.stage]} pass only if somebody agrees",
        # Of several policies, none speaks for the others.
        deciders=(request.endpoint, *(policies if len(policies) == 1 else ())),
        held=held,
        wanted_at=now,
        until=held.until,
    )
    return Outgoing(APPROVAL_WANTED, wanted)


def routed_of(held: InferenceHeld) -> InferenceRouted:
    """Returns the request that is held, or whose answer is.

    Raises:
        ValueError: There is neither.
    """
    if held.routed is not None:
        return held.routed
    if held.completed is not None:
        return held.completed.routed
    raise ValueError("neither a request nor an answer is held")


def sensitive(judgements: Iterable[Judgement]) -> bool:
    """Returns whether what was said of an answer holds for this caller alone: nobody keeps it."""
    return any(each.verdict in ("ASK", "MASK") and not each.shadow for each in judgements)


def judged_answer(
    completed: InferenceCompleted, judgements: Sequence[Judgement]
) -> InferenceCompleted:
    """Returns an answer with what was said of it, so that it is not held again."""
    return replace(completed, judgements=tuple(judgements))


def _named(*place: str) -> str:
    """Returns what names a wait: the same whenever its cause is read again."""
    return str(uuid5(NAMESPACE_URL, "/".join(place)))
