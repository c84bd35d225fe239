"""How many tokens a request is: estimated, and counted."""

from __future__ import annotations

from dataclasses import replace
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.tokens import A_MESSAGE, TOKENLESS, count, estimate, estimate_text, head, tail
from schemas.events import (
    InferenceRequested,
    Message,
    Role,
    Task,
    Tool,
    ToolCall,
)
from tests.unit.asking import ask
from tests.unit.events import events


def said(*texts: str) -> InferenceRequested:
    return replace(ask(), messages=tuple(Message(role=Role.USER, content=each) for each in texts))


def test_an_estimate_is_a_token_for_four_bytes_and_a_few_for_each_message() -> None:
    assert estimate(said("a" * 400)) == 100 + A_MESSAGE
    assert estimate(said("a" * 200, "b" * 200)) == 100 + 2 * A_MESSAGE
    assert estimate(said("a" * 401)) == 101 + A_MESSAGE
    assert estimate(said("🙂" * 100)) == 100 + A_MESSAGE
    assert estimate_text("") == 0


def test_nothing_asked_is_still_a_token() -> None:
    assert estimate(said()) == 1


def test_all_that_a_model_reads_counts() -> None:
    text = "x" * 4000
    bare = said("hello")
    call = ToolCall(id="1", name="f", arguments=text)
    read = [
        replace(bare, json_schema=text),
        replace(bare, tools=(Tool(name="f", parameters=text),)),
        replace(bare, tools=(Tool(name="f", description=text, parameters="{}"),)),
        replace(bare, messages=(Message(role=Role.ASSISTANT, tool_calls=(call,)),)),
        replace(bare, messages=(Message(role=Role.USER, name=text),)),
        replace(bare, task=Task.EMBEDDING, messages=(), inputs=(text,)),
        replace(bare, task=Task.RERANK, messages=(), inputs=("a",), query=text),
    ]
    assert all(1000 <= estimate(each) <= 1020 for each in read)


@given(events(InferenceRequested))
def test_every_request_has_an_estimate(request: InferenceRequested) -> None:
    least = max(1, A_MESSAGE * len(request.messages))
    assert estimate(request) >= (0 if request.task in TOKENLESS else least)


@pytest.mark.parametrize("task", sorted(TOKENLESS))
def test_of_what_agents_and_tools_are_asked_no_model_reads_anything_here(task: Task) -> None:
    assert estimate(replace(said("hello"), task=task, inputs=("{}",))) == 0


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("hello world", 2),
        ("The quick brown fox jumps over the lazy dog.", 10),
        ("<|endoftext|>", 7),
        ("北京今天多云", 4),
        ("\ud800", 1),
    ],
)
def test_tokens_are_counted_by_the_vocabulary(text: str, tokens: int) -> None:
    assert count(text) == tokens


@given(st.text())
def test_a_count_is_never_more_than_the_bytes(text: str) -> None:
    assert count(text) <= len(text.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize("text", ["a", " ", "🙂", "a b\n"])
def test_a_count_takes_time_in_proportion_whatever_the_text(text: str) -> None:
    count("warm")
    began = process_time()
    assert count(text * 1_000_000) > 0
    assert process_time() - began < 5


@given(st.text(max_size=60), st.integers(0, 30))
def test_the_first_and_last_tokens_are_whole_characters_and_no_more(text: str, tokens: int) -> None:
    for part in (text[: head(text, tokens)], text[len(text) - tail(text, tokens) :]):
        assert part == text or count(text) > tokens
    if count(text) <= tokens:
        assert head(text, tokens) == tail(text, tokens) == len(text)


def test_tokens_are_counted_from_either_end() -> None:
    assert head("Hello wide world", 2) == len("Hello wide")
    assert tail("Hello wide world", 2) == len(" wide world")
    # Its first token is not yet a whole character.
    assert [head("\N{WOMAN}\N{ZERO WIDTH JOINER}\N{GIRL}", tokens) for tokens in (1, 2)] == [0, 1]
    assert head("\ud800 x", 9) == len("\ud800 x")
