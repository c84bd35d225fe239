"""workers/providers/chat.py and checks.py: the stream put together, complaints, schemas."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from schemas.openai import FormInvalid
from tests.contract.asking import PERSON, WEATHER, ask
from workers.providers import ProviderRefused
from workers.providers.chat import Complaint, Transcript, quotable, refusal
from workers.providers.checks import require_answerable, require_carriable, require_kept

# 2 ** 40 references.
BOMB = {
    "$ref": "#/$defs/0",
    "$defs": {str(level): {"allOf": [{"$ref": f"#/$defs/{level + 1}"}] * 2} for level in range(40)}
    | {"40": {"type": "string"}},
}

# The same, from a part on that names a dialect.
NAMED = {
    "allOf": [{"$schema": "https://json-schema.org/draft/2020-12/schema", "$ref": "#/$defs/0"}],
    "$defs": BOMB["$defs"],
}


def choice(delta: dict[str, object], finish_reason: str | None = None) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}


@given(st.lists(st.text(max_size=5), max_size=8))
def test_the_deltas_are_the_content(pieces: list[str]) -> None:
    transcript = Transcript("model")
    deltas = [transcript.take(choice({"content": piece})) for piece in pieces]
    transcript.take(choice({}, "stop"))
    said = "".join(delta.content for delta in deltas if delta)
    assert transcript.completion().content == said == "".join(pieces)


@given(st.recursive(st.none() | st.text() | st.floats() | st.booleans(), st.lists))
def test_whatever_a_server_sends_is_taken_or_refused_as_not_in_the_form(sent: object) -> None:
    for chunk in (sent, {"choices": sent}, {"choices": [{"delta": sent}]}, {"usage": sent}):
        with suppress(FormInvalid):
            Transcript("model").take(chunk)


def test_halves_of_characters_are_put_together_and_one_alone_is_replaced() -> None:
    transcript = Transcript("model")
    pieces = ["a\ud83d", "\ude00b", "\ude00c", "\ud83d", "d\ud83d"]
    deltas = [transcript.take(choice({"content": piece})) for piece in pieces]
    transcript.take(choice({}, "stop"))
    said = transcript.completion().content
    assert said == "a\U0001f600b\ufffdc\ufffdd"
    assert "".join(delta.content for delta in deltas if delta) == said


def test_pieces_of_a_call_are_joined_and_its_name_is_said_once() -> None:
    transcript = Transcript("model")
    for arguments in ('{"city":', '"Paris"}'):
        function = {"name": "weather", "arguments": arguments}
        transcript.take(choice({"tool_calls": [{"index": 0, "id": "7", "function": function}]}))
    transcript.take(choice({}, "tool_calls"))
    [call] = transcript.completion().tool_calls
    assert call == ToolCall(id="7", name="weather", arguments='{"city":"Paris"}')


def test_arguments_of_the_tool_that_answers_are_the_content_and_its_talk_is_not() -> None:
    transcript = Transcript("model", answer_tool=True)
    called = [(0, "answer", '{"n":'), (1, "weather", "{}"), (0, "", " 7}")]
    deltas = [transcript.take(choice({"content": "So I call"}))]
    for index, name, arguments in called:
        function = {"name": name, "arguments": arguments}
        piece = {"index": index, "id": f"id{index}", "function": function}
        deltas.append(transcript.take(choice({"tool_calls": [piece]})))
    transcript.take(choice({}, "tool_calls"))
    completion = transcript.completion()
    assert completion.content == '{"n": 7}'
    assert "".join(delta.content for delta in deltas if delta) == completion.content
    assert [call.name for call in completion.tool_calls] == ["weather"]
    assert completion.finish_reason is FinishReason.TOOL_CALLS


def test_an_answer_that_came_as_a_call_ends_as_an_answer() -> None:
    transcript = Transcript("model", answer_tool=True)
    function = {"name": "answer", "arguments": "{}"}
    transcript.take(choice({"tool_calls": [{"index": 0, "id": "7", "function": function}]}))
    transcript.take(choice({}, "tool_calls"))
    completion = transcript.completion()
    assert (completion.content, completion.tool_calls) == ("{}", ())
    assert completion.finish_reason is FinishReason.STOP


@pytest.mark.parametrize("reason", [None, "abort", "error"])
def test_a_stream_that_was_not_finished_gives_no_completion(reason: str | None) -> None:
    transcript = Transcript("model")
    transcript.take(choice({"content": "half a"}, reason))
    with pytest.raises(ProviderRefused, match=Reason.STREAM_CUT):
        transcript.completion()


@given(st.text(min_size=1, max_size=400), st.text(max_size=100), st.text(max_size=100))
def test_no_complaint_quotes_the_prompt(prompt: str, before: str, after: str) -> None:
    request = replace(ask(), messages=(Message(role=Role.USER, content=prompt),))
    said = quotable(f"{before}{prompt}{after}", request)
    shown = " ".join(prompt.split())
    assert len(said) <= 300
    assert len(shown) < 4 or shown[:16] not in said


def test_a_part_of_a_long_prompt_is_recognised_too() -> None:
    request = ask("My name is Ada Lovelace and my number is 555-1234, call me.")
    assert quotable("bad input near 'number is 555-1234'", request) == ""
    assert quotable("temperature is at most 2", request) == "temperature is at most 2"


def test_the_value_at_fault_is_cut_off() -> None:
    assert quotable("too hot (parameter=temperature, value=9)", ask()) == "too hot"


@pytest.mark.parametrize(
    ("complaint", "reason", "field"),
    [
        (Complaint(status=400, message="top_k must be"), Reason.REQUEST_INVALID, "sampling.top_k"),
        (Complaint(status=400, message="no idea"), Reason.REQUEST_INVALID, None),
        (Complaint(status=413), Reason.REQUEST_TOO_LARGE, "messages"),
        (Complaint(status=418), Reason.PROVIDER_FAILED, None),
        (Complaint(status=422, param="tools[0].function"), Reason.REQUEST_INVALID, "tools"),
        (Complaint(status=503), Reason.PROVIDER_UNAVAILABLE, None),
        (Complaint(status=504), Reason.PROVIDER_TIMEOUT, None),
    ],
)
def test_a_complaint_is_one_kind_of_refusal(
    complaint: Complaint, reason: Reason, field: str | None
) -> None:
    told = refusal(complaint, ask())
    assert (told.reason, told.field) == (reason, field)


def test_a_request_without_turns_is_refused() -> None:
    for messages in ((), (Message(role=Role.UNKNOWN, content="hello"),)):
        with pytest.raises(ProviderRefused) as caught:
            require_answerable(replace(ask(), messages=messages))
        assert caught.value.refusal.field == "messages"


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        ('{"name": "Ada", "adult": true}', True),
        ('{"name": "Ada"}', False),
        ('{"name": "Ada", "adult": "yes"}', False),
        ("Ada", False),
    ],
)
def test_a_completion_that_breaks_its_schema_is_refused(content: str, kept: bool) -> None:
    request = ask(json_schema=json.dumps(PERSON))
    completion = told(content=content)
    if kept:
        require_kept(completion, request)
    else:
        with pytest.raises(ProviderRefused, match=Reason.ANSWER_UNKEPT):
            require_kept(completion, request)
    require_kept(replace(completion, finish_reason=FinishReason.LENGTH), request)
    require_kept(replace(completion, finish_reason=FinishReason.CONTENT_FILTER), request)


def test_an_end_for_a_reason_that_is_not_known_excuses_nothing() -> None:
    request = ask(json_schema=json.dumps(PERSON))
    with pytest.raises(ProviderRefused, match=Reason.ANSWER_UNKEPT):
        require_kept(replace(told(content="Ada"), finish_reason=FinishReason.UNKNOWN), request)


def test_an_answer_that_breaks_its_schema_is_paid_for_all_the_same() -> None:
    usage = Usage(prompt_tokens=3, completion_tokens=2)
    with pytest.raises(ProviderRefused) as caught:
        require_kept(replace(told(content="Ada"), usage=usage), ask(json_schema="{}"))
    assert caught.value.usage == usage


@pytest.mark.parametrize("count", [-1, 1e300, "7"])
def test_no_provider_tells_of_tokens_that_cannot_be(count: object) -> None:
    with pytest.raises(FormInvalid, match="prompt_tokens"):
        Transcript("model").take({"usage": {"prompt_tokens": count}})


@pytest.mark.parametrize(
    ("task", "inputs", "query", "field"),
    [
        (Task.EMBEDDING, (), None, "inputs"),
        (Task.RERANK, (), "sea", "inputs"),
        (Task.RERANK, ("a",), None, "query"),
        (Task.UNKNOWN, ("a",), None, "task"),
    ],
)
def test_each_task_is_given_something_to_do_it_with(
    task: Task, inputs: tuple[str, ...], query: str | None, field: str
) -> None:
    request = replace(ask(), task=task, inputs=inputs, query=query)
    every = frozenset({Task.CHAT, Task.EMBEDDING, Task.RERANK})
    with pytest.raises(ProviderRefused) as caught:
        require_answerable(request, every)
    assert caught.value.refusal.field == field


def test_a_chat_model_embeds_nothing() -> None:
    with pytest.raises(ProviderRefused, match=Reason.ROUTE_UNFIT):
        require_answerable(replace(ask(), task=Task.EMBEDDING, inputs=("a",)))


def test_vectors_that_no_event_can_carry_are_refused() -> None:
    vectors = ((0.5,) * 1024,) * 2048
    require_carriable(replace(told(), vectors=vectors))
    with pytest.raises(ProviderRefused) as caught:
        require_carriable(replace(told(), vectors=(*vectors, (0.5,))))
    refusal = caught.value.refusal
    assert (refusal.reason, refusal.field) == (Reason.REQUEST_TOO_LARGE, "inputs")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("weather", '{"city": "Paris"}'), ("weather", "Paris"), ("calendar", "{}")],
)
def test_a_tool_call_that_breaks_its_schema_is_refused(name: str, arguments: str) -> None:
    call = ToolCall(id="1", name=name, arguments=arguments)
    with pytest.raises(ProviderRefused, match=Reason.ANSWER_UNKEPT):
        require_kept(told(tool_calls=(call,)), ask(tools=(WEATHER,)))


@pytest.mark.parametrize(
    "schema",
    [
        '{"$ref": "http://127.0.0.1:9/schema.json"}',
        '{"$ref": "#"}',
        '{"pattern": "^(a+)+$"}',
        '{"\\u0070attern": "^(a+)+$"}',
        json.dumps(BOMB),
        json.dumps(NAMED),
    ],
)
def test_a_schema_cannot_send_the_check_astray(schema: str) -> None:
    require_kept(told(content=json.dumps("a" * 40 + "!")), ask(json_schema=schema))


def test_a_schema_with_references_is_checked() -> None:
    schema = {
        "$defs": {"name": {"type": "string"}},
        "type": "array",
        "items": {"$ref": "#/$defs/name"},
    }
    request = ask(json_schema=json.dumps(schema))
    require_kept(told(content='["Ada"]'), request)
    with pytest.raises(ProviderRefused, match="breaks the schema"):
        require_kept(told(content="[7]"), request)


@pytest.mark.parametrize("where", ["inputs", "name", "query", "stop"])
def test_no_complaint_quotes_any_other_text(where: str) -> None:
    text = "write to ada@example.com about it"
    request = {
        "inputs": replace(ask(), inputs=(text,)),
        "name": replace(ask(), messages=(Message(role=Role.USER, content="x", name=text),)),
        "query": replace(ask(), query=text),
        "stop": replace(ask(), sampling=Sampling(stop=(text,))),
    }[where]
    assert quotable(f"maximum context length: '{text}'", request) == ""


def told(content: str = "", tool_calls: tuple[ToolCall, ...] = ()) -> Completion:
    return Completion(
        model="model",
        content=content,
        tool_calls=tool_calls,
        finish_reason=FinishReason.STOP,
        usage=Usage(),
    )


def test_an_answer_without_end_is_refused() -> None:
    transcript = Transcript("model")
    chunk = {"choices": [{"index": 0, "delta": {"content": "x" * 1_000_000}}]}
    transcript.take(chunk)
    transcript.take(chunk)
    with pytest.raises(ProviderRefused) as refused:
        transcript.take(chunk)
    assert refused.value.refusal.reason is Reason.PROVIDER_FAILED


@pytest.mark.parametrize(("last", "kept"), [('{"n": 3000}', True), ('{"n": 7.0}', False)])
def test_a_long_list_is_soon_known_to_hold_nothing_twice(last: str, kept: bool) -> None:
    items = [*(f'{{"n": {at}}}' for at in range(3_000)), "true", "1", last]
    request = ask(json_schema='{"uniqueItems": true}')
    began = time.process_time()
    if kept:
        require_kept(told(content=f"[{','.join(items)}]"), request)
    else:
        with pytest.raises(ProviderRefused, match="uniqueItems"):
            require_kept(told(content=f"[{','.join(items)}]"), request)
    assert time.process_time() - began < 2
