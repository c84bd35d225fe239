"""Weighing: whether a request fits under all limits, and what it reserves.

All or nothing: one limit that refuses, and nothing is reserved of any. Counters that tenants share
are kept elsewhere, so what a request asks of them is only said here, and weighed there.

Of a budget a request reserves what the dearest of its route and fallbacks costs. A fallback without
a price, or one for which a budget has no room left, is taken off its list: so a route that costs
nothing still serves where a budget is spent, and what costs something never does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from infra.catalog import CatalogView, Endpoint
from schemas.events import (
    Charge,
    Entry,
    InferenceRequested,
    Judgement,
    Reason,
    Refusal,
    Route,
    UsageCounted,
)
from schemas.policies import LimitRule
from schemas.topics import USAGE_COUNTED, Outgoing
from streams.gateway.asked import Asked
from streams.gateway.limits.amounts import (
    Estimate,
    amount,
    at_price,
    estimated,
    is_free,
    scaled,
    shown,
    uses_none,
)
from streams.gateway.limits.counters import Counters
from streams.gateway.limits.rules import Bound, bounds

# How long after the deadline what is reserved comes back by itself.
LEASE = timedelta(seconds=60)

# What an answer from the cache counts as.
CACHED = frozenset({"in_flight", "requests"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighed:
    """What a request reserves.

    Attributes:
        charge_id: What it is reserved as; empty where no limit holds.
        charges: On counters of its tenant.
        asks: On counters that tenants share, still to be weighed, by their homes.
        judgements: Of rules that are only evaluated and would have refused it.
        again: Whether this was decided, and reserved, before a crash.
        without: Fallbacks that budgets have no room for: they are not tried.
    """

    charge_id: str = ""
    charges: tuple[Charge, ...] = ()
    asks: tuple[Charge, ...] = ()
    judgements: tuple[Judgement, ...] = ()
    again: bool = False
    without: tuple[Route, ...] = ()


NOTHING = Weighed()

# Sent on its route, it would use what it has not reserved.
FORGOTTEN = Refusal(
    reason=Reason.PROVIDER_UNAVAILABLE,
    message="the gateway lost the kept answer that this request was to be answered with; ask again",
    retry_after_ms=1000,
)


def weigh(  # noqa: PLR0917 - who asks what, and where it goes
    asked: Asked,
    who: str,
    endpoint: Endpoint,
    route: Route,
    view: CatalogView,
    now: datetime,
    *,
    fallbacks: tuple[Route, ...] = (),
    cached: bool = False,
) -> Weighed | Refusal:
    """Returns what a request reserves, or the first limit that it does not fit under.

    What was decided on this very record before is decided the same way. Where it was to be answered
    from a cache that has no answer any more, it is refused: it has reserved too little.

    Args:
        asked: The request, with its tenant's counters.
        who: Who acts.
        endpoint: What is asked.
        route: Where it would go.
        view: The catalog.
        now: The moment.
        fallbacks: Where it may go after that.
        cached: Whether the answer comes from the cache: then only requests are counted, and what is
            in flight.
    """
    earlier = asked.counters.earlier(asked.charge_id)
    if earlier is not None and earlier.refusal is not None:
        return earlier.refusal
    held = bounds(asked.request, who, endpoint, view)
    if isinstance(held, Refusal):
        return held
    if earlier is not None and not cached and _was_cached(earlier, held):
        return FORGOTTEN
    if cached:
        held = tuple(each for each in held if each.rule.unit in CACHED)
    if not held:
        return NOTHING
    expected = estimated(asked.request, endpoint, route, view, now)
    costs = [each for each in held if each.rule.unit == "cost"] if fallbacks else []
    left = {}
    if costs:
        alike = {each: at_price(expected.usage, each, view, now) for each in fallbacks}
        left = _affordable(costs, alike, asked, view, now)
    routes = (route, *(left if costs else fallbacks))
    charges: list[Charge] = []
    judgements: list[Judgement] = []
    for bound in held:
        charge = charged(bound, expected)
        refusal = charge if isinstance(charge, Refusal) else None
        if isinstance(charge, Charge):
            if bound.rule.unit == "cost" and left:
                charge = _dearest(bound, charge, left.values())
            charges.append(charge)
            if earlier is None and not bound.shared:
                none = uses_none(bound.rule.unit, asked.request.task, routes, view, now)
                refusal = unfit(bound.rule, bound.who, charge, asked.counters, now, none=none)
        if refusal is not None and not bound.rule.shadow and earlier is None:
            return refusal
        if refusal is not None and bound.rule.shadow:
            judgements.append(denied(bound.name))
    own = tuple(each for each in charges if each.home != each.counter)
    asks = sorted((each for each in charges if each.home == each.counter), key=_home)
    return Weighed(
        charge_id=asked.charge_id,
        charges=own if earlier is None else earlier.charges,
        asks=tuple(asks),
        judgements=tuple(judgements) if earlier is None else earlier.judgements,
        again=earlier is not None,
        without=tuple(each for each in fallbacks if each not in left) if costs else (),
    )


def _was_cached(earlier: UsageCounted, held: Iterable[Bound]) -> bool:
    """Returns whether a request reserved as one whose answer comes from the cache."""
    own = {each.rule.unit for each in held if not (each.shared or each.rule.shadow)}
    return not own <= CACHED and all(each.unit in CACHED for each in earlier.charges)


def _affordable(
    costs: Sequence[Bound],
    fallbacks: Mapping[Route, Estimate],
    asked: Asked,
    view: CatalogView,
    now: datetime,
) -> dict[Route, Estimate]:
    """Returns the fallbacks that budgets have room for, with what each is expected to use.

    Of one that was decided on before, those that fit into what it reserved.
    """
    earlier = asked.counters.earlier(asked.charge_id)
    reserved = {each.counter: each.amount for each in earlier.charges} if earlier else {}

    def fits(bound: Bound, route: Route, expected: Estimate) -> bool:
        if bound.rule.shadow:
            return True
        charge = charged(bound, expected)
        if isinstance(charge, Refusal):
            return False
        if bound.shared or is_free(route, view, now):
            return True
        if earlier is not None:
            return charge.amount <= reserved.get(bound.counter, charge.amount)
        return unfit(bound.rule, bound.who, charge, asked.counters, now) is None

    return {
        route: expected
        for route, expected in fallbacks.items()
        if all(fits(bound, route, expected) for bound in costs)
    }


def _dearest(bound: Bound, charge: Charge, others: Iterable[Estimate]) -> Charge:
    """Returns a charge of what the dearest costs; of a rule only evaluated, where that is known."""
    known = (amount(bound.rule, each) or 0 for each in others)
    return replace(charge, amount=max(charge.amount, *known))


def reserved(asked: Asked, weighed: Weighed, now: datetime) -> Iterator[Outgoing]:
    """Says what a request reserves; nothing where that is nothing, or was said before a crash."""
    if weighed.charges and not weighed.again:
        yield entry(
            asked, Entry.RESERVED, now, charges=weighed.charges, judgements=weighed.judgements
        )


def refused(asked: Asked, refusal: Refusal, now: datetime) -> Iterator[Outgoing]:
    """Says that a limit refused a request, so that it is refused whoever reads its record again."""
    if asked.counters.earlier(asked.charge_id) is None:
        yield entry(asked, Entry.REFUSED, now, refusal=refusal)


def entry(
    asked: Asked,
    what: Entry,
    now: datetime,
    *,
    charges: tuple[Charge, ...] = (),
    refusal: Refusal | None = None,
    judgements: tuple[Judgement, ...] = (),
) -> Outgoing:
    """Returns an entry of a tenant's ledger about a request."""
    request = asked.request
    counted = UsageCounted(
        charge_id=asked.charge_id,
        home=request.tenant,
        tenant=request.tenant,
        request_id=request.request_id,
        entry=what,
        charges=charges,
        refusal=refusal,
        judgements=judgements,
        at=now,
        until=lease_end(request),
    )
    return Outgoing(USAGE_COUNTED, counted)


def lease_end(request: InferenceRequested) -> datetime:
    """Returns when what is reserved for a request comes back by itself."""
    return request.deadline + LEASE


def charged(bound: Bound, expected: Estimate) -> Charge | Refusal:
    """Returns what a request counts with under a rule; refused where its price must be known."""
    rule = bound.rule
    counts = amount(rule, expected)
    if counts is None:
        return Refusal(
            reason=Reason.PRICE_UNKNOWN,
            message=f"the catalog has no price for this model, and {bound.name} counts its cost: "
            "set one on the model or its connection, or let the rule say what such requests cost "
            "(unpriced)",
            rule=bound.name,
        )
    return Charge(
        counter=bound.counter,
        home=bound.home,
        unit=rule.unit,
        window_ms=bound.window_ms,
        amount=counts,
        refunds=rule.unit == "requests" and not rule.counts_failed,
    )


def unfit(
    rule: LimitRule,
    who: str,
    charge: Charge,
    counters: Counters,
    now: datetime,
    *,
    none: bool = False,
) -> Refusal | None:
    """Returns why a charge does not fit under a rule's limit; None where it does.

    What costs nothing passes a spent budget, and who produces no tokens a spent limit of them.

    Args:
        rule: The limit.
        who: Whose use is counted.
        charge: What the request counts with.
        counters: What is used.
        now: The moment.
        none: Whether it uses nothing of what is counted (``uses_none``).
    """
    if none:
        return None
    most = scaled(rule.unit, rule.most)
    used = counters.used(charge, now)
    has_room = counters.has_room(charge)
    # What is not known beforehand, as how much will be cached, needs room for one at least.
    if has_room and used + max(charge.amount, 1) <= most:
        return None
    name = "/".join(charge.counter.split("/", 2)[:2])
    if not has_room:
        return Refusal(
            reason=Reason.POLICY_FAILED,
            message=f"{charge.home} has too many counters for {name} to keep one more: "
            "use fewer values of tags, or limit something with fewer",
            rule=name,
        )
    return Refusal(
        reason=Reason.BUDGET_EXCEEDED if rule.unit == "cost" else Reason.LIMIT_EXCEEDED,
        message=told(rule, name, who, charge.amount, used, counters.wait_ms(charge, most, now)),
        rule=name,
        limit=shown(rule.unit, most),
        used=shown(rule.unit, used),
        retry_after_ms=counters.wait_ms(charge, most, now),
    )


# What a counter counts, in words; the amount, the bound and what is used are put in.
WORDS = {
    "cached_tokens": "{used} of {most} cached tokens",
    "cost": "${used} of ${most}",
    "in_flight": "{used} of {most} requests at one time",
    "input_tokens": "{used} of {most} input tokens",
    "output_tokens": "{used} of {most} output tokens",
    "requests": "{used} of {most} requests",
    "total_tokens": "{used} of {most} tokens",
}


def told(  # noqa: PLR0917 - one sentence
    rule: LimitRule, name: str, who: str, counts: int, used: int, wait_ms: int | None
) -> str:
    """Returns what a caller is told whose request does not fit, and what can be done about it."""
    most = scaled(rule.unit, rule.most)
    said = WORDS[rule.unit].format(used=shown(rule.unit, used), most=shown(rule.unit, most))
    within = f" within {rule.window}" if rule.window else ""
    said = f"{who or 'what has no such tag'} uses {said}{within} ({name})"
    if rule.unit not in CACHED and counts:
        sign = "$" if rule.unit == "cost" else ""
        said += f", and this request counts with {sign}{shown(rule.unit, counts)}"
    if wait_ms is None:
        return f"{said}: it never fits; ask for less (max_tokens), or have the limit raised"
    return f"{said}; try again in {max(1, -(-wait_ms // 1000))} s, or have the limit raised"


def denied(name: str) -> Judgement:
    """Returns what is recorded of a rule that would have refused, were it not only evaluated."""
    return Judgement(rule=name, stage="admit", verdict="DENY", shadow=True)


def first_home(asks: Sequence[Charge]) -> tuple[tuple[Charge, ...], tuple[Charge, ...]]:
    """Returns what is asked at the first home, and the rest."""
    here = tuple(each for each in asks if each.home == asks[0].home)
    return here, tuple(asks[len(here) :])


def _home(charge: Charge) -> str:
    return charge.home
