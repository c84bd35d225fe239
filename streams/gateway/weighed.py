"""Limits that tenants share: a request comes by where each is counted, then goes on its route."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from infra.catalog import CatalogView
from schemas.events import (
    Charge,
    Entry,
    InferenceRouted,
    InferenceWeighed,
    Judgement,
    Reason,
    Refusal,
    UsageCounted,
)
from schemas.topics import (
    INFERENCE_WEIGHED,
    USAGE_COUNTED,
    Outgoing,
)
from streams.gateway.desk import Desk
from streams.gateway.limits.amounts import is_free, uses_none
from streams.gateway.limits.counters import Counters
from streams.gateway.limits.journal import Journalled
from streams.gateway.limits.ledger import Ledger
from streams.gateway.limits.rules import rule_of
from streams.gateway.limits.settle import given_back
from streams.gateway.limits.weigh import denied, first_home, lease_end, unfit
from streams.gateway.release import answer
from streams.gateway.reply import turned_back
from streams.gateway.sending import sent
from streams.steps import Fail, Runtime, Step, Taken


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """A request that asks something of limits that tenants share, with their counters."""

    weighed: InferenceWeighed
    counters: Counters


class Weighing(Journalled):
    """Work that decides on limits that tenants share.

    Args:
        step: Decides on what was ``Heard``.
        runtime: What the process has at hand.
        fail: Ends the process.
        ledger: Keeps the counters.
    """

    def __init__(self, step: Step, runtime: Runtime, fail: Fail, ledger: Ledger) -> None:
        super().__init__(INFERENCE_WEIGHED, step, runtime, fail, ledger, shared=True)

    async def _given(self, taken: Taken) -> Heard:
        weighed: InferenceWeighed = taken.event  # type: ignore[assignment]
        return Heard(weighed=weighed, counters=await self._opened(taken))


def pass_on(heard: Heard, view: CatalogView, now: datetime, desk: Desk) -> Iterator[Outgoing]:
    """Reserves what is asked here, and sends the request on: to the next limit, or on its route.

    One limit that refuses, and what was reserved elsewhere is given back. A route that costs
    nothing still serves where a budget is spent, without the fallbacks that cost something. A
    request that was put here twice was decided the first time, and is decided the same way.
    """
    weighed, routed = heard.weighed, heard.weighed.routed
    here, asks = first_home(weighed.asks)
    earlier = heard.counters.earlier(routed.charge_id)
    found: tuple[Judgement, ...] = ()
    spent: frozenset[str] = frozenset()
    refusal = earlier.refusal if earlier else None
    if earlier is not None:
        found = earlier.judgements
        lowered = frozenset(each.counter for each in earlier.charges)
        spent = frozenset(each.counter for each in here if each.amount) & lowered
    elif now >= routed.request.deadline:
        refusal = _late()
    else:
        refusal, found, spent = _weighed(routed, here, heard.counters, view, now)
    if spent:
        here = tuple(replace(each, amount=0) if each.counter in spent else each for each in here)
        free = tuple(each for each in routed.fallbacks if is_free(each, view, now))
        routed = replace(routed, fallbacks=free)
    if earlier is None:
        what = Entry.REFUSED if refusal else Entry.RESERVED
        yield Outgoing(USAGE_COUNTED, _entry(weighed, here, what, refusal, found, now))
    if refusal:
        yield from given_back(routed, now)
        yield from turned_back(routed, refusal, view, now)
        return
    routed = replace(
        routed,
        charges=(*routed.charges, *here),
        judgements=(*routed.judgements, *found),
    )
    if asks:
        onward = replace(weighed, routed=routed, asks=asks, weighed_at=now)
        yield Outgoing(INFERENCE_WEIGHED, onward)
    elif weighed.answer is not None:
        yield from answer(routed, weighed.answer, view, now, desk)
    else:
        yield from sent(replace(routed, routed_at=now), weighed.mirrors)


def _weighed(
    routed: InferenceRouted,
    here: tuple[Charge, ...],
    counters: Counters,
    view: CatalogView,
    now: datetime,
) -> tuple[Refusal | None, tuple[Judgement, ...], frozenset[str]]:
    """Returns the first limit that does not fit, or what rules found that are only evaluated.

    Third come counters of budgets that have room for the route alone, since it costs nothing.
    """
    routes, task = (routed.route, *routed.fallbacks), routed.request.task
    found, spent = [], set()
    for charge in here:
        rule = rule_of(charge.counter, view)
        if isinstance(rule, Refusal):
            return rule, (), frozenset()
        # A rule that is gone limits nothing.
        if rule is None:
            continue
        policy, name, _, _, who = charge.counter.split("/", 4)
        none = uses_none(charge.unit, task, routes, view, now)
        refusal = unfit(rule, who, charge, counters, now, none=none)
        if refusal and rule.shadow:
            found.append(denied(f"{policy}/{name}"))
        elif refusal and uses_none(charge.unit, task, routes[:1], view, now):
            spent.add(charge.counter)
        elif refusal:
            return refusal, (), frozenset()
    return None, tuple(found), frozenset(spent)


def _late() -> Refusal:
    return Refusal(
        reason=Reason.DEADLINE_EXPIRED,
        message="the deadline passed while the request waited for limits that tenants share",
        field="deadline",
    )


def _entry(  # noqa: PLR0917 - what was decided, and why
    weighed: InferenceWeighed,
    here: tuple[Charge, ...],
    what: Entry,
    refusal: Refusal | None,
    found: tuple[Judgement, ...],
    now: datetime,
) -> UsageCounted:
    request = weighed.routed.request
    return UsageCounted(
        charge_id=weighed.routed.charge_id,
        home=here[0].home,
        shared=True,
        tenant=request.tenant,
        request_id=request.request_id,
        entry=what,
        charges=() if refusal else here,
        refusal=refusal,
        judgements=found,
        at=now,
        until=lease_end(request),
    )
