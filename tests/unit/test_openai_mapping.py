"""schemas/openai.py: the OpenAI chat form and back."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.events import (
    Alternative,
    Completion,
    FinishReason,
    InferenceRequested,
    Message,
    Role,
    Sampling,
    TokenLogprob,
    Tool,
    ToolCall,
    Usage,
)
from schemas.openai import (
    FormInvalid,
    completion_to_openai,
    messages_from_openai,
    request_to_openai,
)

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
TEXT = st.text(max_size=20)
COUNT = st.integers(min_value=0, max_value=2**31)
NUMBER = st.floats(min_value=-100, max_value=100)
CALL = st.builds(ToolCall, id=TEXT, name=TEXT, arguments=TEXT)
CALLS = st.lists(CALL, max_size=2).map(tuple)
MESSAGE = st.builds(
    Message,
    role=st.sampled_from([role for role in Role if role is not Role.UNKNOWN]),
    content=TEXT,
    name=st.none() | TEXT,
    tool_calls=CALLS,
    tool_call_id=st.none() | TEXT,
)
SAMPLING = st.builds(
    Sampling,
    temperature=st.none() | NUMBER,
    top_p=st.none() | NUMBER,
    top_k=st.none() | COUNT,
    max_tokens=st.none() | COUNT,
    stop=st.lists(TEXT, max_size=2).map(tuple),
    seed=st.none() | COUNT,
    top_logprobs=st.none() | COUNT,
)
TOOL = st.builds(Tool, name=TEXT, description=TEXT, parameters=TEXT | st.just('{"type": "object"}'))
REQUEST = st.builds(
    InferenceRequested,
    request_id=TEXT,
    tenant=TEXT,
    endpoint=TEXT,
    messages=st.lists(MESSAGE | st.just(Message(role=Role.UNKNOWN)), max_size=3).map(tuple),
    sampling=SAMPLING,
    json_schema=st.none() | TEXT | st.just('{"type": "object"}'),
    tools=st.lists(TOOL, max_size=2).map(tuple),
    tool_choice=st.sampled_from(["auto", "none", "required", "weather"]),
    stream=st.booleans(),
    reply_to=TEXT,
    requested_at=st.just(NOON),
    deadline=st.just(NOON + timedelta(minutes=1)),
)
ALTERNATIVE = st.builds(Alternative, token=TEXT, logprob=NUMBER)
LOGPROB = st.builds(
    TokenLogprob, token=TEXT, logprob=NUMBER, top=st.lists(ALTERNATIVE, max_size=2).map(tuple)
)
COMPLETION = st.builds(
    Completion,
    model=TEXT,
    content=TEXT,
    tool_calls=CALLS,
    finish_reason=st.sampled_from(FinishReason),
    usage=st.builds(
        Usage,
        prompt_tokens=COUNT,
        completion_tokens=COUNT,
        cached_tokens=COUNT,
        reasoning_tokens=COUNT,
    ),
    logprobs=st.lists(LOGPROB, max_size=2).map(tuple),
)


def ask(**changes: object) -> InferenceRequested:
    fields: dict[str, object] = {
        "request_id": "request",
        "tenant": "acme",
        "endpoint": "main.default.smollm2",
        "messages": (Message(role=Role.USER, content="hello"),),
        "sampling": Sampling(),
        "reply_to": "reply",
        "requested_at": NOON,
        "deadline": NOON,
        **changes,
    }
    return InferenceRequested(**fields)  # type: ignore[arg-type]


@given(st.lists(MESSAGE, max_size=4).map(tuple))
def test_a_conversation_comes_back_as_it_went(messages: tuple[Message, ...]) -> None:
    form = request_to_openai(ask(messages=messages), "model")["messages"]
    assert messages_from_openai(json.loads(json.dumps(form))) == messages


@given(REQUEST)
def test_every_request_has_a_json_form(request: InferenceRequested) -> None:
    body = json.loads(json.dumps(request_to_openai(request, "model"), allow_nan=False))
    assert body["model"] == "model"
    assert len(body["messages"]) == len(request.messages)
    assert ("tools" in body) == bool(request.tools)


@given(COMPLETION, TEXT)
def test_every_completion_has_a_json_form(completion: Completion, request_id: str) -> None:
    form = json.loads(json.dumps(completion_to_openai(completion, request_id), allow_nan=False))
    [choice] = form["choices"]
    assert form["id"] == request_id
    assert choice["message"]["content"] == completion.content
    assert choice["finish_reason"] == completion.finish_reason.lower()
    assert messages_from_openai([choice["message"]]) == (
        Message(role=Role.ASSISTANT, content=completion.content, tool_calls=completion.tool_calls),
    )


def test_what_the_request_leaves_open_is_left_out() -> None:
    assert request_to_openai(ask(), "model") == {
        "model": "model",
        "messages": [{"role": "user", "content": "hello"}],
        "stream": False,
    }


def test_asking_for_no_alternatives_still_asks_for_log_probabilities() -> None:
    body = request_to_openai(ask(sampling=Sampling(top_logprobs=0)), "model")
    assert body["logprobs"] is True
    assert body["top_logprobs"] == 0


def test_a_schema_goes_in_as_an_object() -> None:
    body = request_to_openai(ask(json_schema='{"type": "object"}'), "model")
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "completion", "schema": {"type": "object"}, "strict": True},
    }


def test_one_tool_can_be_chosen_by_name() -> None:
    tool = Tool(name="weather", parameters="{}")
    body = request_to_openai(ask(tools=(tool,), tool_choice="weather"), "model")
    assert body["tool_choice"] == {"type": "function", "function": {"name": "weather"}}


def test_a_schema_nested_too_deep_to_read_goes_in_as_text() -> None:
    deep = "[" * 100_000
    body = request_to_openai(ask(json_schema=deep), "model")
    assert body["response_format"]["json_schema"]["schema"] == deep  # type: ignore[index]


def test_text_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "good "}, {"type": "text", "text": "morning"}]
    [message] = messages_from_openai([{"role": "developer", "content": parts}])
    assert message == Message(role=Role.SYSTEM, content="good morning")


@pytest.mark.parametrize(
    ("message", "place"),
    [
        ({"role": "wizard"}, r"messages\[0\]\.role"),
        ({"role": 7}, r"messages\[0\]\.role"),
        ({"role": "user", "content": 7}, r"messages\[0\]\.content"),
        ({"role": "user", "content": ["secret"]}, r"messages\[0\]\.content\[0\]"),
        ({"role": "user", "content": [{"type": "image_url"}]}, r"content\[0\]\.type"),
        ({"role": "assistant", "tool_calls": {}}, r"messages\[0\]\.tool_calls"),
        ({"role": "assistant", "tool_calls": [{}]}, r"tool_calls\[0\]\.function"),
    ],
)
def test_what_is_not_in_the_form_is_refused_by_place(
    message: dict[str, object], place: str
) -> None:
    with pytest.raises(FormInvalid, match=place) as caught:
        messages_from_openai([message])
    assert "secret" not in str(caught.value)
