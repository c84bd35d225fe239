"""What Cohere is asked, and how what it answers is understood."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from schemas.events import InferenceRequested, Reason, Sampling, Task, Usage
from tests.contract.asking import PERSON, WEATHER, Subject, ask, completion, hear, refused
from tests.contract.conftest import on_the_session_loop
from tests.contract.scripted_server import ScriptedServer
from tests.contract.vendors import EVERY_PARAMETER, conversation, reached, served

pytestmark = pytest.mark.asyncio(loop_scope="session")

NOW = replace(WEATHER, name="now")
EMBEDDING = replace(ask(), task=Task.EMBEDDING, messages=(), inputs=("a", "four", "北京"))
RANKING = replace(EMBEDDING, task=Task.RERANK, query="our")


@on_the_session_loop
async def server() -> AsyncIterator[ScriptedServer]:
    async with served("cohere") as running:
        yield running


@on_the_session_loop
async def cohere(server: ScriptedServer) -> AsyncIterator[Subject]:
    async with reached("cohere", server) as subject:
        yield subject


async def test_a_conversation_goes_out_whole(cohere: Subject, server: ScriptedServer) -> None:
    await hear(cohere, conversation(EVERY_PARAMETER, tool_choice="auto"))
    [(_, body)] = server.seen
    assert server.paths == ["/v2/chat"]
    weather = {"name": "weather", "arguments": '{"city": "Paris", "unit": "celsius"}'}
    now = {"name": "now", "arguments": "{}"}
    function = {
        "name": "weather",
        "description": WEATHER.description,
        "parameters": json.loads(WEATHER.parameters),
    }
    assert body == {
        "model": "arrives slowly",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hello."},
            {"role": "user", "content": "How is Paris?"},
            {
                "role": "assistant",
                "content": "Let me look.",
                "tool_calls": [
                    {"id": "call_1", "type": "function", "function": weather},
                    {"id": "call_2", "type": "function", "function": now},
                ],
            },
            {"role": "tool", "content": "noon", "tool_call_id": "call_2"},
            {"role": "tool", "content": "21 degrees", "tool_call_id": "call_1"},
            {"role": "system", "content": "Be brief still."},
            {"role": "user", "content": "And?"},
        ],
        "tools": [{"type": "function", "function": function}],
        "temperature": 0.5,
        "p": 0.9,
        "k": 7,
        "max_tokens": 100,
        "stop_sequences": ["END"],
        "seed": 3,
        "frequency_penalty": 0.1,
        "presence_penalty": 0.2,
        "stream": True,
    }


@pytest.mark.parametrize(
    ("choice", "names", "written"),
    [
        ("auto", ["weather", "now"], None),
        ("none", ["weather", "now"], "NONE"),
        ("now", ["now"], "REQUIRED"),
        ("required", ["weather", "now"], "REQUIRED"),
    ],
)
async def test_a_named_tool_is_the_only_one(
    cohere: Subject, server: ScriptedServer, choice: str, names: list[str], written: str | None
) -> None:
    await hear(cohere, ask(tools=(WEATHER, NOW), tool_choice=choice))
    [(_, body)] = server.seen
    assert [tool["function"]["name"] for tool in body["tools"]] == names
    assert body.get("tool_choice") == written


async def test_a_schema_goes_out_as_such_but_not_beside_tools(
    cohere: Subject, server: ScriptedServer
) -> None:
    request = ask("Name a person.", json_schema=json.dumps(PERSON))
    await refused(cohere, request)
    await hear(replace(cohere, model="answers by tool"), replace(request, tools=(WEATHER,)))
    (_, alone), (_, beside) = server.seen
    assert alone["response_format"] == {"type": "json_object", "json_schema": PERSON}
    assert "response_format" not in beside
    assert [tool["function"]["name"] for tool in beside["tools"]] == ["weather", "answer"]
    assert beside["tool_choice"] == "REQUIRED"


async def test_what_is_billed_is_what_is_told(cohere: Subject) -> None:
    told = await completion(replace(cohere, model="caches"), ask())
    assert told.usage == Usage(prompt_tokens=7, completion_tokens=1, cached_tokens=4)


async def test_log_probabilities_are_refused_by_name(
    cohere: Subject, server: ScriptedServer
) -> None:
    refusal = await refused(cohere, ask(sampling=Sampling(top_logprobs=1)))
    assert (refusal.reason, refusal.field) == (Reason.REQUEST_INVALID, "sampling.top_logprobs")
    assert server.seen == []


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("forbids by its own status", Reason.PROVIDER_FAILED),
        ("gives up", Reason.PROVIDER_TIMEOUT),
    ],
)
async def test_cohere_has_reasons_of_its_own(cohere: Subject, script: str, reason: Reason) -> None:
    assert (await refused(replace(cohere, model=script), ask())).reason is reason


async def test_each_text_has_a_vector(cohere: Subject, server: ScriptedServer) -> None:
    told = await completion(replace(cohere, model="embeddings"), EMBEDDING)
    assert told.vectors == ((1.0, 0.5), (4.0, 0.5), (2.0, 0.5))
    assert told.usage == Usage(prompt_tokens=5)
    assert server.paths == ["/v2/embed"]
    [(_, body)] = server.seen
    assert body == {
        "model": "embeddings",
        "texts": ["a", "four", "北京"],
        "input_type": "search_document",
        "embedding_types": ["float"],
    }


async def test_what_texts_are_embedded_for_is_the_connections(server: ScriptedServer) -> None:
    async with reached("cohere", server, "embeddings", input_type="clustering") as subject:
        await completion(subject, EMBEDDING)
    assert server.seen[0][1]["input_type"] == "clustering"


async def test_scores_stand_in_the_order_of_the_documents(
    cohere: Subject, server: ScriptedServer
) -> None:
    told = await completion(replace(cohere, model="reranks"), RANKING)
    assert told.scores == (0.0, 1.0, 0.0)
    assert server.paths == ["/v2/rerank"]
    [(_, body)] = server.seen
    assert body == {"model": "reranks", "query": "our", "documents": ["a", "four", "北京"]}


@pytest.mark.parametrize(
    ("script", "asked"), [("embeds too little", EMBEDDING), ("ranks too little", RANKING)]
)
async def test_too_few_figures_are_none(
    cohere: Subject, script: str, asked: InferenceRequested
) -> None:
    refusal = await refused(replace(cohere, model=script), asked)
    assert refusal.reason is Reason.PROVIDER_FAILED


@pytest.mark.parametrize("task", [Task.EMBEDDING, Task.RERANK])
async def test_figures_are_refused_as_completions_are(cohere: Subject, task: Task) -> None:
    request = replace(RANKING, task=task)
    refusal = await refused(replace(cohere, model="limits by seconds"), request)
    assert (refusal.reason, refusal.retry_after_ms) == (Reason.RATE_LIMITED, 7_000)
