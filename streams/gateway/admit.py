"""Admission: a request goes on its route, is answered out of the cache, or is refused.

Nothing is reserved for a request that is refused: what may refuse it comes first, and the ledger
last. What was decided on a record before a crash is decided the same way again, and counts once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from infra.catalog import CatalogView
from infra.identity import identity
from schemas.events import (
    Completion,
    Entry,
    InferenceRouted,
    InferenceWeighed,
    Reason,
    Refusal,
    Route,
)
from schemas.topics import INFERENCE_WEIGHED, Outgoing
from streams.gateway.access import access_of, disguised, unnamed
from streams.gateway.asked import Asked
from streams.gateway.cache import cache_key, looked_up
from streams.gateway.checks import first_refusal
from streams.gateway.checks.endpoint import endpoint_known
from streams.gateway.checks.tool import version_there
from streams.gateway.desk import Desk, policies_of
from streams.gateway.holding import held_request
from streams.gateway.limits.weigh import Weighed, entry, refused, reserved, weigh
from streams.gateway.refuse import refuse
from streams.gateway.release import answer
from streams.gateway.reply import signed
from streams.gateway.routing import choose, of_version
from streams.gateway.sending import sent
from streams.guards import guard_request, holds_parts

# Refusals that a limit gave, so that whoever reads the record again gives them, too.
BY_LIMITS = frozenset({Reason.BUDGET_EXCEEDED, Reason.LIMIT_EXCEEDED, Reason.PRICE_UNKNOWN})


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """A request that is admitted.

    Attributes:
        routed: Where it goes.
        weighed: What it reserves.
        mirrors: Routes that get a copy.
        kept: What is kept as its answer, masked; None where it must be asked for.
        waiting: It on its way to those who are to judge it first; None where there is nobody.
    """

    routed: InferenceRouted
    weighed: Weighed
    mirrors: tuple[Route, ...] = ()
    kept: Completion | None = None
    waiting: Outgoing | None = None


def admit(asked: Asked, view: CatalogView, now: datetime, desk: Desk) -> Iterator[Outgoing]:
    """Sends a request on its route, answers it, or refuses it with a reply.

    Onward it carries who was found to act. What was put here twice was decided the first time.
    """
    if asked.moved_again:
        return
    decided = _refused_by_check(asked, view, now) or _passed(asked, view, now, desk)
    if isinstance(decided, Refusal):
        yield from _undone(asked, decided, now)
        yield from refuse(asked, decided, view, now)
        return
    yield from reserved(asked, decided.weighed, now)
    if decided.waiting is not None:
        yield decided.waiting
    elif decided.weighed.asks:
        weighed = InferenceWeighed(
            routed=decided.routed,
            asks=decided.weighed.asks,
            mirrors=decided.mirrors,
            answer=decided.kept,
            trace_id=asked.trace_id,
            weighed_at=now,
        )
        yield Outgoing(INFERENCE_WEIGHED, weighed)
    elif decided.kept is not None:
        yield from answer(decided.routed, decided.kept, view, now, desk)
    else:
        yield from sent(decided.routed, decided.mirrors)


def _refused_by_check(asked: Asked, view: CatalogView, now: datetime) -> Refusal | None:
    """Returns why a request is not admitted, unless it was before a crash.

    It may be on its way already: whatever time and catalog have become since, its worker or whoever
    releases it ends it, once. All that must still be there is what it asks for.
    """
    earlier = asked.counters.earlier(asked.charge_id)
    if earlier is None or earlier.entry is not Entry.RESERVED:
        return first_refusal(asked, view, now)
    return endpoint_known(asked, view, now) or version_there(asked, view, now)


def _passed(asked: Asked, view: CatalogView, now: datetime, desk: Desk) -> Passed | Refusal:
    """Returns how a request goes on, or the first thing that keeps it."""
    who = identity(asked.sender, view)
    request = replace(asked.request, principal=who)
    endpoint = of_version(request, view.endpoints[request.endpoint], view)
    assert not isinstance(endpoint, Refusal)  # by the checks
    chosen = choose(request, who, endpoint, view, desk.health, now, draw=asked.charge_id)
    if isinstance(chosen, Refusal):
        return chosen
    key = cache_key(request, endpoint, view)
    kept = desk.answers.get(request.tenant, key, now) if looked_up(endpoint) else None
    weighed = weigh(
        asked,
        who,
        endpoint,
        chosen.route,
        view,
        now,
        fallbacks=chosen.fallbacks,
        cached=kept is not None,
    )
    if isinstance(weighed, Refusal):
        return weighed
    fallbacks = chosen.fallbacks
    if weighed.without:
        fallbacks = tuple(each for each in fallbacks if each not in weighed.without)
    policies = policies_of(request.tenant, request.endpoint, view)
    if isinstance(policies, Refusal):
        return policies
    guarded = guard_request(request, policies, desk.seal, waits=True)
    if isinstance(guarded, Refusal):
        return guarded
    if refusal := unnamed(request, guarded.request, view) or disguised(
        request, guarded.request, chosen.route, view
    ):
        return refusal
    held = endpoint.output_policy or holds_parts(policies, guarded.sealed)
    routed = InferenceRouted(
        request=guarded.request,
        route=chosen.route,
        fallbacks=fallbacks,
        # Without anything to look at, parts spare themselves the way through release.
        parts_to=None if held else request.parts_to or request.reply_to,
        signed=signed(asked.signed),
        routed_at=now,
        charge_id=weighed.charge_id,
        charges=weighed.charges,
        cache_key=key,
        sealed=guarded.sealed,
        judgements=(*weighed.judgements, *guarded.judgements),
        decision_id=asked.charge_id,
        access=access_of(who, endpoint.name, view).model_dump_json()
        if endpoint.kind == "index"
        else None,
    )
    waiting = held_request(
        routed,
        policies,
        now,
        decision=asked.charge_id,
        approvals=guarded.approvals,
        asks=weighed.asks,
        mirrors=chosen.mirrors,
        kept=kept,
        trace_id=asked.trace_id,
    )
    return Passed(
        routed=routed, weighed=weighed, mirrors=chosen.mirrors, kept=kept, waiting=waiting
    )


def _undone(asked: Asked, refusal: Refusal, now: datetime) -> Iterator[Outgoing]:
    """Says to the ledger that a request is refused, where it must know.

    What was reserved before a crash and can go on no more comes back: what it asks for is gone, or
    what it was answered with.
    """
    earlier = asked.counters.earlier(asked.charge_id)
    if earlier is None and refusal.reason in BY_LIMITS:
        yield from refused(asked, refusal, now)
    elif earlier is not None and earlier.entry is Entry.RESERVED:
        nothing = tuple(replace(charge, amount=0) for charge in earlier.charges)
        yield entry(asked, Entry.SETTLED, now, charges=nothing)
