"""One suite for the dialects of vendors that are no relatives of OpenAI's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from schemas.events import (
    FinishReason,
    Message,
    Reason,
    Role,
    Sampling,
    Task,
    ToolCall,
    ToolCallDelta,
)
from tests.contract.asking import (
    PERSON,
    WEATHER,
    Subject,
    ask,
    completion,
    hear,
    refused,
    refused_by,
    stream,
)
from tests.contract.conftest import at_once, on_the_session_loop
from tests.contract.connections import connected
from tests.contract.scripted_server import ScriptedServer
from tests.contract.vendor_ways import WEATHER_CALL
from tests.contract.vendors import KEY, VENDORS, reached, served

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.parametrize("name", sorted(VENDORS)),
]

RAINY = "北京今天多云🙂 " * 20
NOW = replace(WEATHER, name="now", parameters='{"type": "object", "properties": {}}')
MANY = Sampling(max_tokens=1_000)


@on_the_session_loop
async def server(name: str) -> AsyncIterator[ScriptedServer]:
    async with served(name) as running:
        yield running


@on_the_session_loop
async def subject(name: str, server: ScriptedServer) -> AsyncIterator[Subject]:
    async with reached(name, server) as provider:
        yield provider


async def test_the_deltas_are_the_completion(subject: Subject) -> None:
    heard = await hear(subject, ask())
    assert len(heard.deltas) > 1
    [told] = heard.completions
    assert heard.text == told.content == "Tell me about the sea."
    assert told.finish_reason is FinishReason.STOP
    assert (told.usage.prompt_tokens, told.usage.completion_tokens) == (7, 5)


async def test_max_tokens_cuts_and_says_so(subject: Subject) -> None:
    cut = await completion(subject, ask(sampling=Sampling(max_tokens=3)))
    assert (cut.content, cut.finish_reason) == ("Tell me about", FinishReason.LENGTH)


@pytest.mark.parametrize("way", ["arrives byte by byte", "arrives packed", "arrives slowly"])
async def test_text_arrives_whole_however_it_is_cut_on_the_way(subject: Subject, way: str) -> None:
    heard = await hear(replace(subject, model=way), ask(RAINY, sampling=MANY))
    assert heard.text == heard.completions[0].content == RAINY
    assert len(heard.deltas) >= 20


async def test_a_piece_that_cannot_be_read_is_skipped_and_counted_or_fails_the_answer(
    name: str, subject: Subject
) -> None:
    damaged, request = replace(subject, model="has a bad line"), ask(RAINY, sampling=MANY)
    if name in SKIPPING:
        with capture_logs() as logs:
            assert (await completion(damaged, request)).content == RAINY
        assert [log["lines"] for log in logs if log["event"] == "stream lines skipped"] == [1]
    else:
        assert (await refused(damaged, request)).reason is Reason.PROVIDER_FAILED


@pytest.mark.parametrize("way", ["is cut", "breaks off"])
async def test_half_an_answer_is_never_a_completion(subject: Subject, way: str) -> None:
    refusal = await refused(replace(subject, model=way), ask(RAINY, sampling=MANY))
    assert refusal.reason is Reason.STREAM_CUT


@pytest.mark.parametrize(
    ("script", "reason", "field"),
    [
        ("bad parameter", Reason.REQUEST_INVALID, "sampling.temperature"),
        ("echoes the prompt", Reason.REQUEST_INVALID, "sampling.temperature"),
        ("fails", Reason.PROVIDER_UNAVAILABLE, None),
        ("forbids", Reason.PROVIDER_FAILED, None),
        ("is a page", Reason.PROVIDER_FAILED, None),
        ("is overloaded", Reason.PROVIDER_UNAVAILABLE, None),
        ("limits by seconds", Reason.RATE_LIMITED, None),
        ("overflows", Reason.CONTEXT_EXCEEDED, "messages"),
        ("redirects", Reason.PROVIDER_FAILED, None),
        ("says another form", Reason.PROVIDER_FAILED, None),
        ("says nothing", Reason.PROVIDER_FAILED, None),
        ("unknown", Reason.PROVIDER_FAILED, None),
    ],
)
async def test_each_misbehaviour_is_one_kind_of_refusal(
    subject: Subject, script: str, reason: Reason, field: str | None
) -> None:
    refusal = await refused_by(subject, script)
    assert (refusal.reason, refusal.field) == (reason, field), refusal.message


async def test_an_answer_that_fails_midway_is_none(subject: Subject) -> None:
    found = (await refused_by(subject, "fails midway")).reason
    assert found in {Reason.PROVIDER_FAILED, Reason.PROVIDER_UNAVAILABLE}


async def test_a_complaint_about_a_parameter_is_passed_on(subject: Subject) -> None:
    assert "at most 1" in (await refused_by(subject, "bad parameter")).message


async def test_a_complaint_with_half_a_character_can_be_told(subject: Subject) -> None:
    refusal = await refused_by(subject, "halves a character")
    assert refusal.message.encode().decode().endswith("temperature: \ufffd")


async def test_retry_after_is_understood_in_seconds_and_as_a_date(subject: Subject) -> None:
    assert (await refused_by(subject, "limits by seconds")).retry_after_ms == 7_000
    far = (await refused_by(subject, "limits by date")).retry_after_ms
    assert far is not None
    assert far > 7_000


async def test_nothing_is_tried_twice(subject: Subject, server: ScriptedServer) -> None:
    scripts = ("breaks off", "fails", "fails midway", "is overloaded", "limits by seconds")
    for script in (*scripts, "redirects", "is cut"):
        await refused_by(subject, script)
    assert len(server.seen) == 7


@pytest.mark.parametrize("way", ["falls silent", "hangs"])
async def test_silence_times_out_and_frees_what_it_held(
    name: str, server: ScriptedServer, way: str
) -> None:
    async with reached(name, server, silence_s="0.3") as impatient:
        assert (await refused_by(impatient, way)).reason is Reason.PROVIDER_TIMEOUT
        async with asyncio.timeout(30):
            await server.idle()


async def test_an_endpoint_that_is_not_there_is_unavailable(name: str) -> None:
    vendor = VENDORS[name]
    where = "http://127.0.0.1:9"
    async with connected("any", at_once, vendor.type, where, **vendor.spec) as nowhere:
        assert (await refused(nowhere, ask())).reason is Reason.PROVIDER_UNAVAILABLE


async def test_a_private_address_is_not_called_unless_the_connection_allows_it(
    name: str, server: ScriptedServer
) -> None:
    spec = {**VENDORS[name].spec, "private": False}
    async with connected("any", at_once, VENDORS[name].type, server.url, **spec) as outside:
        assert (await refused(outside, ask())).reason is Reason.PROVIDER_FAILED
    assert server.seen == []


@pytest.mark.parametrize("way", ["arrives slowly", "falls silent"])
async def test_a_closed_stream_frees_what_it_held(subject: Subject, way: str) -> None:
    request = ask(RAINY, sampling=MANY)
    async with aclosing(stream(replace(subject, model=way), request)) as events:
        await anext(events)
    async with asyncio.timeout(30):
        await subject.idle()


async def test_a_cancelled_task_frees_what_it_held(subject: Subject) -> None:
    begun = asyncio.Event()
    silent = replace(subject, model="falls silent")

    async def consume() -> None:
        async for _ in stream(silent, ask(RAINY, sampling=MANY)):
            begun.set()

    task = asyncio.create_task(consume())
    await begun.wait()
    task.cancel()
    async with asyncio.timeout(30):
        await asyncio.wait([task])
        await subject.idle()
    assert task.cancelled()


async def test_sixty_four_streams_at_once_each_stay_whole_and_in_order(subject: Subject) -> None:
    asked = [f"Write about the number {number}." for number in range(64)]
    answers = await asyncio.gather(*(completion(subject, ask(text)) for text in asked))
    assert [answer.content for answer in answers] == asked


async def test_only_the_connections_key_goes_out_and_nothing_of_the_environment(
    name: str, server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vendor = VENDORS[name]
    for variable in ENVIRONMENT:
        monkeypatch.setenv(variable, "environment")
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", "x-custom: environment")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    (tmp_path / "key").write_text(KEY)
    spec = {**vendor.spec, "secret": f"file:{tmp_path / 'key'}"}
    server.headers["Set-Cookie"] = "session=environment"
    async with connected("arrives slowly", at_once, vendor.type, server.url, **spec) as subject:
        await hear(subject, ask())
        await hear(subject, ask())
    header, says = vendor.carries
    for headers, _ in server.seen:
        assert {key.lower(): value for key, value in headers.items()}[header].startswith(says)
        assert set(map(str.lower, headers)) <= KNOWN_HEADERS
        assert "environment" not in str(headers)


async def test_without_a_key_none_is_sent(
    name: str, subject: Subject, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await hear(subject, ask())
    [(headers, _)] = server.seen
    header, _ = VENDORS[name].carries
    assert not {key.lower(): value for key, value in headers.items()}.get(header)


async def test_a_key_that_no_header_carries_is_not_the_callers_fault_and_is_not_told(
    name: str, server: ScriptedServer, tmp_path: Path
) -> None:
    vendor = VENDORS[name]
    (tmp_path / "key").write_text("sk-北京 sk-\x01")
    spec = {**vendor.spec, "secret": f"file:{tmp_path / 'key'}"}
    async with connected("arrives slowly", at_once, vendor.type, server.url, **spec) as subject:
        refusal = await refused(subject, ask())
    assert refusal.reason is Reason.PROVIDER_FAILED
    assert "sk-" not in refusal.message
    assert server.seen == []


async def test_tools_are_called_side_by_side(subject: Subject) -> None:
    request = ask("What is the weather?", tools=(WEATHER, NOW))
    heard = await hear(replace(subject, model="calls tools"), request)
    [told] = heard.completions
    assert told.finish_reason is FinishReason.TOOL_CALLS
    weather, now = told.tool_calls
    assert weather.id != now.id
    assert (weather.name, json.loads(weather.arguments)) == ("weather", json.loads(WEATHER_CALL))
    assert (now.name, now.arguments) == ("now", "{}")
    assert _joined([piece for delta in heard.deltas for piece in delta.tool_calls]) == list(
        told.tool_calls
    )


async def test_an_answer_that_is_kept_back_says_so(subject: Subject) -> None:
    told = await completion(replace(subject, model="is filtered"), ask())
    assert told.finish_reason is FinishReason.CONTENT_FILTER


async def test_what_is_thought_is_not_said(subject: Subject) -> None:
    assert (await completion(replace(subject, model="thinks"), ask())).content == "yes"


async def test_prose_is_no_answer_to_a_schema(subject: Subject) -> None:
    request = ask("Name a person.", json_schema=json.dumps(PERSON))
    refusal = await refused(replace(subject, model="answers in prose"), request)
    assert refusal.reason is Reason.ANSWER_UNKEPT
    assert "Ada" not in refusal.message


async def test_a_model_without_schemas_answers_by_a_tool(name: str, server: ScriptedServer) -> None:
    async with reached(name, server, "answers by tool", json_schema="tool") as subject:
        heard = await hear(subject, ask("Name a person.", json_schema=json.dumps(PERSON)))
    [told] = heard.completions
    assert json.loads(told.content) == {"name": "Ada", "adult": True}
    assert (heard.text, told.tool_calls) == (told.content, ())
    assert told.finish_reason is FinishReason.STOP


@pytest.mark.parametrize("task", [Task.EMBEDDING, Task.RERANK])
async def test_what_a_vendor_does_not_do_is_refused_before_it_is_asked(
    name: str, subject: Subject, server: ScriptedServer, task: Task
) -> None:
    if f"{task.lower()}s" in VENDORS[name].scripts:
        return
    request = replace(ask(), task=task, inputs=("a",), query="q")
    refusal = await refused(subject, request)
    assert (refusal.reason, refusal.field) == (Reason.ROUTE_UNFIT, "task")
    assert server.seen == []


async def test_a_turn_that_is_no_turn_is_refused_by_name(subject: Subject) -> None:
    for turn in (
        Message(role=Role.TOOL, content="21 degrees"),
        Message(role=Role.ASSISTANT, tool_calls=(ToolCall(id="1", name="w", arguments="7"),)),
    ):
        request = replace(ask(), messages=(turn,))
        refusal = await refused(subject, request)
        assert (refusal.reason, refusal.field) == (Reason.REQUEST_INVALID, "messages")


async def test_an_unknown_option_is_named(name: str, server: ScriptedServer) -> None:
    async with reached(name, server, dtype="float32") as subject:
        assert "take no dtype" in (await refused(subject, ask())).message
    assert server.seen == []


SKIPPING = {"anthropic", "cohere"}
ENVIRONMENT = (
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "AWS_ACCESS_KEY_ID",
    "AWS_BEARER_TOKEN_BEDROCK",
    "AWS_SECRET_ACCESS_KEY",
    "CO_API_KEY",
    "GOOGLE_API_KEY",
)
KNOWN_HEADERS = {
    "accept",
    "accept-encoding",
    "anthropic-version",
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "host",
    "user-agent",
    "x-amz-date",
    "x-amz-security-token",
    "x-api-key",
    "x-goog-api-key",
}


def _joined(pieces: list[ToolCallDelta]) -> list[ToolCall]:
    calls: dict[int, ToolCall] = {}
    for piece in pieces:
        known = calls.get(piece.index, ToolCall(id="", name="", arguments=""))
        calls[piece.index] = ToolCall(
            id=known.id + piece.id,
            name=known.name + piece.name,
            arguments=known.arguments + piece.arguments,
        )
    return [call for _, call in sorted(calls.items())]
