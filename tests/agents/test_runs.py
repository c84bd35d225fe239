"""Runs of agents from end to end: what comes of them, and what the log has of them."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from infra.asker import Asker, RequestRefused
from infra.settings import KafkaSettings, RegistrySettings
from infra.telemetry import now
from schemas.agents import call_id, run_id
from schemas.events import (
    AgentJournaled,
    AgentTold,
    Completion,
    FinishReason,
    InferenceReplied,
    InferenceRequested,
    Reason,
    Refusal,
    RequestCancelled,
    Usage,
)
from schemas.topics import (
    AGENT_JOURNALED,
    AGENT_TOLD,
    INFERENCE_RECORDED,
    REPLY,
    REQUEST_CANCELLED,
    root_of,
)
from streams.client import Client
from tests.agents.conftest import (
    ADD,
    CAREFUL,
    CLERK,
    ENDLESS,
    LOST,
    PLATFORM,
    TENANT,
    WIPE,
    Office,
    wanted,
)
from tests.harness import eventually

pytestmark = pytest.mark.stack

SUM = ["add", {"a": 1, "b": 2}]


def turns(*said: Any) -> str:
    return json.dumps({"turns": said})


def journal(office: Office, request_id: str) -> list[AgentJournaled]:
    found = office.bus.events(AGENT_JOURNALED, root_of(request_id))
    return [each for each in found if each.run_id == run_id(request_id, TENANT)]


def told(office: Office, request_id: str) -> list[AgentTold]:
    found = office.bus.events(AGENT_TOLD.member(TENANT), root_of(request_id))
    return [each for each in found if each.request_id == request_id]


def cancel(office: Office, asked: InferenceRequested) -> None:
    cancelled = RequestCancelled(
        request_id=asked.request_id, tenant=TENANT, cancelled_at=now(), deadline=asked.deadline
    )
    office.bus.send(REQUEST_CANCELLED, cancelled)


async def test_an_answer_comes_by_tools_that_are_called_side_by_side(
    office: Office, asker: Asker
) -> None:
    asked = wanted(turns([SUM, ["add", {"a": 3, "b": 4}]], [["add", {"a": 3, "b": 7}]], "It is 10"))
    answer = await asker.completion(asked)
    assert answer is not None
    assert answer.content == "It is 10"
    assert len(office.did(asked.request_id)) == 3
    entries = journal(office, asked.request_id)
    assert [each.seq for each in entries] == list(range(7))
    assert [each.ended for each in entries] == [False] * 6 + [True]


async def test_three_turns_and_two_calls_are_five_rows_under_one_root(
    office: Office, asker: Asker
) -> None:
    asked = wanted(turns([SUM], [SUM], "done"))
    await asker.completion(asked)

    def rows() -> list[tuple[str, int]]:
        found = {
            each.row_id: (each.endpoint, each.prompt_tokens + each.completion_tokens)
            for each in office.bus.events(INFERENCE_RECORDED)
            if each.request_id.startswith(f"{asked.request_id}//")
        }
        return [*found.values()]

    eventually(lambda: len(rows()) == 5, what="a row of each child")
    assert sorted(rows()) == [(ADD, 0)] * 2 + [("main.agents.model", 15)] * 3


async def test_a_caller_hears_each_step_in_order(office: Office, asker: Asker) -> None:
    asked = wanted(turns([SUM], "three"))
    await asker.completion(asked)
    heard = told(office, asked.request_id)
    assert [each.seq for each in heard] == list(range(len(heard)))
    kinds = [each.kind for each in heard]
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    items = [json.loads(each.item or "") for each in heard if each.kind.endswith("item.done")]
    assert [each["type"] for each in items] == ["function_call", "function_call_output", "message"]


async def test_a_tool_that_the_caller_may_not_execute_is_refused_though_the_agent_reaches_it(
    office: Office, asker: Asker
) -> None:
    asked = wanted(turns([["wipe", {"a": 1, "b": 2}]], "I may not"))
    answer = await asker.completion(asked)
    assert answer is not None
    assert answer.content == "I may not"
    assert office.did(asked.request_id) == []
    outputs = [
        json.loads(each.item or "")["output"]
        for each in told(office, asked.request_id)
        if each.kind.endswith("item.done") and "function_call_output" in (each.item or "")
    ]
    assert len(outputs) == 1
    assert Reason.PRIVILEGE_MISSING in outputs[0]
    assert WIPE in outputs[0] or "may not" in outputs[0]


async def test_a_run_that_is_cancelled_ends_and_calls_its_tools_off(
    office: Office, asker: Asker
) -> None:
    asked = wanted(turns([ENDLESS], "late"))

    asking = asyncio.create_task(asker.completion(asked))
    begun = partial(journal, office, asked.request_id)
    await asyncio.to_thread(eventually, lambda: len(begun()) == 2, what="the call of the tool")
    cancel(office, asked)
    with pytest.raises(RequestRefused) as refused:
        await asking
    assert refused.value.refusal.reason is Reason.CANCELLED

    def off() -> set[str]:
        return {each.request_id for each in office.bus.events(REQUEST_CANCELLED)}

    called = call_id(run_id(asked.request_id, TENANT), 1)
    await asyncio.to_thread(eventually, lambda: called in off(), what="the tool to be called off")
    assert office.did(asked.request_id) == []


@pytest.mark.usefixtures("insistent")
async def test_a_run_that_nobody_lets_go_on_ends_when_its_time_is_over(
    office: Office, asker: Asker
) -> None:
    asked = wanted(turns([SUM], "late"), endpoint=CAREFUL, deadline=now() + timedelta(seconds=20))
    with pytest.raises(RequestRefused) as refused:
        await asker.completion(asked)
    assert refused.value.refusal.reason is Reason.DEADLINE_EXPIRED
    assert office.did(asked.request_id) == []
    assert journal(office, asked.request_id)[-1].ended


async def test_a_second_request_under_the_id_of_a_run_is_refused(
    office: Office, asker: Asker
) -> None:
    asked = wanted(turns("once"))
    assert await asker.completion(asked) is not None
    with pytest.raises(RequestRefused) as refused:
        await asker.completion(asked)
    assert refused.value.refusal.reason is Reason.CONFLICT


async def test_an_agent_that_cannot_run_says_why_and_leaves_that_in_its_journal(
    office: Office, asker: Asker
) -> None:
    asked = wanted("hello", endpoint=LOST)
    with pytest.raises(RequestRefused, match=r"there is no endpoint main\.agents\.gone"):
        await asker.completion(asked)
    [entry] = journal(office, asked.request_id)
    assert entry.ended
    assert entry.refusal is not None
    assert entry.refusal.reason is Reason.NOT_FOUND


async def test_a_reply_that_somebody_forged_steers_no_run(office: Office, asker: Asker) -> None:
    gate = office.gate()
    asked = wanted(turns([gate.call], "it is 3"))
    asking = asyncio.create_task(asker.completion(asked))
    begun = partial(journal, office, asked.request_id)
    await asyncio.to_thread(eventually, lambda: len(begun()) == 2, what="the call of the tool")
    called = call_id(run_id(asked.request_id, TENANT), 1)
    forged = Completion(
        model="m", content='{"result": 9}', finish_reason=FinishReason.STOP, usage=Usage()
    )
    refusal = Refusal(reason=Reason.REQUEST_INVALID, message="forged")
    for reply in (
        InferenceReplied(request_id=called, completion=forged, replied_at=now()),
        InferenceReplied(request_id=called, completion=forged, claim="0" * 64, replied_at=now()),
        InferenceReplied(
            request_id=f"{run_id(asked.request_id, TENANT)}//cancelled",
            refusal=refusal,
            replied_at=now(),
        ),
    ):
        office.bus.send(REPLY.member(PLATFORM), reply)
    # What the tool comes to lies behind them.
    gate.open()
    answer = await asking
    assert answer is not None
    assert answer.content == "it is 3"
    outputs = [each.item or "" for each in told(office, asked.request_id)]
    assert not any(
        "9" in json.loads(each).get("output", "") for each in outputs if "_output" in each
    )


async def test_a_client_runs_an_agent_and_calls_a_function(office: Office) -> None:
    environment = office.bus.environment
    async with Client(
        tenant=TENANT,
        kafka=KafkaSettings(bootstrap_servers=environment["KAFKA_BOOTSTRAP_SERVERS"]),
        registry=RegistrySettings(url=environment["REGISTRY_URL"]),
    ) as client:
        reply = await client.run(CLERK, turns([SUM], "three"))
        assert reply.completion.content == "three"
        assert await client.call(ADD, {"a": 1, "b": 2}) == 3
        with pytest.raises(RequestRefused, match="may not"):
            await client.call(WIPE, {"a": 1, "b": 2})
