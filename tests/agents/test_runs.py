"""Runs of agents from end to end: what comes of them, and what the log has of them."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from infra.asker import Asker, RequestRefused
from infra.telemetry import now
from schemas.agents import call_id, run_id
from schemas.events import AgentJournaled, AgentTold, Reason, RequestCancelled
from schemas.topics import (
    AGENT_JOURNALED,
    AGENT_TOLD,
    INFERENCE_RECORDED,
    REQUEST_CANCELLED,
    root_of,
)
from tests.agents.conftest import ADD, CAREFUL, TENANT, WIPE, Office, wanted
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
        return [
            (each.endpoint, each.prompt_tokens + each.completion_tokens)
            for each in office.bus.events(INFERENCE_RECORDED)
            if each.request_id.startswith(f"{asked.request_id}//")
        ]

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
    asked = wanted(turns([["add", {"a": 1, "b": 2, "wait_s": 60}]], "late"))

    asking = asyncio.create_task(asker.completion(asked))
    begun = partial(journal, office, asked.request_id)
    await asyncio.to_thread(eventually, lambda: len(begun()) == 2, what="the call of the tool")
    cancelled = RequestCancelled(
        request_id=asked.request_id, tenant=TENANT, cancelled_at=now(), deadline=asked.deadline
    )
    office.bus.send(REQUEST_CANCELLED, cancelled)
    with pytest.raises(RequestRefused) as refused:
        await asking
    assert refused.value.refusal.reason is Reason.CANCELLED
    off = {each.request_id for each in office.bus.events(REQUEST_CANCELLED)}
    assert call_id(run_id(asked.request_id, TENANT), 1) in off
    assert office.did(asked.request_id) == []


async def test_a_run_that_nobody_lets_go_on_ends_when_its_time_is_over(
    office: Office, asker: Asker
) -> None:
    asked = wanted(turns([SUM], "late"), endpoint=CAREFUL, deadline=now() + timedelta(seconds=8))
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
