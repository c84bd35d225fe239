"""What Gemini is asked, and how what it answers is understood."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from schemas.events import (
    Alternative,
    FinishReason,
    Message,
    Reason,
    Role,
    Sampling,
    Task,
    TokenLogprob,
    Usage,
)
from tests.contract.asking import PERSON, WEATHER, Subject, ask, completion, hear, refused
from tests.contract.conftest import on_the_session_loop
from tests.contract.gemini_server import SIGNATURE
from tests.contract.scripted_server import ScriptedServer
from tests.contract.vendors import EVERY_PARAMETER, conversation, reached, served

pytestmark = pytest.mark.asyncio(loop_scope="session")

EMBEDDING = replace(ask(), task=Task.EMBEDDING, messages=(), inputs=("a", "four", "北京"))


@on_the_session_loop
async def server() -> AsyncIterator[ScriptedServer]:
    async with served("gemini") as running:
        yield running


@on_the_session_loop
async def gemini(server: ScriptedServer) -> AsyncIterator[Subject]:
    async with reached("gemini", server) as subject:
        yield subject


async def test_a_conversation_goes_out_whole(gemini: Subject, server: ScriptedServer) -> None:
    await hear(gemini, conversation(EVERY_PARAMETER))
    [(_, body)] = server.seen
    path = "/v1beta/models/arrives slowly:streamGenerateContent?alt=sse"
    assert server.paths == [path.replace(" ", "%20")]
    answered = {"functionResponse": {"id": "call_2", "name": "now", "response": {"output": "noon"}}}
    told = {"id": "call_1", "name": "weather", "response": {"output": "21 degrees"}}
    arguments = {"city": "Paris", "unit": "celsius"}
    assert body == {
        "systemInstruction": {
            "role": "user",
            "parts": [{"text": "Be brief.\n\nBe brief still."}],
        },
        "contents": [
            {"role": "user", "parts": [{"text": "Hello."}, {"text": "How is Paris?"}]},
            {
                "role": "model",
                "parts": [
                    {"text": "Let me look."},
                    {"functionCall": {"id": "call_1", "name": "weather", "args": arguments}},
                    {"functionCall": {"id": "call_2", "name": "now", "args": {}}},
                ],
            },
            {"role": "user", "parts": [answered, {"functionResponse": told}, {"text": "And?"}]},
        ],
        "tools": [
            {
                "functionDeclarations": [
                    {
                        "name": "weather",
                        "description": WEATHER.description,
                        # The library writes it so, and Google reads it so.
                        "parameters_json_schema": json.loads(WEATHER.parameters),
                    }
                ]
            }
        ],
        "toolConfig": {
            "functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["weather"]}
        },
        "generationConfig": {
            "temperature": 0.5,
            "topP": 0.9,
            "topK": 7.0,
            "maxOutputTokens": 100,
            "stopSequences": ["END"],
            "seed": 3,
            "frequencyPenalty": 0.1,
            "presencePenalty": 0.2,
        },
    }


@pytest.mark.parametrize(
    ("choice", "mode"), [("auto", "AUTO"), ("none", "NONE"), ("required", "ANY")]
)
async def test_how_tools_are_chosen_goes_out(
    gemini: Subject, server: ScriptedServer, choice: str, mode: str
) -> None:
    await hear(gemini, ask(tools=(WEATHER,), tool_choice=choice))
    [(_, body)] = server.seen
    assert body["toolConfig"] == {"functionCallingConfig": {"mode": mode}}


async def test_the_version_is_the_connections(server: ScriptedServer) -> None:
    async with reached("gemini", server, api_version="v1") as subject:
        await hear(subject, ask())
    assert server.paths[0].startswith("/v1/models/")


async def test_a_schema_goes_out_as_such(gemini: Subject, server: ScriptedServer) -> None:
    await refused(gemini, ask("Name a person.", json_schema=json.dumps(PERSON)))
    [(_, body)] = server.seen
    config = body["generationConfig"]
    assert config["responseMimeType"] == "application/json"
    assert config["responseJsonSchema"] == PERSON


async def test_a_calls_signature_goes_back_with_it(gemini: Subject, server: ScriptedServer) -> None:
    now = replace(WEATHER, name="now", parameters='{"type": "object"}')
    request = ask("How is Beijing?", tools=(WEATHER, now))
    told = await completion(replace(gemini, model="calls tools"), request)
    answers = (
        Message(role=Role.TOOL, content="21 degrees", tool_call_id=call.id)
        for call in told.tool_calls
    )
    asked = (*request.messages, Message(role=Role.ASSISTANT, tool_calls=told.tool_calls), *answers)
    again = (*asked, Message(role=Role.USER, content="And?"))
    await hear(gemini, replace(request, messages=again))
    _, model, answered = server.seen[-1][1]["contents"]
    weather, now_called = model["parts"]
    assert weather["thoughtSignature"] == SIGNATURE
    assert "thoughtSignature" not in now_called
    # Gemini gave no ids, so it sees none.
    assert "id" not in weather["functionCall"]
    assert [part["functionResponse"]["name"] for part in answered["parts"][:2]] == [
        "weather",
        "now",
    ]


async def test_thoughts_and_the_cache_are_counted(gemini: Subject) -> None:
    told = await completion(replace(gemini, model="caches"), ask())
    assert told.model == "gemini-scripted"
    assert told.usage == Usage(
        prompt_tokens=31_406, completion_tokens=102, cached_tokens=30_940, reasoning_tokens=40
    )


async def test_log_probabilities_come_with_their_alternatives(
    gemini: Subject, server: ScriptedServer
) -> None:
    sampling = Sampling(top_logprobs=2)
    told = await completion(replace(gemini, model="weighs words"), ask(sampling=sampling))
    yes, no = Alternative(token="yes", logprob=-0.1), Alternative(token="no", logprob=-2.5)
    assert told.logprobs == (TokenLogprob(token="yes", logprob=-0.1, top=(yes, no)),)
    config = server.seen[0][1]["generationConfig"]
    assert (config["responseLogprobs"], config["logprobs"]) == (True, 2)


async def test_a_prompt_that_is_blocked_is_answered_with_nothing(gemini: Subject) -> None:
    told = await completion(replace(gemini, model="blocks the prompt"), ask())
    assert (told.content, told.finish_reason) == ("", FinishReason.CONTENT_FILTER)
    assert told.usage.prompt_tokens == 7


@pytest.mark.parametrize("script", ["gives up", "knows no key"])
async def test_what_is_not_the_callers_fault_is_the_providers(gemini: Subject, script: str) -> None:
    refusal = await refused(replace(gemini, model=script), ask())
    assert refusal.reason is Reason.PROVIDER_FAILED


async def test_how_long_to_wait_is_read_from_the_details(gemini: Subject) -> None:
    refusal = await refused(replace(gemini, model="limits by details"), ask())
    assert (refusal.reason, refusal.retry_after_ms) == (Reason.RATE_LIMITED, 7_500)


async def test_each_text_has_a_vector_and_its_tokens_are_counted_here(
    gemini: Subject, server: ScriptedServer
) -> None:
    told = await completion(replace(gemini, model="embeddings"), EMBEDDING)
    assert told.vectors == ((1.0, 0.5), (4.0, 0.5), (2.0, 0.5))
    assert told.usage == Usage(prompt_tokens=3, estimated=True)
    assert server.paths == ["/v1beta/models/embeddings:batchEmbedContents"]


async def test_too_few_vectors_are_none(gemini: Subject) -> None:
    refusal = await refused(replace(gemini, model="embeds too little"), EMBEDDING)
    assert refusal.reason is Reason.PROVIDER_FAILED


async def test_an_embedding_is_refused_as_a_completion_is(gemini: Subject) -> None:
    refusal = await refused(replace(gemini, model="limits by seconds"), EMBEDDING)
    assert (refusal.reason, refusal.retry_after_ms) == (Reason.RATE_LIMITED, 7_000)
