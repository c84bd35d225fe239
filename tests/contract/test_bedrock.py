"""What Bedrock is asked, how calls are signed, and how what it answers is understood."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from schemas.events import Reason, Sampling, Task, Usage
from tests.contract.asking import PERSON, WEATHER, Subject, ask, completion, hear, refused
from tests.contract.conftest import at_once, on_the_session_loop
from tests.contract.connections import connected
from tests.contract.scripted_server import ScriptedServer
from tests.contract.vendors import conversation, reached, served

pytestmark = pytest.mark.asyncio(loop_scope="session")

EMBEDDING = replace(ask(), task=Task.EMBEDDING, messages=(), inputs=("a", "four"))


@on_the_session_loop
async def server() -> AsyncIterator[ScriptedServer]:
    async with served("bedrock") as running:
        yield running


@on_the_session_loop
async def bedrock(server: ScriptedServer) -> AsyncIterator[Subject]:
    async with reached("bedrock", server) as subject:
        yield subject


async def test_a_conversation_goes_out_whole(bedrock: Subject, server: ScriptedServer) -> None:
    await hear(bedrock, conversation())
    [(_, body)] = server.seen
    assert server.paths == ["/model/arrives%20slowly/converse-stream"]
    arguments = {"city": "Paris", "unit": "celsius"}
    assert body == {
        "system": [{"text": "Be brief.\n\nBe brief still."}],
        "messages": [
            {"role": "user", "content": [{"text": "Hello."}, {"text": "How is Paris?"}]},
            {
                "role": "assistant",
                "content": [
                    {"text": "Let me look."},
                    {"toolUse": {"toolUseId": "call_1", "name": "weather", "input": arguments}},
                    {"toolUse": {"toolUseId": "call_2", "name": "now", "input": {}}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"toolResult": {"toolUseId": "call_2", "content": [{"text": "noon"}]}},
                    {"toolResult": {"toolUseId": "call_1", "content": [{"text": "21 degrees"}]}},
                    {"text": "And?"},
                ],
            },
        ],
        "toolConfig": {
            "tools": [
                {
                    "toolSpec": {
                        "name": "weather",
                        "description": WEATHER.description,
                        "inputSchema": {"json": json.loads(WEATHER.parameters)},
                    }
                }
            ],
            "toolChoice": {"tool": {"name": "weather"}},
        },
        "inferenceConfig": {
            "temperature": 0.5,
            "topP": 0.9,
            "maxTokens": 100,
            "stopSequences": ["END"],
        },
    }


@pytest.mark.parametrize(
    ("choice", "written"), [("auto", {"auto": {}}), ("required", {"any": {}}), ("none", None)]
)
async def test_how_tools_are_chosen_goes_out(
    bedrock: Subject, server: ScriptedServer, choice: str, written: object
) -> None:
    await hear(bedrock, ask(tools=(WEATHER,), tool_choice=choice))
    [(_, body)] = server.seen
    assert body.get("toolConfig", {}).get("toolChoice") == written


async def test_it_cannot_be_kept_from_tools_that_it_has_called(bedrock: Subject) -> None:
    refusal = await refused(bedrock, conversation(tool_choice="none"))
    assert (refusal.reason, refusal.field) == (Reason.REQUEST_INVALID, "tool_choice")


async def test_a_schema_goes_out_as_such(bedrock: Subject, server: ScriptedServer) -> None:
    await refused(bedrock, ask("Name a person.", json_schema=json.dumps(PERSON)))
    [(_, body)] = server.seen
    form = body["outputConfig"]["textFormat"]
    assert form["type"] == "json_schema"
    assert json.loads(form["structure"]["jsonSchema"]["schema"]) == PERSON


@pytest.mark.parametrize(
    ("sampling", "field"),
    [
        (Sampling(frequency_penalty=1), "sampling.frequency_penalty"),
        (Sampling(presence_penalty=1), "sampling.presence_penalty"),
        (Sampling(seed=1), "sampling.seed"),
        (Sampling(top_k=7), "sampling.top_k"),
        (Sampling(top_logprobs=1), "sampling.top_logprobs"),
    ],
)
async def test_what_it_does_not_know_is_refused_by_name(
    bedrock: Subject, sampling: Sampling, field: str
) -> None:
    refusal = await refused(bedrock, ask(sampling=sampling))
    assert (refusal.reason, refusal.field) == (Reason.REQUEST_INVALID, field)


@pytest.mark.parametrize("token", ["", "session/token=="])
async def test_calls_are_signed_for_their_region(
    server: ScriptedServer, tmp_path: Path, token: str
) -> None:
    model = "arn:aws:bedrock:eu-central-1:1:inference-profile/arrives slowly"
    (tmp_path / "key").write_text(f"sk+hidden/key\n{token}\n")
    options = {"region": "eu-central-1"}
    async with connected(
        model,
        server.idle,
        "bedrock",
        server.url,
        user="AKIDEXAMPLE",
        secret=f"file:{tmp_path / 'key'}",
        options=options,
    ) as subject:
        await hear(subject, ask())
    [(headers, body)] = server.seen
    assert headers.get("X-Amz-Security-Token", "") == token
    assert "hidden" not in str(headers)
    profile = "arn%3Aaws%3Abedrock%3Aeu-central-1%3A1%3Ainference-profile%2Farrives%20slowly"
    [path] = server.paths
    assert path == f"/model/{profile}/converse-stream"
    # The server's own view: the same request, signed with the same key at the same second.
    again = AWSRequest(
        "POST",
        f"http://{headers['Host']}{path}",
        {"Content-Type": "application/json", "X-Amz-Date": headers["X-Amz-Date"]},
        json.dumps(body).encode(),
    )
    if token:
        again.headers["X-Amz-Security-Token"] = token
    again.context["timestamp"] = headers["X-Amz-Date"]
    signer = SigV4Auth(
        Credentials("AKIDEXAMPLE", "sk+hidden/key", token), "bedrock", "eu-central-1"
    )
    signature = signer.signature(
        signer.string_to_sign(again, signer.canonical_request(again)), again
    )
    assert re.findall("Signature=(.*)", headers["Authorization"]) == [signature]


async def test_without_a_user_the_secret_is_a_bearers(
    server: ScriptedServer, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("bedrock-api-key")
    spec = {"secret": f"file:{tmp_path / 'key'}", "options": {"region": "eu-central-1"}}
    async with connected("arrives slowly", at_once, "bedrock", server.url, **spec) as subject:
        await hear(subject, ask())
    [(headers, _)] = server.seen
    assert headers["Authorization"] == "Bearer bedrock-api-key"
    assert "X-Amz-Date" not in headers


async def test_a_connection_without_a_region_is_none(server: ScriptedServer) -> None:
    async with connected("arrives slowly", at_once, "bedrock", server.url) as subject:
        assert "region" in (await refused(subject, ask())).message


async def test_tokens_of_the_cache_are_tokens_of_the_prompt(bedrock: Subject) -> None:
    told = await completion(replace(bedrock, model="caches"), ask())
    assert told.usage == Usage(
        prompt_tokens=31_406,
        completion_tokens=102,
        cached_tokens=30_940,
        cache_write_tokens=460,
    )


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("gives up", Reason.PROVIDER_FAILED),
        ("is unheard of", Reason.PROVIDER_FAILED),
        ("limits by its name", Reason.RATE_LIMITED),
        ("limits midway", Reason.RATE_LIMITED),
    ],
)
async def test_bedrock_has_reasons_of_its_own(
    bedrock: Subject, script: str, reason: Reason
) -> None:
    assert (await refused(replace(bedrock, model=script), ask())).reason is reason


async def test_amazons_models_embed_one_text_a_call(
    bedrock: Subject, server: ScriptedServer
) -> None:
    told = await completion(replace(bedrock, model="amazon.titan-embed-text-v2:0"), EMBEDDING)
    assert told.vectors == ((1.0, 0.5), (4.0, 0.5))
    assert told.usage == Usage(prompt_tokens=4)
    assert [body for _, body in server.seen] == [{"inputText": "a"}, {"inputText": "four"}]
    assert set(server.paths) == {"/model/amazon.titan-embed-text-v2%3A0/invoke"}


async def test_coheres_models_embed_all_texts_in_one_call(
    bedrock: Subject, server: ScriptedServer
) -> None:
    told = await completion(replace(bedrock, model="cohere.embed-v4:0"), EMBEDDING)
    assert told.vectors == ((1.0, 0.5), (4.0, 0.5))
    assert told.usage == Usage(prompt_tokens=2, estimated=True)
    [(_, body)] = server.seen
    assert body == {"texts": ["a", "four"], "input_type": "search_document"}
