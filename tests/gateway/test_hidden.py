"""What policies withhold is in no place that others read: upstream, topics, tables and logs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from typing import Any

import pytest

from schemas.events import Message, Reason, Role, Task, Tool, ToolCall
from schemas.topics import (
    AUDIT_RECORDED,
    COMPLETION_CACHED,
    DEAD_LETTERS,
    INFERENCE_ATTEMPTED,
    INFERENCE_COMPLETED,
    INFERENCE_HELD,
    INFERENCE_JUDGED,
    INFERENCE_PARTS,
    INFERENCE_RECORDED,
    INFERENCE_REFUSED,
    INFERENCE_ROUTED,
    INFERENCE_WEIGHED,
    USAGE_COUNTED,
    Topic,
)
from tests.gateway.town import (
    IN,
    Caller,
    Town,
    connection,
    endpoint,
    masks,
    policy,
    tenant,
    way,
)
from tests.gateway.upstreams import says
from tests.harness import READY_S, eventually, running

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

TENANT = "hidden"
# An address that no other test uses.
SECRET = "eleonora.quist@hidden.example.com"
WORD = "abracadabra"
USER = Message(role=Role.USER, content="go on")
CALL = ToolCall(id="c1", name="pay", arguments=json.dumps({"mail": SECRET, "sum": 3}))
NESTED = ToolCall(id="c1", name="pay", arguments=json.dumps({"a": [{"b": f"to {SECRET}"}]}))
ANSWER = Message(role=Role.TOOL, content=json.dumps({"found": SECRET}), tool_call_id="c1")
PARAMETERS = {"type": "object", "properties": {"to": {"type": "string"}}}
DESCRIBED = {"type": "object", "properties": {"to": {"type": "string", "description": SECRET}}}


def said(role: Role, content: str = SECRET, **more: Any) -> Message:
    return Message(role=role, content=content, **more)


def called(call: ToolCall) -> tuple[Message, ...]:
    asks = Message(role=Role.ASSISTANT, tool_calls=(call,))
    return (USER, asks, Message(role=Role.TOOL, content="done", tool_call_id="c1"), USER)


def tool(**more: Any) -> Tool:
    return Tool(**{"name": "pay", "parameters": json.dumps(PARAMETERS), **more})


PLACES: dict[str, dict[str, Any]] = {
    "an answer before": {"messages": (USER, said(Role.ASSISTANT), USER)},
    "an argument": {"messages": called(CALL), "tools": (tool(),)},
    "an argument deep inside": {"messages": called(NESTED), "tools": (tool(),)},
    "an earlier question": {"messages": (said(Role.USER), said(Role.ASSISTANT, "so?"), USER)},
    "a question": {"messages": (said(Role.USER, f"mail {SECRET} now"),)},
    "a question with a link": {
        "messages": (
            said(Role.USER, f"see mailto:{SECRET}?subject=hi, https://a.example/?m={SECRET}"),
        )
    },
    "a schema": {"messages": (USER,), "json_schema": json.dumps(DESCRIBED)},
    "a system text": {"messages": (said(Role.SYSTEM), USER)},
    "a tool's answer": {
        "messages": (*called(CALL)[:2], ANSWER, USER),
        "tools": (tool(),),
    },
    "a tool's description": {
        "messages": (USER,),
        "tools": (tool(description=f"pays {SECRET}"),),
    },
    "a tool's parameter": {
        "messages": (USER,),
        "tools": (tool(parameters=json.dumps(DESCRIBED)),),
    },
    "an input": {"messages": (), "task": Task.EMBEDDING, "inputs": ("a", f"b {SECRET}")},
    "a document": {
        "messages": (),
        "task": Task.RERANK,
        "query": "who?",
        "inputs": ("a", f"b {SECRET}"),
    },
    "a query": {
        "messages": (),
        "task": Task.RERANK,
        "query": f"who is {SECRET}?",
        "inputs": ("a", "b"),
    },
}
VENDORS = {"anthropic": "messages", "openai": "chat/completions", "openai_responses": "responses"}


@pytest.fixture(scope="module", autouse=True)
def defined(town: Town) -> None:
    town.upstreams.scripts.update(
        {
            "hidden": says(lambda text: ["ye", "s"]),
            "repeats": says(lambda text: [text]),
            "two-pieces": says(lambda text: ["say abraca", "dabra aloud"], gap_s=0.05),
        }
    )
    masking = masks("EMAIL_ADDRESS")
    # The model of this judge fails.
    judge = {"type": "judge", "name": "judge", "endpoint": f"{IN}.judge", "timeout": "20s"}
    words = {"type": "keywords", "name": "words", "words": [WORD], "on": ["output"]}
    town.define(
        tenant(TENANT),
        policy("hidden", masking),
        policy("judged", masking, judge),
        policy("words", words),
        policy("no-mails", masks("EMAIL_ADDRESS", deal="block")),
        *(connection(f"hidden-{vendor}", town.upstreams, type=vendor) for vendor in VENDORS),
        *(
            endpoint(
                f"hidden-{vendor}",
                way("a", f"hidden-{vendor}", model),
                policies=[f"{IN}.hidden"],
            )
            for vendor, model in {
                "anthropic": "is well",
                "openai": "hidden",
                "openai_responses": "is well",
            }.items()
        ),
        *(
            endpoint(f"hidden-{task}", way("a", "hidden-openai", model), policies=[f"{IN}.hidden"])
            for task, model in {"EMBEDDING": "embeds", "RERANK": "ranks"}.items()
        ),
        connection("judged", town.upstreams),
        endpoint("judge", way("a", "judged", "fails")),
        endpoint("judged", way("a", "judged", "hidden"), policies=[f"{IN}.judged"]),
        endpoint("no-mails", way("a", "judged", "hidden"), policies=[f"{IN}.no-mails"]),
        endpoint("repeats", way("a", "hidden-openai", "repeats"), policies=[f"{IN}.hidden"]),
        endpoint("two-pieces", way("a", "judged", "two-pieces"), policies=[f"{IN}.words"]),
    )


@pytest.fixture(scope="module")
def guard(town: Town) -> Iterator[None]:
    """A worker that asks those who judge."""
    command = ["-m", "workers", "guard"]
    unsigned = {"CLIENT_TENANT": TENANT, "CLIENT_PRINCIPAL": "", "CLIENT_KEY": ""}
    with running(town.bus, command, town.folder, start_s=READY_S, **unsigned):
        yield


@pytest.fixture
async def caller(town: Town) -> AsyncIterator[Caller]:
    async with town.caller(TENANT) as caller:
        yield caller


@pytest.mark.parametrize("place", sorted(PLACES))
async def test_no_place_of_a_request_carries_what_is_masked_to_any_vendor(
    town: Town, caller: Caller, place: str
) -> None:
    asked = PLACES[place]
    task = asked.get("task")
    for vendor in [task.value] if task else VENDORS:
        upstream = "hidden-openai" if task else f"hidden-{vendor}"
        before = len(town.upstreams.to(upstream))
        heard = await caller.ask(f"hidden-{vendor}", **asked)
        calls = town.upstreams.to(upstream)[before:]
        # A schema that an answer breaks is refused behind the provider; it was asked all the same.
        assert calls, heard.refusal
        assert all(b"quist" not in each.raw for each in calls)
        assert any(b"EMAIL_ADDRESS_1" in each.raw for each in calls)


async def test_the_keys_of_arguments_and_schemas_stay_as_they_are(
    town: Town, caller: Caller
) -> None:
    asked = {**PLACES["an argument"], "tools": PLACES["a tool's parameter"]["tools"]}
    await caller.ask("hidden-openai", **asked)
    form = town.upstreams.to("hidden-openai")[-1].form
    [call] = form["messages"][1]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"mail": "<EMAIL_ADDRESS_1>", "sum": 3}
    [described] = form["tools"]
    properties = described["function"]["parameters"]["properties"]
    assert properties == {"to": {"type": "string", "description": "<EMAIL_ADDRESS_1>"}}


@pytest.mark.usefixtures("guard")
async def test_nothing_goes_upstream_that_a_guard_could_not_judge(
    town: Town, caller: Caller
) -> None:
    heard = await caller.ask("judged", f"mail {SECRET}")
    assert heard.reason is Reason.POLICY_FAILED
    judged = [each for each in town.upstreams.to("judged") if each.form["model"] == "hidden"]
    assert judged == []
    row = await asyncio.to_thread(town.row, heard.request.request_id)
    assert (row.status, row.rule, row.cost) == (503, f"{IN}.judged/judge", Decimal(0))


@pytest.mark.parametrize("stream", [False, True])
async def test_a_word_that_may_not_be_said_is_not_said_though_it_comes_in_two_pieces(
    town: Town, caller: Caller, stream: bool
) -> None:
    heard = await caller.ask("two-pieces", "say it", stream=stream)
    assert heard.refusal
    assert (heard.reason, heard.refusal.rule) == (Reason.POLICY_DENIED, f"{IN}.words/words")
    assert WORD not in heard.refusal.message
    assert not any("dabra" in part.content for part in heard.parts)
    row = await asyncio.to_thread(town.row, heard.request.request_id)
    assert WORD not in str(row)
    # What the provider did is paid for, said or not.
    assert row.completion_tokens == 3


async def test_what_is_masked_is_nowhere_but_in_the_request_and_its_reply(
    town: Town, caller: Caller
) -> None:
    for name, reason in (("repeats", None), ("no-mails", Reason.POLICY_DENIED)):
        for stream in (False, True):
            heard = await caller.ask(name, f"mail {SECRET} and {SECRET}", stream=stream)
            assert heard.reason is reason
            await asyncio.to_thread(town.row, heard.request.request_id)
    bus = town.bus
    await asyncio.to_thread(
        eventually, lambda: bus.lag("recorder", INFERENCE_RECORDED.name) == 0, 60, "the rows"
    )
    topics: list[Topic[Any]] = [
        *(AUDIT_RECORDED, COMPLETION_CACHED, DEAD_LETTERS, INFERENCE_ATTEMPTED, INFERENCE_HELD),
        *(INFERENCE_COMPLETED, INFERENCE_JUDGED, INFERENCE_PARTS, INFERENCE_RECORDED),
        *(INFERENCE_REFUSED, INFERENCE_ROUTED.member("outside"), INFERENCE_WEIGHED, USAGE_COUNTED),
    ]
    found = [
        topic.name
        for topic in topics
        for record in await asyncio.to_thread(bus.records, topic.name)
        if b"quist" in (record.value or b"") + (record.key or b"") + repr(record.headers).encode()
    ]
    assert found == []
    lake = town.stored()
    assert lake
    assert [name for name, stored in lake.items() if b"quist" in stored] == []
    assert b"quist" not in town.logs()
