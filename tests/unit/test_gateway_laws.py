"""Laws that the gateway's steps keep, whatever the event and the catalog."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.catalog import CatalogView, Limits
from infra.identity import unproven
from infra.provision import STATIC, members_of
from infra.signing import Signer, claim, claimed, generate
from schemas import topics
from schemas.codec import Codec
from schemas.events import (
    EVENTS,
    AuditRecorded,
    Completion,
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
    Route,
    Sampling,
)
from schemas.topics import Outgoing
from streams.gateway.asked import Asked
from streams.gateway.refuse import DENIALS
from streams.gateway.release import release_part
from streams.gateway.rows import record_refusal
from tests.seed import view_of
from tests.unit.asking import asked
from tests.unit.deciding import STEPS, admit, release
from tests.unit.events import EPOCH, TEXT, events

CODEC = Codec({name: number for number, name in enumerate(EVENTS)})
NAMES = st.sampled_from(["alpha", "beta", "gamma"])
ENDPOINTS = NAMES.map(lambda name: f"main.tests.{name}")
ADDRESSES = NAMES.map(lambda name: topics.REPLY.member(name).name)
# Around the deadlines that requests are given below.
MOMENTS = st.integers(0, 2000).map(lambda ms: EPOCH + timedelta(days=20_000, milliseconds=ms))

# More is not told of a request that is too large: what tells of it must always fit its topic.
MOST_TOLD_BYTES = 10_000

SIGNERS = {name: Signer(generate()) for name in ("alpha", "beta", "gamma")}

many = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def routes() -> st.SearchStrategy[Route]:
    return st.builds(Route, name=NAMES, pool=NAMES, model=NAMES)


@st.composite
def views(draw: st.DrawFn) -> CatalogView:
    """Catalogs of a few endpoints and tenants; more often than not, they know who asks."""
    endpoints = draw(st.dictionaries(ENDPOINTS, st.lists(routes(), min_size=1, max_size=3)))
    tenants = draw(st.dictionaries(NAMES, st.lists(NAMES, min_size=1, max_size=2)))
    documents: list[dict[str, Any]] = [
        {"kind": "catalog", "name": "main", "grants": {"everyone": ["USE"]}},
        {"kind": "schema", "name": "main.tests", "grants": {"everyone": ["USE", "QUERY"]}},
    ]
    for name, each in endpoints.items():
        spec = {"routes": list(map(_said, each)), "output_policy": draw(st.booleans())}
        documents.append({"kind": "endpoint", "name": name, "spec": spec})
    for name, replies in tenants.items():
        spec = {"replies": replies, "accept_unsigned": draw(st.booleans())}
        key = base64.b64encode(SIGNERS[name].public_key).decode()
        keys = [{"public_key": key}] if draw(st.booleans()) else []
        documents.append({"kind": "tenant", "name": name, "spec": spec, "keys": keys})
    return view_of(
        documents, Limits(max_request_bytes=draw(st.integers(1, 1000)), max_deadline_ms=1500)
    )


def _said(route: Route) -> dict[str, str]:
    return {"name": route.name, "pool": route.pool, "model": route.model}


@st.composite
def requests(draw: st.DrawFn) -> InferenceRequested:
    """Any request that the schema allows, or one that has a chance to be admitted."""
    request = draw(events(InferenceRequested))
    if draw(st.booleans()):
        request = replace(
            request,
            messages=(Message(role=Role.USER, content=draw(TEXT)),),
            sampling=Sampling(),
            json_schema=None,
            tools=(),
            tool_choice="auto",
        )
    return replace(
        request,
        tenant=draw(NAMES | TEXT),
        endpoint=draw(ENDPOINTS | TEXT),
        reply_to=draw(ADDRESSES | TEXT),
        deadline=draw(MOMENTS),
    )


@st.composite
def asks(draw: st.DrawFn) -> Asked:
    """Requests as they come: unsigned, signed by somebody, or signed as another record."""
    request = draw(requests())
    signed = None
    if draw(st.booleans()):
        signer = SIGNERS[draw(NAMES)]
        key = draw(st.just(request.tenant) | TEXT).encode()
        topic = topics.INFERENCE_REQUESTED.name
        signed = claimed(signer.headers(topic, key, request.deadline, b"value"), b"value")
        request = replace(request, principal=draw(st.just("") | NAMES))
    replayed = signed is not None and draw(st.booleans())
    return asked(request, signed=signed, replayed=replayed)


@st.composite
def completions(draw: st.DrawFn) -> InferenceCompleted:
    """Ends of routed requests, with a completion or a refusal; one of them, as promised."""
    routed = replace(
        draw(events(InferenceRouted)),
        request=draw(requests()),
        route=draw(routes()),
        fallbacks=tuple(draw(st.lists(routes(), max_size=3))),
        mirrored=False,
        sealed=None,
    )
    answer = draw(events(Completion) | events(Refusal))
    return replace(
        draw(events(InferenceCompleted)),
        routed=routed,
        completion=answer if isinstance(answer, Completion) else None,
        refusal=answer if isinstance(answer, Refusal) else None,
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
    assert len(replies) == (request.tenant in view.tenants and not routed)
    if routed:
        [onward] = routed
        assert replace(onward.request, principal=request.principal) == request
        assert onward.request.principal in view.principals
        assert len(outgoing) == 1
        assert now < request.deadline
        assert request.reply_to in view.tenants[request.tenant].reply_topics
    for replied in replies:
        assert replied.request_id == request.request_id
        assert replied.refusal is not None
        replayed = replied.refusal.reason is Reason.SIGNATURE_REPLAYED
        assert len(of(InferenceRefused, outgoing)) == (not replayed)
    for refused in of(InferenceRefused, outgoing):
        assert not routed
        assert all(replied.refusal == refused.refusal for replied in replies)
        assert refused.request.tenant == request.tenant


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
        {"endpoint": large, "request_id": large},
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
        assert len(outgoing) == (now < deadline and tenant in view.tenants)
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
