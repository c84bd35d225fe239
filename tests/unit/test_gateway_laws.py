"""Laws that the gateway's steps keep, whatever the event and the catalog."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.catalog import CatalogView
from infra.identity import answered_as, signer, unproven
from infra.provision import STATIC, members_of
from infra.serving import POOLS
from infra.signing import claim
from schemas import topics
from schemas.codec import Codec
from schemas.events import (
    EVENTS,
    AuditRecorded,
    InferenceCompleted,
    InferencePart,
    InferenceRefused,
    InferenceReplied,
    InferenceRequested,
    InferenceRouted,
    Message,
    Reason,
    Refusal,
    Role,
    Sampling,
    Task,
)
from schemas.topics import Outgoing
from streams.gateway.asked import Asked
from streams.gateway.refuse import DENIALS
from streams.gateway.release import release_part
from streams.gateway.rows import record_refusal
from tests.unit.deciding import STEPS, admit, release
from tests.unit.drawing import (
    ADDRESSES,
    LATER,
    MOMENTS,
    askings_for_others,
    asks,
    completions,
    requests,
    views,
)
from tests.unit.events import TEXT, events

CODEC = Codec({name: number for number, name in enumerate(EVENTS)})
# More is not told of a request that is too large: what tells of it must always fit its topic.
MOST_TOLD_BYTES = 10_000

many = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def terminal(outgoing: Iterable[Outgoing]) -> list[InferenceReplied]:
    return [
        each.event
        for each in outgoing
        if isinstance(each.event, InferenceReplied) and each.event.delta is None
    ]


def of(kind: type[Any], outgoing: Iterable[Outgoing]) -> list[Any]:
    return [each.event for each in outgoing if isinstance(each.event, kind)]


def hold(outgoing: list[Outgoing], view: CatalogView) -> None:
    """Asserts what holds for all that leaves the gateway."""
    known = {topic.name for topic in (*STATIC, *members_of(view))}
    for topic, event in outgoing:
        assert topic.name in known
        assert isinstance(event, topic.event)
        topic.key(event).encode()
        # What cannot be encoded would end the process, again and again.
        assert CODEC.decode(CODEC.encode(event), topic.event) == event


@many
@given(given=asks(), view=views(), now=MOMENTS)
def test_a_request_is_either_routed_once_or_refused_with_one_reply(
    given: Asked, view: CatalogView, now: datetime
) -> None:
    request = given.request
    outgoing = list(admit(given, view, now))
    assert outgoing == list(admit(given, view, now))
    hold(outgoing, view)
    routed, replies = of(InferenceRouted, outgoing), terminal(outgoing)
    answered = answered_as(given.sender, view, now)
    assert len(replies) == (answered in view.tenants and not routed)
    for topic, _ in outgoing:
        if topic.name.startswith(topics.REPLY.name):
            assert topic.name in view.tenants[answered].reply_topics
    if routed:
        [onward] = routed
        assert replace(onward.request, principal=request.principal) == request
        assert onward.request.principal in view.principals
        assert len(outgoing) == 1
        assert now < request.deadline
        assert request.reply_to in view.tenants[answered].reply_topics
        _is_as_asked(onward, view)
    for replied in replies:
        assert replied.request_id == request.request_id
        assert replied.refusal is not None
        replayed = replied.refusal.reason is Reason.SIGNATURE_REPLAYED
        assert len(of(InferenceRefused, outgoing)) == (not replayed)
    for refused in of(InferenceRefused, outgoing):
        assert not routed
        assert all(replied.refusal == refused.refusal for replied in replies)
        assert refused.request.tenant == request.tenant


def _is_as_asked(routed: InferenceRouted, view: CatalogView) -> None:
    """Asserts that what goes on its route is of the kind, and in the version, that was asked."""
    request, asked_ = routed.request, view.endpoints[routed.request.endpoint]
    assert (request.task is Task.TOOL) == (asked_.kind == "function")
    assert (request.task is Task.AGENT) == (asked_.kind == "agent")
    if asked_.kind == "endpoint":
        return
    assert (routed.fallbacks, routed.cache_key) == ((), "")
    assert routed.route.pool == POOLS[asked_.kind]
    if asked_.kind == "function":
        number = {None: 2, "first": 1}.get(request.version) or int(request.version or 0)
        assert routed.route.entity == f"{request.endpoint}@{number}"


@many
@given(drawn=askings_for_others())
def test_who_asks_for_another_may_and_is_answered_on_its_own_topics(
    drawn: tuple[Asked, CatalogView, str],
) -> None:
    given, view, may = drawn
    request, by = given.request, signer(given.sender, view)
    outgoing = list(admit(given, view, LATER))
    hold(outgoing, view)
    own = by == request.principal == request.tenant
    allowed = own or (by == may and request.principal == request.tenant)
    answered = by if by == may and by != request.principal else request.tenant
    told = topics.REPLY.member(answered or "").name
    routed = of(InferenceRouted, outgoing)
    assert bool(routed) == (allowed and request.reply_to == told)
    for onward in routed:
        assert onward.request == request
        late = Refusal(reason=Reason.CANCELLED, message="gone")
        done = InferenceCompleted(routed=onward, refusal=late, started_at=LATER, completed_at=LATER)
        outgoing = list(release(done, view, LATER))
    assert [each.topic.name for each in outgoing if each.event in terminal(outgoing)] == [told]


@many
@given(given=asks(), view=views(), now=MOMENTS)
def test_what_proves_not_who_sent_it_is_never_routed_and_leaves_the_row_of_its_id_alone(
    given: Asked, view: CatalogView, now: datetime
) -> None:
    outgoing = list(admit(given, view, now))
    forged = unproven(given.sender, view, now)
    for refused in of(InferenceRefused, outgoing):
        proven_id = given.request.request_id
        assert refused.request.request_id == (given.refused_id if forged else proven_id)
    for replied in terminal(outgoing):
        assert replied.claim == claim(given.signed)
    if forged:
        assert of(InferenceRouted, outgoing) == []


@many
@given(given=asks(), view=views(), now=MOMENTS)
def test_an_auditor_hears_once_of_each_refusal_for_who_asks_and_of_no_other(
    given: Asked, view: CatalogView, now: datetime
) -> None:
    outgoing = list(admit(given, view, now))
    audits = of(AuditRecorded, outgoing)
    told = {each.refusal.reason for each in terminal(outgoing) if each.refusal}
    assert len(audits) == len(told & DENIALS)
    for audit in audits:
        assert audit.audit_id == given.refused_id
        assert audit.request_id == given.request.request_id
        assert audit.tenant == given.request.tenant


@many
@given(given=asks(), view=views(), now=MOMENTS)
def test_of_what_was_put_here_twice_nothing_comes_the_second_time(
    given: Asked, view: CatalogView, now: datetime
) -> None:
    assert list(admit(replace(given, replayed=True, moved_again=True), view, now)) == []


@many
@given(given=asks(), view=views(), now=MOMENTS, times=st.integers(100, 10_000), text=TEXT)
def test_of_a_request_that_is_too_large_little_is_told_wherever_its_texts_stand(
    given: Asked, view: CatalogView, now: datetime, times: int, text: str
) -> None:
    large = (text or "\x01") * times
    places: tuple[dict[str, Any], ...] = (
        {"inputs": (large, large), "query": large, "tags": {large: large}},
        {"endpoint": large, "request_id": large, "version": large},
        {"json_schema": large, "tool_choice": large, "sampling": Sampling(stop=(large,))},
        {"messages": (Message(role=Role.USER, content=large),)},
    )
    for place in places:
        request = replace(given.request, **place)
        _tells_little(list(admit(replace(given, request=request), view, now)), view, now)


def _tells_little(outgoing: list[Outgoing], view: CatalogView, now: datetime) -> None:
    hold(outgoing, view)
    refused = of(InferenceRefused, outgoing)
    told = [*outgoing, *(row for each in refused for row in record_refusal(each, view, now))]
    for _, event in told:
        refusal = getattr(event, "refusal", None)
        reason = refusal.reason if refusal else getattr(event, "reason", None)
        if reason == Reason.REQUEST_TOO_LARGE:
            assert len(CODEC.encode(event)) < MOST_TOLD_BYTES


@many
@given(refused=events(InferenceRefused), request=requests(), view=views(), now=MOMENTS)
def test_a_refused_request_becomes_exactly_one_row(
    refused: InferenceRefused, request: InferenceRequested, view: CatalogView, now: datetime
) -> None:
    refused = replace(refused, request=request)
    outgoing = list(record_refusal(refused, view, now))
    assert outgoing == list(record_refusal(refused, view, now + timedelta(days=1)))
    hold(outgoing, view)
    [(_, row)] = outgoing
    assert isinstance(row, topics.INFERENCE_RECORDED.event)
    assert (row.request_id, row.tenant) == (request.request_id, request.tenant)
    assert isinstance(json.loads(row.request, parse_constant=_no_json), dict)


@many
@given(completed=completions(), view=views(), now=MOMENTS)
def test_what_a_worker_says_goes_to_the_next_route_or_ends_the_request_once(
    completed: InferenceCompleted, view: CatalogView, now: datetime
) -> None:
    outgoing = list(release(completed, view, now))
    assert outgoing == list(release(completed, view, now))
    hold(outgoing, view)
    before, request = completed.routed, completed.routed.request
    onward, rows = of(InferenceRouted, outgoing), of(topics.INFERENCE_RECORDED.event, outgoing)
    assert len(onward) + len(rows) == 1
    if onward:
        [after] = onward
        assert len(outgoing) == 2
        assert completed.refusal is not None
        # Not the moment of reading: another reading may follow.
        assert completed.completed_at < request.deadline
        assert len(after.fallbacks) < len(before.fallbacks)
        assert after.attempt == before.attempt + 1
        assert after.request == request
        assert after.tried[:-1] == before.tried
        assert after.tried[-1].refusal == completed.refusal
    else:
        [row] = rows
        assert (row.request_id, row.tenant) == (request.request_id, request.tenant)
        assert isinstance(json.loads(row.request, parse_constant=_no_json), dict)
        assert (row.response is None) == (completed.completion is None)
        if row.response is not None:
            assert isinstance(json.loads(row.response, parse_constant=_no_json), dict)
        replies = terminal(outgoing)
        assert len(replies) == (request.tenant in view.tenants)
        for replied in replies:
            assert replied.request_id == request.request_id
            assert replied.completion == completed.completion
            assert replied.refusal == completed.refusal


@many
@given(completed=completions(), view=views(), now=MOMENTS)
def test_a_request_whose_routes_all_fail_comes_to_its_end(
    completed: InferenceCompleted, view: CatalogView, now: datetime
) -> None:
    for _ in range(len(completed.routed.fallbacks) + 1):
        outgoing = list(release(completed, view, now))
        onward = of(InferenceRouted, outgoing)
        if not onward:
            break
        completed = replace(completed, routed=onward[0])
    assert len(of(topics.INFERENCE_RECORDED.event, outgoing)) == 1


@many
@given(part=events(InferencePart), reply_to=ADDRESSES, deadline=MOMENTS, view=views(), now=MOMENTS)
def test_a_part_is_passed_on_only_before_the_deadline_and_only_to_its_tenant(
    part: InferencePart, reply_to: str, deadline: datetime, view: CatalogView, now: datetime
) -> None:
    for tenant in ("alpha", "beta", "gamma"):
        whole = replace(part, tenant=tenant, reply_to=reply_to, deadline=deadline)
        outgoing = list(release_part(whole, view, now))
        assert outgoing == list(release_part(whole, view, now))
        hold(outgoing, view)
        known = view.tenants.get(tenant)
        owned = known is not None and reply_to in known.reply_topics
        assert len(outgoing) == (now < deadline and owned)
        for topic, replied in outgoing:
            assert topic.name in view.tenants[tenant].reply_topics
            assert isinstance(replied, InferenceReplied)
            assert replied.delta == part.delta
            assert (replied.attempt, replied.epoch, replied.seq) == (
                part.attempt,
                part.epoch,
                part.seq,
            )
            assert replied.completion is None
            assert replied.refusal is None


def test_every_step_has_a_law_here() -> None:
    assert set(STEPS.values()) == {admit, record_refusal, release, release_part}


def _no_json(constant: str) -> object:
    raise AssertionError(f"{constant} is no JSON")
