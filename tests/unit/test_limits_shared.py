"""Limits that tenants share: each is asked where it is counted; all is reserved or nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

import pytest

from infra.catalog import CatalogView
from schemas.events import (
    Entry,
    InferenceRefused,
    InferenceReplied,
    InferenceRouted,
    InferenceWeighed,
    Judgement,
    Reason,
    UsageCounted,
)
from schemas.topics import INFERENCE_ROUTED, INFERENCE_WEIGHED, Outgoing
from streams.gateway.desk import Desk
from streams.gateway.limits.counters import Counters
from streams.gateway.limits.weigh import Weighed
from streams.gateway.weighed import Heard, pass_on
from tests.unit.asking import NOON
from tests.unit.limiting import HOUR, Gateway, routed_with, rule, view_with

OWN = rule("own", per="tenant", most=9)
SERVICE = rule("service", per="service", most=1)
GROUP = rule("group", per="group", to=["eng"], most=1)


def weighed_by(view: CatalogView) -> InferenceWeighed:
    """Returns a request that its tenant's limits let pass."""
    weighed = Gateway(view).asks()
    assert isinstance(weighed, Weighed)
    routed = routed_with(weighed, view)
    return InferenceWeighed(routed=routed, asks=weighed.asks, weighed_at=NOON)


def at(
    counters: Counters, weighed: InferenceWeighed, view: CatalogView, name: str = ""
) -> list[Outgoing]:
    """Decides on a request where it is asked first, and counts what was decided."""
    if name:
        weighed = replace(weighed, routed=replace(weighed.routed, charge_id=name))
    outgoing = list(pass_on(Heard(weighed=weighed, counters=counters), view, NOON, Desk()))
    for entry in entries(outgoing):
        if entry.entry is not Entry.SETTLED:
            counters.apply(entry, counters.offset)
    return outgoing


def entries(outgoing: Iterable[Outgoing]) -> list[UsageCounted]:
    return [event for _, event in outgoing if isinstance(event, UsageCounted)]


def onward(outgoing: Iterable[Outgoing]) -> InferenceWeighed:
    [weighed] = [event for _, event in outgoing if isinstance(event, InferenceWeighed)]
    return weighed


def test_a_request_comes_by_each_home_and_then_goes_on_its_route() -> None:
    view = view_with(OWN, SERVICE, GROUP)
    first = weighed_by(view)
    assert INFERENCE_WEIGHED.key(first) == "main.tests.asked/group/requests/1h/eng"
    second = onward(at(Counters(shared=True), first, view))
    assert INFERENCE_WEIGHED.key(second).startswith("main.tests.asked/service/")
    outgoing = at(Counters(shared=True), second, view)
    [(topic, routed)] = [each for each in outgoing if isinstance(each.event, InferenceRouted)]
    assert topic.name == INFERENCE_ROUTED.member("first").name
    assert isinstance(routed, InferenceRouted)
    assert [each.counter.split("/")[1] for each in routed.charges] == ["own", "group", "service"]
    [entry] = entries(outgoing)
    assert (entry.entry, entry.shared, entry.home) == (
        Entry.RESERVED,
        True,
        second.asks[0].home,
    )
    assert entry.until == routed.request.deadline + timedelta(seconds=60)


def test_where_a_later_home_refuses_what_was_reserved_before_is_given_back() -> None:
    view = view_with(OWN, SERVICE, GROUP)
    groups, services = Counters(shared=True), Counters(shared=True)
    first = weighed_by(view)
    at(services, onward(at(groups, first, view)), view)
    # The group has room for one more, the service has not.
    view = view_with(OWN, SERVICE, GROUP | {"most": 2})
    outgoing = at(services, onward(at(groups, first, view, "second")), view)
    assert [(each.entry, each.home.split("/")[0]) for each in entries(outgoing)] == [
        (Entry.REFUSED, "main.tests.asked"),
        (Entry.SETTLED, "acme"),
        (Entry.SETTLED, "main.tests.asked"),
    ]
    for each in entries(outgoing):
        assert each.charge_id
        assert all(charge.amount == 0 for charge in each.charges)
    [refused] = [event for _, event in outgoing if isinstance(event, InferenceRefused)]
    [replied] = [event for _, event in outgoing if isinstance(event, InferenceReplied)]
    assert refused.refusal == replied.refusal
    assert refused.refusal.reason is Reason.LIMIT_EXCEEDED
    assert refused.refusal.rule == "main.tests.asked/service"
    # One of the group's two is taken, when the other is back.
    for each in entries(outgoing)[2:]:
        groups.apply(replace(each, charge_id="second"), groups.offset)
    assert groups.used(first.asks[0], NOON) == 1


@pytest.mark.parametrize(("most", "shadow", "used"), [(1, False, 1), (0, False, 0), (0, True, 1)])
def test_a_request_that_was_put_here_twice_is_decided_once(
    most: int, shadow: bool, used: int
) -> None:
    view = view_with(SERVICE | {"most": most, "shadow": shadow})
    counters, weighed = Counters(shared=True), weighed_by(view)
    first = at(counters, weighed, view)
    again = at(counters, weighed, view)
    assert again == [each for each in first if each.event is not entries(first)[0]]
    assert counters.used(weighed.asks[0], NOON) == used


def test_what_waited_beyond_its_deadline_is_refused() -> None:
    view = view_with(SERVICE)
    heard = Heard(weighed=weighed_by(view), counters=Counters(shared=True))
    outgoing = list(pass_on(heard, view, NOON + 2 * HOUR, Desk()))
    [refused] = [event for _, event in outgoing if isinstance(event, InferenceRefused)]
    assert refused.refusal.reason is Reason.DEADLINE_EXPIRED


def test_a_limit_that_is_gone_meanwhile_refuses_nothing_and_a_policy_that_is_gone_all() -> None:
    view = view_with(SERVICE | {"most": 0})
    weighed = weighed_by(view)
    assert not any(
        isinstance(event, InferenceRefused)
        for _, event in at(Counters(shared=True), weighed, view_with())
    )
    ask = replace(weighed.asks[0], counter="main.tests.gone/service/requests/1h/x")
    outgoing = at(Counters(shared=True), replace(weighed, asks=(ask,)), view)
    [refused] = [event for _, event in outgoing if isinstance(event, InferenceRefused)]
    assert refused.refusal.reason is Reason.POLICY_FAILED


def test_a_shared_rule_that_is_only_evaluated_refuses_nothing() -> None:
    view = view_with(SERVICE | {"most": 0, "shadow": True})
    outgoing = at(Counters(shared=True), weighed_by(view), view)
    [routed] = [event for _, event in outgoing if isinstance(event, InferenceRouted)]
    assert routed.judgements == (
        Judgement(rule="main.tests.asked/service", stage="admit", verdict="DENY", shadow=True),
    )
