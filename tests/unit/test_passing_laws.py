"""Laws of the ways that a request takes after it was admitted: from limit to limit, try to try."""

from __future__ import annotations

import json
from collections import Counter as Count
from dataclasses import replace
from datetime import datetime, timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.catalog import CatalogView
from schemas import topics
from schemas.events import (
    Charge,
    Entry,
    InferenceCompleted,
    InferenceRecorded,
    InferenceRefused,
    InferenceRouted,
    InferenceWeighed,
    Reason,
    Refusal,
    UsageCounted,
)
from schemas.topics import Outgoing
from streams.gateway.desk import Desk
from streams.gateway.limits.counters import Counters
from streams.gateway.weighed import Heard, pass_on
from tests.unit.asking import NOON
from tests.unit.deciding import release
from tests.unit.events import TEXT
from tests.unit.limiting import HOUR, PLAIN, rule
from tests.unit.limiting import view_with as limited
from tests.unit.routing import NAME, SECOND, ended, refusal, request, route, view_with, way
from tests.unit.test_gateway_laws import CODEC, of, terminal

many = settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

SHARED = ("main.tests.asked/group/requests/1h/eng", "main.tests.asked/service/requests/1h/all")
# So many of each are left to be taken.
ROOM = st.integers(0, 2)


@st.composite
def limits(draw: st.DrawFn) -> CatalogView:
    """Catalogs whose tenants share limits, with room or without, that may be in shadow or gone."""
    rules = [
        rule("group", per="group", to=["eng"], most=draw(ROOM), shadow=draw(st.booleans())),
        rule("service", per="service", most=draw(ROOM), shadow=draw(st.booleans())),
    ]
    return limited(*rules[draw(st.integers(0, 2)) :])


@st.composite
def weighings(draw: st.DrawFn) -> InferenceWeighed:
    """Requests that ask something of one or two limits, of themselves any."""
    asks = [
        Charge(counter=name, home=name, unit="requests", amount=draw(st.integers(0, 2)))
        for name in SHARED
    ]
    routed = InferenceRouted(
        request=replace(
            request(draw(TEXT), principal="ann", reply_to=topics.REPLY.member("acme").name),
            tenant="acme",
            endpoint=PLAIN,
            deadline=NOON + HOUR,
        ),
        route=limited().endpoints[PLAIN].routes[0],
        charge_id=draw(st.sampled_from(["one", "two"])),
        routed_at=NOON,
    )
    return InferenceWeighed(
        routed=routed, asks=tuple(asks[draw(st.integers(0, 1)) :]), weighed_at=NOON
    )


def fits(outgoing: list[Outgoing]) -> None:
    """Asserts that all of it can be put on its topic, and is the same when it is read."""
    for topic, event in outgoing:
        topic.key(event).encode()
        assert CODEC.decode(CODEC.encode(event), topic.event) == event


@many
@given(
    weighed=weighings(),
    view=limits(),
    before=st.lists(st.sampled_from(["one", "two", "three"]), unique=True),
    late=st.sampled_from([-60, 0, 3599, 3600]),
)
def test_a_request_is_passed_on_once_or_refused_once_and_decided_alike_when_it_comes_again(
    weighed: InferenceWeighed, view: CatalogView, before: list[str], late: int
) -> None:
    now, counters, ask = NOON + late * SECOND, Counters(shared=True), weighed.asks[0]
    for name in before:
        taken = replace(ask, amount=1)
        counters.apply(_entry(name, taken), counters.offset)
    used = counters.used(ask, now)
    heard = Heard(weighed=weighed, counters=counters)
    outgoing = list(pass_on(heard, view, now, Desk()))
    assert outgoing == list(pass_on(heard, view, now, Desk()))
    fits(outgoing)
    onward, refused = of(InferenceWeighed, outgoing), of(InferenceRefused, outgoing)
    routed = of(InferenceRouted, outgoing)
    assert len(onward) + len(refused) + len(routed) == 1
    assert len(terminal(outgoing)) == len(refused)
    for each in (*onward, *routed):
        whole = each.routed if isinstance(each, InferenceWeighed) else each
        assert whole.request == weighed.routed.request
        assert whole.charges == (ask,)
    for each in refused:
        assert each.request.request_id == weighed.routed.request.request_id
    assert [each.asks for each in onward] == [weighed.asks[1:]] * (
        len(weighed.asks) == 2 and not refused
    )
    decided = [each for each in of(UsageCounted, outgoing) if each.entry is not Entry.SETTLED]
    assert len(decided) == (weighed.routed.charge_id not in before)
    for each in decided:
        assert each.entry is (Entry.REFUSED if refused else Entry.RESERVED)
        counters.apply(each, counters.offset)
    # Whatever was decided, no more than the limit is taken by it.
    if decided and not refused and _holds(ask, view):
        assert counters.used(ask, now) == used + ask.amount <= _holds(ask, view)
    again = list(pass_on(heard, view, now, Desk()))
    assert again == [each for each in outgoing if each.event not in decided]


def _entry(name: str, charge: Charge) -> UsageCounted:
    return UsageCounted(
        charge_id=name,
        home=charge.home,
        shared=True,
        tenant="acme",
        request_id=name,
        entry=Entry.RESERVED,
        charges=(charge,),
        at=NOON,
        until=NOON + 2 * HOUR,
    )


def _holds(ask: Charge, view: CatalogView) -> int:
    """Returns what the rule of a charge allows; 0 where none that refuses is there."""
    name = ask.counter.split("/")[1]
    for each in view.policies["main.tests.asked"].rules:
        if each.name == name and not each.shadow:
            return int(each.most)  # type: ignore[union-attr]
    return 0


@st.composite
def failing(draw: st.DrawFn) -> tuple[CatalogView, Count[str]]:
    """Catalogs whose routes are tried again, and how often each may be tried at most."""
    retries = {name: draw(st.integers(0, 3)) for name in draw(st.sampled_from(["a", "ab", "abc"]))}
    reasons = draw(st.just([]) | st.lists(st.sampled_from(sorted(Reason))))
    view = view_with(
        *(way(name, retries=times) for name, times in retries.items()),
        **({"fall_back_on": reasons} if reasons else {}),
    )
    return view, Count({name: 1 + times for name, times in retries.items()})


@many
@given(
    given_=failing(),
    answers=st.lists(
        st.builds(
            refusal, st.sampled_from(Reason), retry_after_ms=st.none() | st.integers(-1, 10**5)
        ),
        min_size=1,
        max_size=4,
    ),
    took_ms=st.integers(0, 5000),
)
def test_a_request_whose_tries_all_fail_is_tried_in_bounds_and_ends_in_one_row_and_one_reply(
    given_: tuple[CatalogView, Count[str]], answers: list[Refusal], took_ms: int
) -> None:
    (view, most), asked = given_, request("tried")
    names = sorted(most)
    routed = InferenceRouted(
        request=asked,
        route=route(view, names[0]),
        fallbacks=tuple(route(view, name) for name in names[1:]),
        routed_at=NOON,
    )
    tried, now, tries = Count[str](), NOON, 0
    while True:
        tried[routed.route.name] += 1
        now = max(now, routed.not_before or now) + timedelta(milliseconds=took_ms)
        completed = ended(routed, answers[tries % len(answers)], now)
        outgoing = _released(completed, view, now)
        tries += 1
        onward = of(InferenceRouted, outgoing)
        rows = of(InferenceRecorded, outgoing)
        assert len(onward) + len(rows) == 1
        if rows:
            break
        assert terminal(outgoing) == []
        [routed] = onward
        assert routed.request == asked
        assert (routed.attempt, len(routed.tried)) == (tries, tries)
        assert now < asked.deadline
        assert routed.not_before is None or now <= routed.not_before < asked.deadline
    assert tried <= most
    [row], [reply] = rows, terminal(outgoing)
    assert (row.attempts, row.response, row.request_id) == (tries, None, asked.request_id)
    assert json.loads(row.request)
    assert (reply.refusal, reply.completion) == (completed.refusal, None)
    assert len(reply.tried) == tries - 1


def _released(completed: InferenceCompleted, view: CatalogView, now: datetime) -> list[Outgoing]:
    outgoing = list(release(completed, view, now))
    assert outgoing == list(release(completed, view, now))
    fits(outgoing)
    assert completed.routed.request.endpoint == NAME
    return outgoing
