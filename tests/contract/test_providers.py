"""One suite for every provider; the part that needs a model runs where there is one."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from dataclasses import replace
from typing import cast

import jsonschema
import pytest

from schemas.events import (
    FinishReason,
    Message,
    Reason,
    Role,
    Sampling,
    ToolCall,
    ToolCallDelta,
)
from tests.contract.asking import (
    PERSON,
    WEATHER,
    Heard,
    Subject,
    ask,
    completion,
    hear,
    refused,
    stream,
)
from workers.providers import PROVIDERS

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(1200)]

# Fixtures, by the provider that they hold against the contract. What only embeds answers to
# test_embedding.py, what answers for indexes to tests/index, and what calls functions to
# tests/broker/test_tools.py.
SUBJECTS = {
    "echo": ["echo"],
    "embedding": [],
    "outside": ["outside", "outside_before_vllm"],
    "search": [],
    "tools": [],
    "vllm": ["vllm_in_process"],
}
WITH_MODEL = ["outside_before_vllm", "vllm_in_process"]
LONG = " ".join(f"Tell me a long story about the number {number}." for number in range(60))
# To be heard out, it takes an engine most of a minute.
ENDLESS = Sampling(temperature=0, max_tokens=800)
STORY = "Tell me a long story about each of the numbers from one to a hundred."


def _parameter(name: str) -> object:
    return pytest.param(name, marks=[pytest.mark.model] if name in WITH_MODEL else [])


every_provider = pytest.mark.parametrize(
    "name", [_parameter(name) for names in SUBJECTS.values() for name in names]
)
every_model = pytest.mark.parametrize("name", [_parameter(name) for name in WITH_MODEL])


@pytest.fixture
def subject(name: str, request: pytest.FixtureRequest) -> Subject:
    return cast(Subject, request.getfixturevalue(name))


async def test_every_provider_of_the_table_is_held_against_the_contract() -> None:
    assert sorted(SUBJECTS) == sorted(PROVIDERS)


@every_provider
async def test_the_deltas_are_the_completion(subject: Subject) -> None:
    heard = await hear(subject, ask())
    assert len(heard.deltas) > 1
    assert heard.text == heard.completions[0].content != ""


@every_provider
async def test_tokens_are_counted(subject: Subject) -> None:
    usage = (await completion(subject, ask())).usage
    assert usage.prompt_tokens > 0
    assert usage.completion_tokens > 0


@every_provider
async def test_max_tokens_cuts_and_says_so(subject: Subject) -> None:
    cut = await completion(subject, ask(LONG, sampling=Sampling(temperature=0, max_tokens=3)))
    assert cut.finish_reason is FinishReason.LENGTH
    assert cut.usage.completion_tokens == 3


@every_provider
async def test_a_closed_stream_frees_what_it_held(subject: Subject) -> None:
    request = ask(STORY, sampling=ENDLESS)
    async with aclosing(stream(subject, request)) as events:
        await anext(events)
    async with asyncio.timeout(30):
        await subject.idle()


@every_provider
async def test_a_cancelled_task_frees_what_it_held(subject: Subject) -> None:
    request = ask(STORY, sampling=ENDLESS)
    begun = asyncio.Event()

    async def consume() -> None:
        async for _ in stream(subject, request):
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(consume())
    await begun.wait()
    task.cancel()
    async with asyncio.timeout(30):
        await asyncio.wait([task])
        await subject.idle()
    assert task.cancelled()


@every_provider
async def test_sixty_four_streams_at_once_each_stay_whole_and_in_order(subject: Subject) -> None:
    asked = [
        ask(f"Write about the number {number}.", sampling=Sampling(temperature=0, max_tokens=6))
        for number in range(64)
    ]
    answers = await asyncio.gather(*(hear(subject, request) for request in asked))
    assert all(answer.text == answer.completions[0].content for answer in answers)
    assert all(answer.completions[0].usage.completion_tokens <= 6 for answer in answers)


@every_model
async def test_a_stop_text_ends_the_completion_and_is_no_part_of_it(subject: Subject) -> None:
    whole = (await completion(subject, ask())).content
    stop = whole[len(whole) // 2 :][:4]
    sampling = Sampling(temperature=0, max_tokens=12, stop=(stop,))
    stopped = await hear(subject, ask(sampling=sampling))
    assert stopped.text == whole[: whole.index(stop)]
    assert stopped.completions[0].finish_reason is FinishReason.STOP


@every_model
async def test_a_seed_repeats_the_draw(subject: Subject) -> None:
    def draw(seed: int) -> Sampling:
        return Sampling(temperature=1.5, max_tokens=12, seed=seed)

    first, again, other = [
        (await completion(subject, ask(sampling=draw(seed)))).content for seed in (7, 7, 8)
    ]
    assert first == again != other


@every_model
async def test_log_probabilities_come_one_a_token(subject: Subject) -> None:
    sampling = Sampling(temperature=0, max_tokens=4, top_logprobs=2)
    told = await completion(subject, ask(sampling=sampling))
    assert len(told.logprobs) == told.usage.completion_tokens == 4
    assert "".join(entry.token for entry in told.logprobs) == told.content
    for entry in told.logprobs:
        assert entry.logprob <= 0
        assert len(entry.top) >= 2
        assert entry.top[0].logprob == max(other.logprob for other in entry.top)


@every_model
async def test_a_repeated_prompt_is_served_from_the_cache(subject: Subject) -> None:
    sampling = Sampling(temperature=0, max_tokens=1)
    await completion(subject, ask(LONG, sampling=sampling))
    usage = (await completion(subject, ask(LONG, sampling=sampling))).usage
    assert 0 < usage.cached_tokens <= usage.prompt_tokens


@every_model
async def test_a_json_schema_is_satisfied(subject: Subject) -> None:
    request = ask("Name a person.", json_schema=json.dumps(PERSON), sampling=Sampling(seed=1))
    told = await completion(subject, request)
    assert told.finish_reason is FinishReason.STOP
    jsonschema.validate(json.loads(told.content), PERSON)


@every_model
@pytest.mark.parametrize("tool_choice", ["required", "weather"])
async def test_a_tool_is_called_with_arguments_that_fit(subject: Subject, tool_choice: str) -> None:
    request = ask(
        "What is the weather in Paris?",
        tools=(WEATHER,),
        tool_choice=tool_choice,
        sampling=Sampling(temperature=0, max_tokens=100),
    )
    heard = await hear(subject, request)
    [call] = heard.completions[0].tool_calls
    assert call.id
    assert call.name == "weather"
    jsonschema.validate(json.loads(call.arguments), json.loads(WEATHER.parameters))
    assert _calls(heard) == {0: call}


@pytest.mark.model
@pytest.mark.parametrize(
    ("said", "calls"), [("What is the weather in Paris? Call weather.", 1), ("Name a person.", 0)]
)
async def test_beside_a_schema_a_model_in_process_calls_a_tool_or_answers_by_it(
    vllm_in_process: Subject, said: str, calls: int
) -> None:
    request = ask(
        said,
        tools=(WEATHER,),
        json_schema=json.dumps(PERSON),
        sampling=Sampling(temperature=0, max_tokens=100),
    )
    told = await completion(vllm_in_process, request)
    assert len(told.tool_calls) == calls
    if not calls:
        jsonschema.validate(json.loads(told.content), PERSON)


@every_model
async def test_a_conversation_with_a_tool_answer_goes_on(subject: Subject) -> None:
    call = ToolCall(id="call-1", name="weather", arguments='{"city": "Paris", "unit": "celsius"}')
    request = ask("What is the weather in Paris?", tools=(WEATHER,))
    turns = (
        Message(role=Role.SYSTEM, content="Be brief."),
        *request.messages,
        Message(role=Role.ASSISTANT, tool_calls=(call,)),
        Message(role=Role.TOOL, content="21 degrees", tool_call_id="call-1"),
    )
    assert (await completion(subject, replace(request, messages=turns))).content


@every_model
async def test_a_prompt_over_the_context_is_refused_with_the_numbers(subject: Subject) -> None:
    refusal = await refused(subject, ask("word " * 1500))
    assert refusal.reason is Reason.CONTEXT_EXCEEDED
    assert refusal.field == "messages"
    assert "1024" in refusal.message
    assert "1025" in refusal.message


@every_model
@pytest.mark.parametrize(
    ("sampling", "field"),
    [
        (Sampling(temperature=9), "sampling.temperature"),
        (Sampling(top_p=7), "sampling.top_p"),
        (Sampling(top_k=-7), "sampling.top_k"),
        (Sampling(frequency_penalty=7), "sampling.frequency_penalty"),
        (Sampling(max_tokens=0), "sampling.max_tokens"),
        (Sampling(max_tokens=10_000), "sampling.max_tokens"),
        (Sampling(top_logprobs=1_000), "sampling.top_logprobs"),
        (Sampling(stop=("",)), "sampling.stop"),
    ],
)
async def test_a_bad_sampling_parameter_is_refused_by_name(
    subject: Subject, sampling: Sampling, field: str
) -> None:
    refusal = await refused(subject, ask(sampling=sampling))
    assert refusal.reason is Reason.REQUEST_INVALID
    assert refusal.field == field, refusal.message


@every_model
@pytest.mark.parametrize("schema", ["{", "[]", '{"type": 7}', '{"$ref": "#/nowhere"}'])
async def test_a_bad_json_schema_is_refused(subject: Subject, schema: str) -> None:
    refusal = await refused(subject, ask(json_schema=schema))
    assert refusal.reason is Reason.REQUEST_INVALID
    assert refusal.field == "json_schema"


@every_model
async def test_a_bad_tool_schema_is_refused(subject: Subject) -> None:
    tool = replace(WEATHER, parameters='{"type": 7}')
    refusal = await refused(subject, ask(tools=(tool,)))
    assert refusal.reason is Reason.REQUEST_INVALID
    assert refusal.field == "tools"


@every_model
async def test_an_unknown_tool_choice_is_refused(subject: Subject) -> None:
    refusal = await refused(subject, ask(tools=(WEATHER,), tool_choice="calendar"))
    assert refusal.reason is Reason.REQUEST_INVALID
    assert refusal.field == "tool_choice"


@every_model
async def test_an_unknown_model_is_refused(subject: Subject) -> None:
    refusal = await refused(replace(subject, model="no-such-model"), ask())
    assert refusal.reason is Reason.PROVIDER_FAILED


def _calls(heard: Heard) -> dict[int, ToolCall]:
    calls: dict[int, ToolCall] = {}
    for piece in (piece for delta in heard.deltas for piece in delta.tool_calls):
        calls[piece.index] = _joined(calls.get(piece.index), piece)
    return calls


def _joined(call: ToolCall | None, piece: ToolCallDelta) -> ToolCall:
    if call is None:
        return ToolCall(id=piece.id, name=piece.name, arguments=piece.arguments)
    assert not piece.id
    assert not piece.name
    return replace(call, arguments=call.arguments + piece.arguments)
