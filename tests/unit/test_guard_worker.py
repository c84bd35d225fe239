"""The guard worker, before a service that misbehaves and a judge that says what it is told."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web

from infra.telemetry import now
from schemas.events import AuditOutcome, InferenceJudged, Reason, Refusal
from schemas.topics import AUDIT_RECORDED
from tests.unit.guard_work import (
    POLICY,
    SECRET,
    TEXT,
    Asking,
    connection,
    held,
    judged,
    service,
    work,
)
from workers.guards import Unjudged
from workers.guards.judge import SAFETY, read

HTTP = {"type": "http", "connection": "main.tests.guard", "path": "/check", "timeout": "60s"}


async def asked_service(answer: Any, **rule: Any) -> InferenceJudged:
    async with service(answer) as (url, _, _):
        event, _ = await judged(work({**HTTP, **rule}, more=[connection(url)]), held("http"))
        return event


async def test_a_service_is_asked_below_its_address_with_its_key_and_that_is_audited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GUARD_SECRET", SECRET)
    async with service({"verdict": "ALLOW"}) as (url, requests, bodies):
        guarding = work(HTTP, more=[connection(f"{url}/v1", secret="env:GUARD_SECRET")])
        event, emitted = await judged(guarding, held("http", texts=("one", "two")))
    assert event.refusal is None
    assert [each.verdict for each in event.judgements] == ["ALLOW"]
    [asked] = requests
    assert asked.path == "/v1/check"
    assert asked.headers["Authorization"] == f"Bearer {SECRET}"
    assert bodies == [
        {"request_id": "request", "stage": "input", "text": "one\n\ntwo", "texts": ["one", "two"]}
    ]
    [(topic, audit)] = emitted
    assert topic is AUDIT_RECORDED
    assert (audit.name, audit.outcome) == ("env:GUARD_SECRET", AuditOutcome.DONE)  # type: ignore[attr-defined]


async def test_a_key_that_cannot_be_read_is_audited_and_nobody_is_asked() -> None:
    async with service({"verdict": "ALLOW"}) as (url, requests, _):
        guarding = work(HTTP, more=[connection(url, secret="env:NO_SUCH_GUARD_SECRET")])
        event, emitted = await judged(guarding, held("http"))
    assert event.refusal is not None
    assert event.refusal.reason is Reason.POLICY_FAILED
    assert not requests
    [(_, audit)] = emitted
    assert audit.outcome is AuditOutcome.FAILED  # type: ignore[attr-defined]


async def test_a_path_that_names_a_host_leads_to_the_connection_all_the_same() -> None:
    async with service({"verdict": "ALLOW"}) as (url, requests, _):
        rule = {**HTTP, "path": "//example.com/x"}
        event, _ = await judged(work(rule, more=[connection(url)]), held("http"))
    assert event.refusal is None
    assert [each.path for each in requests] == ["/example.com/x"]


async def test_what_a_service_says_is_done() -> None:
    denied = await asked_service({"verdict": "DENY", "reason": TEXT})
    assert denied.refusal is not None
    assert denied.refusal.reason is Reason.POLICY_DENIED
    assert denied.refusal.rule == f"{POLICY}/http"
    asks = await asked_service({"verdict": "ASK"})
    assert asks.refusal is None
    assert asks.approvals == (f"{POLICY}/http",)
    masks = await asked_service({"verdict": "MASK", "text": "hidden"})
    assert masks.texts == ("hidden",)


async def hangs(request: web.Request) -> Any:
    await asyncio.Event().wait()


async def cut(request: web.Request) -> Any:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def away(request: web.Request) -> Any:
    return web.Response(status=302, headers={"Location": "http://127.0.0.1:9/"})


async def endless(request: web.Request) -> Any:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" " * 1_000_000)


BAD: dict[str, Any] = {
    "answers without end": endless,
    "answers with a list": [],
    "answers with a verdict that there is not": {"verdict": "PERHAPS", "text": TEXT},
    "answers with no JSON": lambda request: _text(TEXT),
    "answers with nesting without end": lambda request: _text("[" * 200_000),
    "cuts the line": cut,
    "fails": lambda request: _text(TEXT, status=500),
    "hangs": hangs,
    "masks with half a character": {"verdict": "MASK", "text": "\ud800"},
    "masks with nothing": {"verdict": "MASK", "text": ""},
    "masks with too many texts": {"verdict": "MASK", "texts": ["a", "b"]},
    "masks without a text": {"verdict": "MASK"},
    "sends elsewhere": away,
}


async def _text(text: str, status: int = 200) -> web.Response:
    return web.Response(text=text, status=status)


@pytest.mark.parametrize("what", BAD)
async def test_a_service_that_does_lets_nothing_pass(what: str) -> None:
    timeout = "500ms" if what == "hangs" else "60s"
    event = await asked_service(BAD[what], timeout=timeout)
    assert event.refusal is not None
    assert event.refusal.reason is Reason.POLICY_FAILED
    assert event.refusal.rule == f"{POLICY}/http"


@pytest.mark.parametrize("how", ["fail_open", "shadow"])
async def test_a_rule_that_may_fail_lets_pass_what_it_cannot_judge_and_says_so(how: str) -> None:
    event = await asked_service(BAD["fails"], **{how: True})
    assert event.refusal is None
    [judgement] = event.judgements
    assert (judgement.verdict, judgement.found) == ("ALLOW", {"FAILED": 1})


async def test_a_rule_that_is_only_evaluated_refuses_and_changes_nothing() -> None:
    for answer in ({"verdict": "DENY"}, {"verdict": "ASK"}, {"verdict": "MASK", "text": "x"}):
        event = await asked_service(answer, shadow=True)
        assert (event.refusal, event.approvals, event.texts) == (None, (), ())
        [judgement] = event.judgements
        assert (judgement.verdict, judgement.shadow) == (answer["verdict"], True)


async def test_an_address_that_its_connection_does_not_allow_is_not_called() -> None:
    async with service({"verdict": "ALLOW"}) as (url, requests, _):
        guarding = work(HTTP, more=[connection(url, private=False)])
        event, _ = await judged(guarding, held("http"))
    assert event.refusal is not None
    assert "may not be called" in event.refusal.message
    assert not requests


async def test_a_later_rule_sees_what_an_earlier_one_put_in_place_and_none_follows_a_no() -> None:
    async with service({"verdict": "MASK", "text": "hidden"}) as (url, _, _):
        asking = Asking(json.dumps({"verdict": "DENY", "reason": "privacy"}))
        judge = {"type": "judge", "endpoint": "main.tests.judge"}
        guarding = work(HTTP, judge, asking=asking, more=[connection(url)])
        event, _ = await judged(guarding, held("http", "judge", "http"))
    [asked] = asking.asked
    assert json.loads(asked.messages[-1].content)["texts"] == ["hidden"]
    assert [each.verdict for each in event.judgements] == ["MASK", "DENY"]
    assert event.judgements[-1].found == {"PRIVACY": 1}
    assert event.refusal is not None
    assert event.refusal.reason is Reason.POLICY_DENIED


JUDGE = {"type": "judge", "endpoint": "main.tests.judge"}


async def asked_judge(content: str, **rule: Any) -> InferenceJudged:
    event, _ = await judged(work({**JUDGE, **rule}, asking=Asking(content)), held("judge"))
    return event


async def test_a_judge_is_asked_as_the_platform_with_rules_of_ours_where_there_are_none() -> None:
    asking = Asking('{"verdict": "ALLOW", "reason": "other"}')
    event, _ = await judged(work(JUDGE, asking=asking), held("judge"))
    assert event.refusal is None
    [asked] = asking.asked
    assert (asked.tenant, asked.principal) == ("platform", "guard")
    assert asked.reply_to == "reply.v1.platform"
    assert SAFETY in asked.messages[0].content
    assert asked.json_schema is not None
    assert asked.tags == {"guard": f"{POLICY}/judge", "judged": "request"}
    assert asked.deadline <= now() + timedelta(seconds=10)


async def test_what_a_judge_would_refuse_is_left_to_a_person_where_its_rule_says_so() -> None:
    said = json.dumps({"verdict": "DENY", "reason": "violence"})
    assert (await asked_judge(said)).refusal is not None
    asks = await asked_judge(said, action="ask")
    assert asks.refusal is None
    assert asks.approvals == (f"{POLICY}/judge",)


async def test_a_reason_that_may_quote_something_is_told_to_nobody() -> None:
    event = await asked_judge(json.dumps({"verdict": "DENY", "reason": TEXT}))
    assert event.judgements[0].found == {}


@pytest.mark.parametrize("content", ["", "ALLOW", "[]", '{"verdict": "MASK"}', "{" * 10_000])
async def test_what_is_no_verdict_lets_nothing_pass(content: str) -> None:
    event = await asked_judge(content)
    assert event.refusal is not None
    assert event.refusal.reason is Reason.POLICY_FAILED
    with pytest.raises(Unjudged):
        read(content, asks=False)


async def test_a_judge_that_may_not_be_asked_lets_nothing_pass() -> None:
    no = Refusal(reason=Reason.BUDGET_EXCEEDED, message=f"no {TEXT}")
    event, _ = await judged(work(JUDGE, asking=Asking(refusal=no)), held("judge"))
    assert event.refusal is not None
    assert "BUDGET_EXCEEDED" in event.refusal.message


@pytest.mark.parametrize("by", ["endpoint", "tenant"])
async def test_a_policy_that_would_judge_its_own_judge_is_told_of_the_circle(by: str) -> None:
    spec = {"routes": [{"name": "r", "pool": "p", "model": "m"}]}
    held_to = {"policies": ["main.tests.second"]}
    second = {"name": "again", "type": "judge", "endpoint": "main.tests.other"}
    more = [
        {
            "kind": "endpoint",
            "name": "main.tests.judge",
            "spec": {**spec, **(held_to if by == "endpoint" else {})},
        },
        {"kind": "tenant", "name": "platform", "spec": held_to if by == "tenant" else {}},
        {"kind": "policy", "name": "main.tests.second", "spec": {"rules": [second]}},
        {
            "kind": "endpoint",
            "name": "main.tests.other",
            "spec": {**spec, "policies": [POLICY]},
        },
    ]
    asking = Asking('{"verdict": "ALLOW"}')
    event, _ = await judged(work(JUDGE, asking=asking, more=more), held("judge"))
    assert not asking.asked
    assert event.refusal is not None
    assert event.refusal.reason is Reason.POLICY_FAILED
    assert "circle" in event.refusal.message


def function(language: str) -> dict[str, Any]:
    version = {"language": language, "source": "/fn", "connection": "main.tests.guard"}
    return {
        "kind": "function",
        "name": "main.tests.check",
        "aliases": {"champion": 1},
        "versions": [{"spec": version}, {"spec": {**version, "source": "/newer"}}],
    }


@pytest.mark.parametrize(
    ("name", "path"), [("", "/newer"), ("@1", "/fn"), ("@champion", "/fn"), ("@2", "/newer")]
)
async def test_a_function_of_language_http_is_asked_like_a_service(name: str, path: str) -> None:
    rule = {"type": "function", "function": f"main.tests.check{name}"}
    async with service({"verdict": "ALLOW"}) as (url, requests, _):
        guarding = work(rule, more=[connection(url), function("http")])
        event, _ = await judged(guarding, held("function"))
    assert event.refusal is None
    assert [each.path for each in requests] == [path]


@pytest.mark.parametrize("what", ["python", "unknown"])
async def test_a_function_that_cannot_be_called_here_lets_nothing_pass(what: str) -> None:
    more = [function("python")] if what == "python" else []
    rule = {"type": "function", "function": "main.tests.check"}
    event, _ = await judged(work(rule, more=more), held("function"))
    assert event.refusal is not None
    assert event.refusal.reason is Reason.POLICY_FAILED
    assert (what != "python") or "tool workers" in event.refusal.message


async def test_a_rule_that_is_gone_lets_nothing_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.guard.HEARSAY_S", 0.05)
    event, _ = await judged(work(HTTP), held("judge"))
    assert event.refusal is not None
    assert event.refusal.reason is Reason.POLICY_FAILED


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (Reason.CANCELLED, Reason.CANCELLED),
        (Reason.DEADLINE_EXPIRED, Reason.DEADLINE_EXPIRED),
        (Reason.PROVIDER_FAILED, Reason.POLICY_FAILED),
    ],
)
async def test_what_is_given_up_lets_nothing_pass(given: Reason, told: Reason) -> None:
    guarding = work(JUDGE)
    job = guarding.begin(held("judge"), now())
    [(_, event)] = job.give_up(Refusal(reason=given, message="m"))
    assert event.refusal.reason is told  # type: ignore[attr-defined]
    await guarding.close()
