"""The gateway's decisions, case by case."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from infra.signing import Signature
from schemas import topics
from schemas.events import (
    Attempt,
    Completion,
    Delta,
    FinishReason,
    InferencePart,
    InferenceRecorded,
    InferenceRefused,
    InferenceReplied,
    InferenceRouted,
    Outcome,
    Reason,
    Refusal,
    Sampling,
    TokenLogprob,
    Usage,
)
from schemas.routing import FALL_BACK_ON
from streams.gateway.refuse import LONGEST_NAME
from streams.gateway.release import release_part
from streams.gateway.rows import record_refusal
from tests.seed import view_of
from tests.unit.asking import (
    CATALOG,
    FIRST,
    LIMITS,
    MINUTE,
    NOON,
    SECOND,
    THIRD,
    VIEW,
    ask,
    asked,
    completed,
    only,
    route_of,
    routed,
)
from tests.unit.deciding import admit, release

MS = timedelta(milliseconds=1)
NAN, INFINITY = float("nan"), float("inf")


def test_an_admitted_request_takes_the_first_route_and_keeps_the_others() -> None:
    event = route_of(ask())
    assert (event.route, event.fallbacks, event.attempt, event.tried) == (
        FIRST,
        (SECOND, THIRD),
        0,
        (),
    )
    assert event.routed_at == NOON


def test_parts_go_straight_to_the_caller_unless_the_endpoint_has_an_output_policy() -> None:
    assert route_of(ask()).parts_to == "reply.v1.acme"
    assert route_of(ask(endpoint="main.tests.guarded")).parts_to is None


def test_a_refusal_goes_where_the_caller_listens() -> None:
    [reply] = [
        each.topic.name
        for each in admit(asked(ask(reply_to="reply.v1.acme2", messages=())), VIEW, NOON)
        if each.topic.event is InferenceReplied
    ]
    assert reply == "reply.v1.acme2"


def test_who_gives_a_foreign_address_hears_of_it_on_their_own() -> None:
    outgoing = list(admit(asked(ask(reply_to="reply.v1.other")), VIEW, NOON))
    assert {each.topic.name for each in outgoing} == {"inference.refused.v1", "reply.v1.acme"}


def test_an_unknown_tenant_is_refused_without_a_reply() -> None:
    [(topic, event)] = admit(asked(ask(tenant="nobody")), VIEW, NOON)
    assert topic is topics.INFERENCE_REFUSED
    assert isinstance(event, InferenceRefused)
    assert event.refusal.reason is Reason.TENANT_UNKNOWN
    assert event.refusal.field == "tenant"


ANSWER = Completion(
    model="model-first-2030",
    content="hi",
    finish_reason=FinishReason.STOP,
    usage=Usage(prompt_tokens=5, completion_tokens=2, cached_tokens=1, reasoning_tokens=1),
)


def test_a_completion_is_replied_and_recorded() -> None:
    event = completed(completion=ANSWER, parts=3, first_token_at=NOON + 10 * MS)
    outgoing = list(release(event, VIEW, NOON + 40 * MS))
    assert [each.topic.name for each in outgoing] == [
        "inference.attempted.v1",
        "reply.v1.acme",
        "inference.recorded.v1",
    ]
    [replied] = only(outgoing, topics.REPLY)
    assert replied == InferenceReplied(
        request_id="request",
        attempt=0,
        epoch=int(NOON.timestamp() * 1000),
        seq=3,
        completion=ANSWER,
        claim="",
        replied_at=NOON + 40 * MS,
    )
    [row] = only(outgoing, topics.INFERENCE_RECORDED)
    assert (row.outcome, row.reason, row.message) == (Outcome.COMPLETED, None, None)
    assert (row.tenant, row.principal, row.endpoint) == ("acme", "ann", "main.tests.plain")
    assert (row.route, row.model, row.attempts) == ("first", "model-first-2030", 1)
    assert (row.prompt_tokens, row.completion_tokens) == (5, 2)
    assert (row.cached_tokens, row.reasoning_tokens) == (1, 1)
    assert (row.first_token_ms, row.elapsed_ms) == (30, 60)
    assert row.finish_reason == "STOP"
    assert dict(row.tags) == {"team": "blue"}
    assert json.loads(row.request)["messages"] == [{"role": "user", "content": "hello"}]
    assert json.loads(row.response or "")["choices"][0]["message"]["content"] == "hi"


def test_numbers_that_json_lacks_are_recorded_as_null() -> None:
    logprobs = (TokenLogprob(token="hi", logprob=-INFINITY),)
    outgoing = release(completed(completion=replace(ANSWER, logprobs=logprobs)), VIEW, NOON)
    [row] = only(outgoing, topics.INFERENCE_RECORDED)
    response = json.loads(row.response or "", parse_constant=pytest.fail)
    assert response["choices"][0]["logprobs"]["content"][0]["logprob"] is None
    [refused] = only(
        admit(asked(ask(sampling=Sampling(temperature=NAN))), VIEW, NOON), topics.INFERENCE_REFUSED
    )
    [(_, row)] = record_refusal(refused, VIEW, NOON)
    assert isinstance(row, InferenceRecorded)
    assert json.loads(row.request, parse_constant=pytest.fail)["temperature"] is None


@pytest.mark.parametrize("reason", sorted(FALL_BACK_ON))
def test_a_fault_of_the_route_moves_the_request_to_the_next(reason: Reason) -> None:
    refusal = Refusal(reason=reason, message="it failed")
    failed = completed(refusal=refusal)
    [_, (topic, event)] = release(failed, VIEW, NOON)
    assert topic.name == "inference.routed.v1.pool-second"
    assert event == routed(
        routed_at=failed.completed_at,
        route=SECOND,
        fallbacks=(THIRD,),
        attempt=1,
        tried=(Attempt(route=FIRST, refusal=refusal),),
    )


@pytest.mark.parametrize("reason", sorted(set(Reason) - set(FALL_BACK_ON)))
def test_a_fault_of_the_caller_ends_the_request(reason: Reason) -> None:
    refusal = Refusal(reason=reason, message="no")
    outgoing = list(release(completed(refusal=refusal), VIEW, NOON))
    [replied] = only(outgoing, topics.REPLY)
    assert replied.refusal == refusal
    [row] = only(outgoing, topics.INFERENCE_RECORDED)
    assert (row.reason, row.message, row.response) == (reason, "no", None)
    assert len(outgoing) == 3


BROKEN = Refusal(reason=Reason.PROVIDER_FAILED, message="it failed")


def test_the_last_failure_is_replied_with_all_that_was_tried() -> None:
    tried = (Attempt(route=FIRST, refusal=BROKEN), Attempt(route=SECOND, refusal=BROKEN))
    last = routed(route=THIRD, fallbacks=(), attempt=2, tried=tried)
    outgoing = list(release(completed(routed=last, refusal=BROKEN), VIEW, NOON))
    [replied] = only(outgoing, topics.REPLY)
    assert (replied.refusal, replied.tried, replied.attempt) == (BROKEN, tried, 2)
    [row] = only(outgoing, topics.INFERENCE_RECORDED)
    assert (row.outcome, row.attempts, row.route) == (Outcome.FAILED, 3, "third")


def test_nothing_is_tried_again_once_the_deadline_has_passed() -> None:
    late = completed(refusal=BROKEN, completed_at=NOON + MINUTE)
    [replied] = only(release(late, VIEW, NOON), topics.REPLY)
    assert replied.refusal == BROKEN


def test_a_failure_that_is_read_again_after_the_deadline_goes_on_as_it_did() -> None:
    failed = completed(refusal=BROKEN)
    [_, first] = release(failed, VIEW, NOON)
    [_, again] = release(failed, VIEW, NOON + MINUTE)
    assert again == first


def test_a_route_whose_pool_the_catalog_no_longer_names_is_passed_over() -> None:
    gone = replace(SECOND, pool="pool-gone")
    left = routed(fallbacks=(gone, THIRD))
    [_, (topic, event)] = release(completed(routed=left, refusal=BROKEN), VIEW, NOON)
    assert topic.name == "inference.routed.v1.pool-third"
    assert isinstance(event, InferenceRouted)
    assert event.fallbacks == ()
    none = routed(fallbacks=(gone,))
    outgoing = list(release(completed(routed=none, refusal=BROKEN), VIEW, NOON))
    assert only(outgoing, topics.REPLY)


@pytest.mark.parametrize("address", ["reply.v1.other", "reply.v1.gone", "ops.control.v1", ""])
def test_an_answer_goes_nowhere_but_to_an_address_of_the_tenant(address: str) -> None:
    event = completed(routed=routed(request=ask(reply_to=address)), completion=ANSWER)
    assert [each.topic.name for each in release(event, VIEW, NOON)] == [
        "inference.attempted.v1",
        "reply.v1.acme",
        "inference.recorded.v1",
    ]
    part = replace(PART, reply_to=address)
    assert list(release_part(part, VIEW, NOON)) == []


def test_the_answer_to_a_tenant_that_is_gone_is_only_recorded() -> None:
    event = completed(routed=routed(request=ask(tenant="gone")), completion=ANSWER)
    assert [each.topic for each in release(event, VIEW, NOON)] == [
        topics.INFERENCE_ATTEMPTED,
        topics.INFERENCE_RECORDED,
    ]
    assert list(release_part(replace(PART, tenant="gone"), VIEW, NOON)) == []


PART = InferencePart(
    request_id="request",
    tenant="acme",
    reply_to="reply.v1.acme2",
    attempt=1,
    epoch=7,
    seq=2,
    delta=Delta(content="h"),
    deadline=NOON + MINUTE,
)


def test_a_part_is_sent_on_as_it_is() -> None:
    [(topic, event)] = release_part(PART, VIEW, NOON)
    assert topic.name == "reply.v1.acme2"
    assert event == InferenceReplied(
        request_id="request", attempt=1, epoch=7, seq=2, delta=PART.delta, replied_at=NOON
    )


@pytest.mark.parametrize("late", [timedelta(0), MS, MINUTE])
def test_a_part_after_the_deadline_is_dropped(late: timedelta) -> None:
    assert list(release_part(PART, VIEW, PART.deadline + late)) == []
    assert list(release_part(PART, VIEW, PART.deadline - MS)) != []


OUTCOMES = {
    Reason.CANCELLED: Outcome.CANCELLED,
    Reason.CONTEXT_EXCEEDED: Outcome.REFUSED,
    Reason.DEADLINE_EXPIRED: Outcome.FAILED,
    Reason.REQUEST_INVALID: Outcome.REFUSED,
}


@pytest.mark.parametrize("reason", sorted(OUTCOMES))
def test_a_row_says_how_the_request_ended(reason: Reason) -> None:
    refusal = Refusal(reason=reason, message="no")
    [row] = only(release(completed(refusal=refusal), VIEW, NOON), topics.INFERENCE_RECORDED)
    assert row.outcome is OUTCOMES[reason]


def test_a_refused_request_is_recorded_without_a_route() -> None:
    refusal = Refusal(reason=Reason.ENDPOINT_UNKNOWN, message="there is none")
    refused = InferenceRefused(request=ask(), refusal=refusal, refused_at=NOON)
    [(topic, row)] = record_refusal(refused, VIEW, NOON + MINUTE)
    assert topic is topics.INFERENCE_RECORDED
    assert isinstance(row, InferenceRecorded)
    assert (row.outcome, row.reason) == (Outcome.REFUSED, Reason.ENDPOINT_UNKNOWN)
    assert (row.route, row.model, row.response, row.attempts) == (None, None, None, 0)
    # From the request to its refusal, however late the row is written.
    assert row.elapsed_ms == 20


def test_no_name_of_a_request_too_large_makes_what_is_said_of_it_too_large() -> None:
    long = "x" * 100_000
    for name in ("request_id", "tenant", "principal", "endpoint", "reply_to"):
        outgoing = list(admit(asked(ask(**{name: long})), VIEW, NOON))
        [refused] = only(outgoing, topics.INFERENCE_REFUSED)
        assert refused.refusal.reason is Reason.REQUEST_TOO_LARGE
        assert long not in repr(outgoing)


def test_an_audit_holds_no_more_of_a_name_than_a_name_can_have() -> None:
    names = {name: "x" * 300 for name in ("request_id", "tenant", "principal", "endpoint")}
    signed = Signature(key_id="0" * 32, deadline_ms=0, signature=bytes(64), digest=bytes(32))
    roomy = view_of(CATALOG, replace(LIMITS, max_request_bytes=10_000))
    given = asked(ask(**{**names, "tenant": "acme"}), signed=signed)
    [audit] = only(admit(given, roomy, NOON), topics.AUDIT_RECORDED)
    assert len(audit.principal) == len(audit.name) == len(audit.request_id) == LONGEST_NAME
