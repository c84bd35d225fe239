"""Rows: what is recorded of a request, of a try, and what it cost."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given

from infra.catalog import CatalogView
from schemas.events import (
    Attempt,
    Completion,
    FinishReason,
    InferenceCompleted,
    InferenceRecorded,
    InferenceRefused,
    InferenceRequested,
    Judgement,
    Message,
    Outcome,
    Reason,
    Refusal,
    Role,
    Route,
    Sampling,
    Signed,
    Task,
    Tool,
    Usage,
)
from schemas.openai import completion_to_openai, request_to_openai
from schemas.topics import INFERENCE_ATTEMPTED, INFERENCE_RECORDED
from streams.gateway import rows
from streams.gateway.rows import (
    STATUSES,
    attempted,
    cost_of,
    cost_of_all,
    in_dollars,
    record_refusal,
    row_of_cached,
    used_by_all,
    without_texts,
)
from tests.seed import view_of
from tests.unit.asking import FIRST, LIMITS, NOON, SECOND, VIEW, ask, completed, routed
from tests.unit.events import events

PRICED = Route(name="outside", pool="p", model="big", connection="main.tests.provider")
OWN = Route(name="own", pool="p", model="small", entity="main.tests.scorer@2")
MARKET = view_of(
    [
        {
            "kind": "connection",
            "name": "main.tests.provider",
            "spec": {
                "type": "openai",
                "url": "https://models.example/v1",
                "prices": {"big": [{"input": 2, "cached_input": "0.5", "output": 8}]},
            },
        },
        {"kind": "model", "name": "main.tests.scorer", "spec": {"prices": [{"input": 1}]}},
    ],
    LIMITS,
)
USED = Usage(prompt_tokens=1000, completion_tokens=500, cached_tokens=400, reasoning_tokens=300)
ANSWER = Completion(model="big-2", content="hi", finish_reason=FinishReason.STOP, usage=USED)
EMAIL = Judgement(rule="pii/mail", stage="input", verdict="MASK", found={"EMAIL_ADDRESS": 2})
SECRET = "ada@example.com"


def refused(reason: Reason, **more: Any) -> Refusal:
    return Refusal(reason=reason, message="no", **more)


def row(
    done: InferenceCompleted,
    *judgements: Judgement,
    view: CatalogView = MARKET,
    kept: Completion | None = None,
) -> InferenceRecorded:
    return rows.row(
        done,
        cost=in_dollars(cost_of_all(done, view)),
        completion=kept or done.completion,
        judgements=judgements,
        now=NOON + timedelta(seconds=1),
    )


def answered(**changes: Any) -> InferenceCompleted:
    return completed(routed=routed(route=PRICED), completion=ANSWER, **changes)


def broken(reason: Reason, usage: Usage | None = None, route: Route = PRICED) -> InferenceCompleted:
    return completed(routed=routed(route=route), refusal=refused(reason), usage=usage)


def test_an_answer_is_recorded_with_what_it_used_and_cost() -> None:
    found = row(answered())
    assert (found.outcome, found.status, found.reason) == (Outcome.COMPLETED, 200, None)
    assert (found.prompt_tokens, found.completion_tokens) == (1000, 500)
    assert (found.cached_tokens, found.reasoning_tokens) == (400, 300)
    assert found.cost == Decimal("0.0054")
    assert (found.model, found.connection) == ("big-2", "main.tests.provider")
    assert (found.saved_tokens, found.usage_estimated, found.streamed) == (0, False, False)


def test_a_stream_costs_what_the_same_answer_costs_whole() -> None:
    streamed = routed(route=PRICED, request=ask(stream=True))
    found = row(completed(routed=streamed, completion=ANSWER, parts=60))
    whole = row(answered())
    assert found.streamed
    assert (found.cost, found.completion_tokens) == (whole.cost, whole.completion_tokens)


@pytest.mark.parametrize(
    ("reason", "outcome", "status"),
    [
        (Reason.CANCELLED, Outcome.CANCELLED, 499),
        (Reason.STREAM_CUT, Outcome.FAILED, 502),
    ],
)
def test_what_came_before_a_request_broke_off_was_used_and_cost(
    reason: Reason, outcome: Outcome, status: int
) -> None:
    used = Usage(prompt_tokens=100, completion_tokens=10, estimated=True)
    found = row(broken(reason, used))
    assert (found.outcome, found.status, found.reason) == (outcome, status, reason)
    assert (found.completion_tokens, found.usage_estimated) == (10, True)
    assert found.cost == Decimal("0.00028")


def test_a_failure_that_used_nothing_cost_nothing_even_where_no_price_is_known() -> None:
    for route in (PRICED, FIRST):
        found = row(broken(Reason.PROVIDER_FAILED, route=route))
        assert (found.outcome, found.cost, found.prompt_tokens) == (Outcome.FAILED, Decimal(0), 0)


def test_the_cost_at_an_unknown_price_is_unknown_and_not_nothing() -> None:
    assert row(completed(completion=ANSWER)).cost is None
    assert cost_of(FIRST, USED, MARKET, NOON) is None
    assert cost_of(FIRST, Usage(), MARKET, NOON) is None


def test_a_model_of_our_own_costs_what_the_catalog_says() -> None:
    assert cost_of(OWN, USED, MARKET, NOON) == 1000 * 10**6
    assert cost_of(replace(OWN, entity=""), USED, MARKET, NOON) is None


def test_after_a_fallback_the_row_has_all_that_was_used_each_at_its_own_price() -> None:
    failed = Attempt(
        route=OWN, refusal=refused(Reason.STREAM_CUT), usage=Usage(prompt_tokens=7, estimated=True)
    )
    plain = Attempt(route=FIRST, refusal=refused(Reason.PROVIDER_FAILED))
    done = answered()
    done = replace(done, routed=replace(done.routed, tried=(failed, plain), attempt=2))
    found = row(done)
    assert found.cost == Decimal("0.0054") + Decimal("0.000007")
    assert (found.prompt_tokens, found.completion_tokens) == (1007, 500)
    assert (found.attempts, found.route, found.usage_estimated) == (3, "outside", True)
    unpriced = replace(failed, route=FIRST)
    assert (
        cost_of_all(replace(done, routed=replace(done.routed, tried=(unpriced,))), MARKET) is None
    )


def test_an_answer_that_was_withheld_is_refused_and_paid_for_all_the_same() -> None:
    denied = refused(Reason.POLICY_DENIED, rule="words/none")
    found = rows.row(
        answered(refusal=denied), cost=Decimal(1), completion=None, judgements=(), now=NOON
    )
    assert (found.outcome, found.status, found.rule) == (Outcome.REFUSED, 403, "words/none")
    assert (found.response, found.finish_reason) == (None, None)
    assert (found.completion_tokens, found.cost) == (500, Decimal(1))


def test_the_answer_is_kept_as_it_is_given_and_judged_on_both_ways() -> None:
    done = answered()
    done = replace(done, routed=replace(done.routed, judgements=(EMAIL,)))
    shadow = Judgement(rule="words/none", stage="output", verdict="DENY", shadow=True)
    found = row(done, shadow, kept=replace(ANSWER, content="<EMAIL>"))
    assert json.loads(found.response or "")["choices"][0]["message"]["content"] == "<EMAIL>"
    assert json.loads(found.judgements) == [EMAIL.to_avro(), shadow.to_avro()]


def test_every_refusal_has_a_status_and_only_those() -> None:
    assert set(STATUSES) == set(Reason)
    assert all(400 <= status < 600 for status in STATUSES.values())
    limits = Reason.LIMIT_EXCEEDED, Reason.BUDGET_EXCEEDED, Reason.RATE_LIMITED
    assert {STATUSES[each] for each in limits} == {429}


@pytest.mark.parametrize("reason", list(Reason))
def test_a_refused_request_is_one_row_that_cost_nothing(reason: Reason) -> None:
    event = InferenceRefused(
        request=ask(stream=True), refusal=refused(reason, rule="spend/day"), refused_at=NOON
    )
    [(topic, found)] = record_refusal(event, VIEW, NOON)
    assert topic is INFERENCE_RECORDED
    assert isinstance(found, InferenceRecorded)
    assert (found.outcome, found.cost, found.attempts) == (Outcome.REFUSED, Decimal(0), 0)
    assert (found.status, found.rule, found.streamed) == (STATUSES[reason], "spend/day", True)


def test_an_answer_out_of_the_cache_cost_nothing_and_saved_its_tokens() -> None:
    signed = Signed(key_id="k", signature=b"s", digest=b"\x01")
    sent = routed(signed=signed, decision_id="decision")
    found = row_of_cached(sent, completion=ANSWER, judgements=(EMAIL,), now=NOON)
    assert found.row_id == "decision"
    assert (found.outcome, found.status, found.cost) == (Outcome.COMPLETED, 200, Decimal(0))
    assert (found.saved_tokens, found.prompt_tokens, found.completion_tokens) == (1500, 0, 0)
    assert (found.attempts, found.route, found.model, found.key_id) == (0, None, "big-2", "k")
    assert json.loads(found.response or "")["usage"]["total_tokens"] == 1500


def test_a_try_is_a_row_of_its_own() -> None:
    first = NOON + timedelta(milliseconds=10)
    done = answered(first_token_at=first)
    found = attempted(done, in_dollars(cost_of_all(done, MARKET)), NOON)
    assert INFERENCE_ATTEMPTED.key(found) == found.request_id
    assert (found.attempt_id, found.mirrored, found.route) == ("request/0", False, "outside")
    assert (found.first_token_ms, found.elapsed_ms, found.started_at) == (10, 30, NOON)
    assert (found.outcome, found.cost, found.completion_tokens) == (
        Outcome.COMPLETED,
        Decimal("0.0054"),
        500,
    )
    failed = attempted(broken(Reason.RATE_LIMITED), None, NOON)
    assert (failed.outcome, failed.reason, failed.cost) == (
        Outcome.FAILED,
        Reason.RATE_LIMITED,
        None,
    )


def test_tries_and_copies_of_a_request_are_told_apart() -> None:
    sent = [
        routed(attempt=0),
        routed(attempt=1),
        routed(mirrored=True),
        routed(mirrored=True, route=SECOND),
        routed(request=ask(request_id="request/0"), attempt=0),
        routed(mirrored=True, route=replace(FIRST, name="0")),
    ]
    ids = [attempted(completed(routed=each), None, NOON).attempt_id for each in sent]
    assert len(set(ids)) == len(ids)


def test_what_a_caller_wrote_is_not_in_a_request_without_texts() -> None:
    message = Message(role=Role.USER, content=SECRET, name=SECRET)
    request = ask(
        messages=(message,),
        tools=(Tool(name=SECRET, description=SECRET, parameters=SECRET),),
        tool_choice=SECRET,
        json_schema=SECRET,
        inputs=(SECRET,),
        query=SECRET,
        sampling=Sampling(stop=(SECRET,), max_tokens=7),
    )
    bare = without_texts(request)
    assert SECRET not in repr(bare)
    assert (bare.request_id, bare.tags, bare.sampling.max_tokens) == ("request", request.tags, 7)


@given(events(InferenceRequested))
def test_whatever_is_asked_has_a_row_without_texts(request: InferenceRequested) -> None:
    event = InferenceRefused(
        request=without_texts(request), refusal=refused(Reason.KEY_UNKNOWN), refused_at=NOON
    )
    [(_, found)] = record_refusal(event, VIEW, NOON)
    assert found.to_avro()["status"] == 401


@given(events(InferenceCompleted))
def test_whatever_came_of_a_request_has_a_row_and_a_cost(done: InferenceCompleted) -> None:
    found = row(done)
    used = used_by_all(done)
    assert found.prompt_tokens == (used.prompt_tokens if used else 0)
    assert found.status in {200, *STATUSES.values()}
    assert attempted(done, found.cost, NOON).request_id == done.routed.request.request_id


def test_a_row_tells_how_many_vectors_there_were_and_none_of_them() -> None:
    vectors = ((0.5, 1.0), (0.25, 0.0))
    answer = replace(ANSWER, content="", vectors=vectors)
    told = json.loads(row(completed(completion=answer)).response or "")
    assert [each["embedding"] for each in told["data"]] == [[], []]
    assert told["usage"]["prompt_tokens"] == ANSWER.usage.prompt_tokens


@pytest.mark.parametrize("task", [Task.AGENT, Task.TOOL])
def test_what_an_agent_says_that_it_used_is_in_the_rows_of_what_it_asked_alone(task: Task) -> None:
    done = completed(completion=ANSWER)
    done = replace(done, routed=replace(done.routed, request=ask(task=task)))
    told = row(done)
    assert (told.prompt_tokens, told.completion_tokens, told.cached_tokens) == (0, 0, 0)
    assert json.loads(told.response or "")["usage"]["prompt_tokens"] == ANSWER.usage.prompt_tokens
    assert used_by_all(done) is None


def test_requests_and_answers_of_other_tasks_are_recorded_in_their_own_forms() -> None:
    embed = ask(task=Task.EMBEDDING, messages=(), inputs=("a", "b"))
    assert request_to_openai(embed, "m") == {"model": "m", "input": ["a", "b"]}
    vectors = replace(ANSWER, content="", vectors=((0.5, 1.0), (0.25, 0.0)))
    form = completion_to_openai(vectors, "id")
    assert form["data"] == [
        {"object": "embedding", "index": 0, "embedding": [0.5, 1.0]},
        {"object": "embedding", "index": 1, "embedding": [0.25, 0.0]},
    ]
    call = ask(task=Task.TOOL, messages=(), inputs=('{"city": "Ulm"}',))
    assert request_to_openai(call, "m") == {"model": "m", "arguments": {"city": "Ulm"}}
    wrong = replace(call, inputs=("a", "[1]"))
    assert request_to_openai(wrong, "m") == {"model": "m", "arguments": ["a", [1]]}
    agent = request_to_openai(ask(task=Task.AGENT), "m")
    assert agent == request_to_openai(ask(), "m")
    rank = ask(task=Task.RERANK, messages=(), inputs=("a", "b"), query="q")
    assert request_to_openai(rank, "m") == {"model": "m", "query": "q", "documents": ["a", "b"]}
    scores = completion_to_openai(replace(ANSWER, scores=(0.1, 0.9)), "id")
    assert scores["results"] == [
        {"index": 0, "relevance_score": 0.1},
        {"index": 1, "relevance_score": 0.9},
    ]
