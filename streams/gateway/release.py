"""Release: what becomes of an answer, or of the lack of one.

Each try of a route leaves a row of its own. A failure may go on to the next try; all else ends the
request: one reply, one row, and the ledger settled with what was really used.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from infra.catalog import CatalogView
from schemas.events import (
    Completion,
    InferenceCompleted,
    InferencePart,
    InferenceReplied,
    InferenceRouted,
    Refusal,
    Task,
    Usage,
)
from schemas.topics import (
    INFERENCE_ATTEMPTED,
    INFERENCE_RECORDED,
    INFERENCE_ROUTED,
    Outgoing,
)
from streams.gateway.cache import keep
from streams.gateway.desk import Desk, policies_of
from streams.gateway.holding import held_answer, sensitive
from streams.gateway.limits.settle import settled
from streams.gateway.reply import claimed, epoch_ms, home, to_caller
from streams.gateway.routing import next_try
from streams.gateway.rows import (
    NOTHING,
    attempted,
    cost_of,
    cost_of_all,
    in_dollars,
    row,
    row_of_cached,
    used_by,
    used_by_all,
)
from streams.guards import Released, guard_completion


def release(
    completed: InferenceCompleted, view: CatalogView, now: datetime, desk: Desk
) -> Iterator[Outgoing]:
    """Sends the answer to the caller and records it, or tries once more."""
    routed = completed.routed
    released = None
    if completed.completion and not routed.mirrored:
        held = _held(completed.completion, routed, view, desk)
        if isinstance(held, Released):
            if waiting := held_answer(completed, held, view, now):
                yield waiting
                return
            released = held
        else:
            # What a policy holds back was used all the same.
            used = used_by(completed)
            completed = replace(completed, completion=None, refusal=held, usage=used)
    cost = cost_of(routed.route, used_by(completed), view, completed.started_at)
    yield Outgoing(INFERENCE_ATTEMPTED, attempted(completed, in_dollars(cost), now))
    if routed.mirrored:
        return
    # Not by the clock, which would end what goes on if this is read again after the deadline.
    if again := next_try(completed, view, desk.health, completed.completed_at):
        yield Outgoing(INFERENCE_ROUTED.member(again.route.pool), again)
        return
    yield from _ended(completed, released, view, now)


def answer(
    routed: InferenceRouted, kept: Completion, view: CatalogView, now: datetime, desk: Desk
) -> Iterator[Outgoing]:
    """Answers a request with what was kept of the same one: it uses nothing and costs nothing."""
    held = _held(kept, routed, view, desk)
    if isinstance(held, Refusal):
        refused = InferenceCompleted(routed=routed, refusal=held, started_at=now, completed_at=now)
        yield from _ended(refused, None, view, now)
        return
    replied = InferenceReplied(
        request_id=routed.request.request_id,
        epoch=epoch_ms(now),
        completion=held.reply,
        claim=claimed(routed),
        replied_at=now,
        cost_usd=NOTHING,
    )
    yield from to_caller(home(routed, view), routed.request.reply_to, replied, view)
    recorded = row_of_cached(
        routed,
        completion=held.kept,
        judgements=held.judgements,
        now=now,
    )
    yield Outgoing(INFERENCE_RECORDED, recorded)
    yield from settled(routed, Usage(), 0, failed=False, now=now)


def release_part(part: InferencePart, view: CatalogView, now: datetime) -> Iterator[Outgoing]:
    """Sends a part on to the caller, unless nobody waits for it any more.

    Parts say not which record they answer; what is final does, and has the whole text again. Nor do
    they say who signed: they go to the tenant itself, or to nobody.
    """
    tenant = view.tenants.get(part.tenant)
    if now < part.deadline and tenant is not None and part.reply_to in tenant.reply_topics:
        replied = InferenceReplied(
            request_id=part.request_id,
            attempt=part.attempt,
            epoch=part.epoch,
            seq=part.seq,
            delta=part.delta,
            replied_at=now,
        )
        yield from to_caller(part.tenant, part.reply_to, replied, view)


def _held(
    completion: Completion, routed: InferenceRouted, view: CatalogView, desk: Desk
) -> Released | Refusal:
    """Holds an answer to its policies."""
    policies = policies_of(routed.request.tenant, routed.request.endpoint, view)
    if isinstance(policies, Refusal):
        return policies
    return guard_completion(completion, routed, policies, desk.seal, waits=True)


def _ended(
    completed: InferenceCompleted, released: Released | None, view: CatalogView, now: datetime
) -> Iterator[Outgoing]:
    """Says to caller, table and ledger how a request ended."""
    routed, cost = completed.routed, cost_of_all(completed, view)
    said = completed.judgements or ()
    of_agent = routed.request.task is Task.AGENT
    replied = InferenceReplied(
        request_id=routed.request.request_id,
        attempt=routed.attempt,
        epoch=epoch_ms(completed.started_at),
        seq=completed.parts,
        completion=released.reply if released else None,
        refusal=completed.refusal,
        tried=routed.tried,
        claim=claimed(routed),
        replied_at=now,
        # What an agent asked for was charged where that ended, and costs its caller all the same.
        cost_usd=completed.cost_usd if of_agent else in_dollars(cost),
    )
    yield from to_caller(home(routed, view), routed.request.reply_to, replied, view)
    recorded = row(
        completed,
        cost=in_dollars(cost),
        completion=released.kept if released else None,
        judgements=(*(released.judgements if released else ()), *said),
        now=now,
    )
    yield Outgoing(INFERENCE_RECORDED, recorded)
    failed = completed.refusal is not None
    yield from settled(routed, used_by_all(completed), cost, failed=failed, now=now)
    if released and released.cacheable and not (released.approvals or sensitive(said)):
        yield from keep(routed, released.kept, view, now)
