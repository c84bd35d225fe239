"""What Anthropic is asked, and how what it answers is understood."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from schemas.events import Reason, Refusal, Sampling, Usage
from tests.contract.anthropic_server import begun, complaint, frames, text_block
from tests.contract.asking import PERSON, WEATHER, Subject, ask, completion, hear, refused
from tests.contract.conftest import on_the_session_loop
from tests.contract.connections import connected
from tests.contract.misbehaving import delivered, slowly
from tests.contract.scripted_server import Script, ScriptedServer, scripted_server
from tests.contract.vendor_ways import refuses
from tests.contract.vendors import conversation, reached, served

pytestmark = pytest.mark.asyncio(loop_scope="session")

ERRORS = {
    "api_error": Reason.PROVIDER_UNAVAILABLE,
    "authentication_error": Reason.PROVIDER_FAILED,
    "invalid_request_error": Reason.REQUEST_INVALID,
    "overloaded_error": Reason.PROVIDER_UNAVAILABLE,
    "rate_limit_error": Reason.RATE_LIMITED,
    "timeout_error": Reason.PROVIDER_TIMEOUT,
    "unheard_of": Reason.PROVIDER_UNAVAILABLE,
}


@on_the_session_loop
async def server() -> AsyncIterator[ScriptedServer]:
    async with served("anthropic") as running:
        yield running


@on_the_session_loop
async def anthropic(server: ScriptedServer) -> AsyncIterator[Subject]:
    async with reached("anthropic", server) as subject:
        yield subject


async def test_a_conversation_goes_out_whole(anthropic: Subject, server: ScriptedServer) -> None:
    sampling = Sampling(
        temperature=0.5, top_p=0.9, top_k=7, max_tokens=100, stop=("END",), presence_penalty=0
    )
    await hear(anthropic, conversation(sampling))
    [(headers, body)] = server.seen
    assert server.paths == ["/v1/messages"]
    assert headers["anthropic-version"] == "2023-06-01"
    assert body == {
        "model": "arrives slowly",
        "system": "Be brief.\n\nBe brief still.",
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Hello."},
                    {"type": "text", "text": "How is Paris?"},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "Let me look."},
                    {
                        "type": "tool_use",
                        "id": "call_1",
                        "name": "weather",
                        "input": {"city": "Paris", "unit": "celsius"},
                    },
                    {"type": "tool_use", "id": "call_2", "name": "now", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "call_2", "content": "noon"},
                    {"type": "tool_result", "tool_use_id": "call_1", "content": "21 degrees"},
                    {"type": "text", "text": "And?"},
                ],
            },
        ],
        "tools": [
            {
                "name": "weather",
                "description": WEATHER.description,
                "input_schema": json.loads(WEATHER.parameters),
            }
        ],
        "tool_choice": {"type": "tool", "name": "weather"},
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 7,
        "max_tokens": 100,
        "stop_sequences": ["END"],
        "stream": True,
    }


@pytest.mark.parametrize(
    ("choice", "kind"), [("auto", "auto"), ("none", "none"), ("required", "any")]
)
async def test_how_tools_are_chosen_goes_out(
    anthropic: Subject, server: ScriptedServer, choice: str, kind: str
) -> None:
    await hear(anthropic, ask(tools=(WEATHER,), tool_choice=choice))
    [(_, body)] = server.seen
    assert body["tool_choice"] == {"type": kind}


async def test_tokens_of_the_cache_are_tokens_of_the_prompt(anthropic: Subject) -> None:
    told = await completion(replace(anthropic, model="caches"), ask())
    assert told.model == "claude-scripted"
    assert told.usage == Usage(
        prompt_tokens=31_406,
        completion_tokens=102,
        cached_tokens=30_940,
        cache_write_tokens=460,
        reasoning_tokens=40,
    )


async def test_a_schema_goes_out_as_such(anthropic: Subject, server: ScriptedServer) -> None:
    request = ask("Name a person.", json_schema=json.dumps(PERSON), tools=(WEATHER,))
    await refused(anthropic, request)
    [(_, body)] = server.seen
    assert body["output_config"] == {"format": {"type": "json_schema", "schema": PERSON}}
    assert [tool["name"] for tool in body["tools"]] == ["weather"]


async def test_without_schemas_an_answer_is_forced(server: ScriptedServer) -> None:
    async with reached("anthropic", server, "answers by tool", json_schema="tool") as subject:
        request = ask("Name a person.", json_schema=json.dumps(PERSON))
        await hear(subject, request)
        await hear(subject, replace(request, tools=(WEATHER,)))
        await hear(subject, replace(request, tools=(WEATHER,), tool_choice="none"))
        await refused(subject, replace(request, tools=(WEATHER,), tool_choice="weather"))
    bodies = [body for _, body in server.seen]
    assert [[tool["name"] for tool in body["tools"]] for body in bodies] == [
        ["answer"],
        ["weather", "answer"],
        ["answer"],
        ["weather"],
    ]
    forced = {"type": "tool", "name": "answer", "disable_parallel_tool_use": True}
    assert [body["tool_choice"] for body in bodies] == [
        forced,
        {"type": "any", "disable_parallel_tool_use": True},
        forced,
        {"type": "tool", "name": "weather"},
    ]
    assert bodies[0]["tools"][0]["input_schema"] == PERSON


async def test_what_cannot_be_forced_is_refused_by_name(server: ScriptedServer) -> None:
    async with reached("anthropic", server, json_schema="tool") as subject:
        beside = ask(json_schema=json.dumps(PERSON), tools=(replace(WEATHER, name="answer"),))
        assert (await refused(subject, beside)).field == "tools"
        assert (await refused(subject, ask(json_schema='{"type": "array"}'))).field == "json_schema"
    assert server.seen == []


async def test_max_tokens_are_the_connections_where_a_request_has_none(
    server: ScriptedServer,
) -> None:
    for options, most in (({}, 4096), ({"max_tokens": "50"}, 50)):
        async with reached("anthropic", server, **options) as subject:
            await hear(subject, ask(sampling=Sampling()))
        assert server.seen[-1][1]["max_tokens"] == most


@pytest.mark.parametrize(
    ("sampling", "field"),
    [
        (Sampling(frequency_penalty=1), "sampling.frequency_penalty"),
        (Sampling(presence_penalty=-1), "sampling.presence_penalty"),
        (Sampling(seed=0), "sampling.seed"),
        (Sampling(top_logprobs=0), "sampling.top_logprobs"),
    ],
)
async def test_what_it_does_not_know_is_refused_by_name(
    anthropic: Subject, server: ScriptedServer, sampling: Sampling, field: str
) -> None:
    refusal = await refused(anthropic, ask(sampling=sampling))
    assert (refusal.reason, refusal.field) == (Reason.REQUEST_INVALID, field)
    assert server.seen == []


async def test_what_asks_for_nothing_is_left_out(
    anthropic: Subject, server: ScriptedServer
) -> None:
    neutral = Sampling(frequency_penalty=0, presence_penalty=0, top_k=-1)
    await hear(anthropic, ask(sampling=neutral))
    [(_, body)] = server.seen
    assert body.keys() == {"model", "max_tokens", "messages", "stream"}


@pytest.mark.parametrize("kind", sorted(ERRORS))
async def test_an_error_in_the_stream_is_what_its_type_says(kind: str) -> None:
    error = {"type": "error", "error": {"type": kind, "message": "no"}}
    scripts = {"errs": delivered(lambda _: frames([*begun(), *text_block("half"), error]), slowly)}
    assert (await _refused(scripts, "errs")).reason is ERRORS[kind]


async def test_an_empty_purse_is_not_the_callers_fault() -> None:
    scripts = {"bills": refuses(complaint, 400, "Your credit balance is too low.")}
    assert (await _refused(scripts, "bills")).reason is Reason.PROVIDER_FAILED


async def _refused(scripts: dict[str, Script], script: str) -> Refusal:
    async with (
        scripted_server(scripts) as server,
        connected(script, server.idle, "anthropic", server.url) as subject,
    ):
        return await refused(subject, ask())
