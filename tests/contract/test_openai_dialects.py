"""The dialects on OpenAI's library before servers that speak the protocol, well and badly."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import cast

import pytest
from structlog.testing import capture_logs

from schemas.events import (
    Completion,
    FinishReason,
    Message,
    Reason,
    Role,
    Sampling,
    Task,
    ToolCall,
    Usage,
)
from tests.contract.asking import PERSON, WEATHER, Subject, ask, completion, hear, refused
from tests.contract.conftest import on_the_session_loop
from tests.contract.connections import connected
from tests.contract.openai_servers import CHAT, RESPONSES
from tests.contract.scripted_server import ScriptedServer, scripted_server
from tests.contract.vendor_ways import WEATHER_CALL

pytestmark = pytest.mark.asyncio(loop_scope="session")

RAINY = "北京今天多云🙂 " * 20
DIALECTS = ["chat", "responses"]
every_dialect = pytest.mark.parametrize("name", DIALECTS)


@on_the_session_loop
async def chat_server() -> AsyncIterator[ScriptedServer]:
    async with scripted_server(CHAT) as server:
        yield server


@on_the_session_loop
async def responses_server() -> AsyncIterator[ScriptedServer]:
    async with scripted_server(RESPONSES) as server:
        yield server


@on_the_session_loop
async def chat(chat_server: ScriptedServer) -> AsyncIterator[Subject]:
    async with connected("is well", chat_server.idle, "openai", chat_server.base_url) as subject:
        yield subject


@on_the_session_loop
async def responses(responses_server: ScriptedServer) -> AsyncIterator[Subject]:
    server = responses_server
    async with connected("is well", server.idle, "openai_responses", server.base_url) as subject:
        yield subject


@pytest.fixture
def subject(name: str, request: pytest.FixtureRequest) -> Subject:
    return cast(Subject, request.getfixturevalue(name))


@every_dialect
@pytest.mark.parametrize(
    "way", ["arrives byte by byte", "arrives packed", "arrives slowly", "is well"]
)
async def test_text_arrives_whole_however_it_is_cut_on_the_way(subject: Subject, way: str) -> None:
    heard = await hear(replace(subject, model=way), ask(RAINY))
    assert heard.text == heard.completions[0].content == RAINY
    assert len(heard.deltas) >= 20


@every_dialect
async def test_packed_events_are_yielded_as_they_come(subject: Subject) -> None:
    events = subject.provider.complete(ask(RAINY), replace(subject, model="arrives packed").route)
    await anext(events)
    await events.aclose()
    async with asyncio.timeout(30):
        await subject.idle()


@every_dialect
async def test_a_line_that_cannot_be_read_is_skipped_and_counted(subject: Subject) -> None:
    with capture_logs() as logs:
        heard = await hear(replace(subject, model="has a bad line"), ask(RAINY))
    assert heard.text == RAINY
    assert [entry["lines"] for entry in logs if entry["event"] == "stream lines skipped"] == [1]


@every_dialect
@pytest.mark.parametrize("way", ["is cut", "breaks off"])
async def test_half_an_answer_is_never_a_completion(subject: Subject, way: str) -> None:
    refusal = await refused(replace(subject, model=way), ask(RAINY))
    assert refusal.reason is Reason.STREAM_CUT


async def test_a_response_tells_what_was_cached_and_thought(responses: Subject) -> None:
    told = await completion(responses, ask())
    assert told.model == "scripted-2"
    assert told.usage == Usage(
        prompt_tokens=7, completion_tokens=9, cached_tokens=3, reasoning_tokens=4
    )
    assert told.finish_reason is FinishReason.STOP


async def test_tools_are_called_in_a_response(responses: Subject) -> None:
    heard = await hear(replace(responses, model="calls tools"), ask(tools=(WEATHER,)))
    [told] = heard.completions
    assert told.finish_reason is FinishReason.TOOL_CALLS
    assert told.tool_calls == tuple(
        ToolCall(id=f"c{number}", name="weather", arguments=WEATHER_CALL) for number in (1, 2)
    )
    assert {piece.index for delta in heard.deltas for piece in delta.tool_calls} == {0, 1}


@pytest.mark.parametrize(
    ("way", "reason"),
    [("is filtered", FinishReason.CONTENT_FILTER), ("is too long", FinishReason.LENGTH)],
)
async def test_a_response_says_why_it_is_not_whole(
    responses: Subject, way: str, reason: FinishReason
) -> None:
    told = await completion(replace(responses, model=way), ask())
    assert (told.finish_reason, told.content) == (reason, "half a")


@pytest.mark.parametrize(
    ("way", "reason"),
    [
        ("fails", Reason.PROVIDER_UNAVAILABLE),
        ("fails by itself", Reason.PROVIDER_FAILED),
        ("is incomplete", Reason.PROVIDER_FAILED),
        ("is limited", Reason.RATE_LIMITED),
    ],
)
async def test_a_response_that_fails_is_refused(
    responses: Subject, way: str, reason: Reason
) -> None:
    assert (await refused(replace(responses, model=way), ask())).reason is reason


async def test_the_body_of_a_response_is_openais(
    responses: Subject, responses_server: ScriptedServer
) -> None:
    call = ToolCall(id="c1", name="weather", arguments=WEATHER_CALL)
    turns = (
        Message(role=Role.SYSTEM, content="Be brief."),
        Message(role=Role.USER, content="And in Beijing?"),
        Message(role=Role.ASSISTANT, tool_calls=(call,)),
        Message(role=Role.TOOL, content="cloudy", tool_call_id="c1"),
        Message(role=Role.USER, content="Say it."),
    )
    asked = ask(
        tools=(WEATHER,),
        tool_choice="weather",
        sampling=Sampling(temperature=0.5, max_tokens=99, top_p=0.9),
    )
    await hear(responses, replace(asked, messages=turns))
    [(_, body)] = responses_server.seen
    assert responses_server.paths == ["/v1/responses"]
    assert body == {
        "model": "is well",
        "input": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "And in Beijing?"},
            {
                "type": "function_call",
                "call_id": "c1",
                "name": "weather",
                "arguments": WEATHER_CALL,
            },
            {"type": "function_call_output", "call_id": "c1", "output": "cloudy"},
            {"role": "user", "content": "Say it."},
        ],
        "stream": True,
        "store": False,
        "temperature": 0.5,
        "max_output_tokens": 99,
        "top_p": 0.9,
        "tools": [
            {
                "type": "function",
                "name": "weather",
                "description": WEATHER.description,
                "parameters": json.loads(WEATHER.parameters),
                "strict": False,
            }
        ],
        "tool_choice": {"type": "function", "name": "weather"},
    }


async def test_what_a_response_cannot_be_asked_for_is_refused_and_not_dropped(
    responses: Subject,
) -> None:
    refusal = await refused(responses, ask(sampling=Sampling(stop=("end",))))
    assert (refusal.reason, refusal.field) == (Reason.ROUTE_UNFIT, "sampling.stop")


@every_dialect
async def test_a_schema_reaches_the_provider_and_prose_is_no_answer_to_it(
    subject: Subject, chat_server: ScriptedServer, responses_server: ScriptedServer
) -> None:
    refusal = await refused(subject, ask("prose", json_schema=json.dumps(PERSON)))
    assert refusal.reason is Reason.ANSWER_UNKEPT
    [(_, body)] = chat_server.seen + responses_server.seen
    form = body["text"]["format"] if "text" in body else body["response_format"]["json_schema"]
    assert form["schema"] == PERSON
    kept = await completion(
        subject, ask('{"name":"Ada","adult":true}', json_schema=json.dumps(PERSON))
    )
    assert json.loads(kept.content)["name"] == "Ada"


async def test_texts_become_vectors_in_their_order(
    chat: Subject, chat_server: ScriptedServer
) -> None:
    asked = replace(ask(), task=Task.EMBEDDING, messages=(), inputs=("a", "bbb"))
    told = await completion(replace(chat, model="embeds"), asked)
    assert told == Completion(
        model="embedder",
        finish_reason=FinishReason.STOP,
        usage=Usage(prompt_tokens=5),
        vectors=((1.0, 0.5), (3.0, 0.5)),
    )
    assert chat_server.paths == ["/v1/embeddings"]
    short = await refused(replace(chat, model="embeds too little"), asked)
    assert short.reason is Reason.PROVIDER_FAILED


async def test_documents_get_scores_in_their_order(
    chat: Subject, chat_server: ScriptedServer
) -> None:
    asked = replace(ask(), task=Task.RERANK, messages=(), query="sea", inputs=("hill", "sea"))
    told = await completion(replace(chat, model="ranks"), asked)
    assert (told.scores, told.usage) == ((0.0, 1.0), Usage(prompt_tokens=6))
    assert chat_server.paths == ["/v1/rerank"]


async def test_what_a_dialect_cannot_do_is_refused_by_name(responses: Subject) -> None:
    asked = replace(ask(), task=Task.EMBEDDING, messages=(), inputs=("a",))
    refusal = await refused(responses, asked)
    assert (refusal.reason, refusal.field) == (Reason.ROUTE_UNFIT, "task")


async def test_azure_is_asked_by_deployment_and_version(
    chat_server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_KEY", "azure-secret")
    async with connected(
        "is well",
        chat_server.idle,
        "azure_openai",
        chat_server.url,
        secret="env:AZURE_KEY",
        options={"api_version": "2024-10-21"},
    ) as subject:
        assert (await completion(subject, ask("hi"))).content == "hi"
    [(headers, _)] = chat_server.seen
    [path] = chat_server.paths
    assert path == "/openai/deployments/is%20well/chat/completions?api-version=2024-10-21"
    assert headers["api-key"] == "azure-secret"
    assert "Authorization" not in headers


async def test_azure_without_a_version_is_refused_by_name(chat_server: ScriptedServer) -> None:
    async with connected("m", chat_server.idle, "azure_openai", chat_server.url) as subject:
        refusal = await refused(subject, ask())
    assert refusal.reason is Reason.PROVIDER_FAILED
    assert "api_version" in refusal.message
