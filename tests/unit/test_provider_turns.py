"""Conversations become turns, and blocks an answer, without anything lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.events import (
    Completion,
    Delta,
    FinishReason,
    InferenceRequested,
    Message,
    Reason,
    Role,
    Sampling,
    ToolCall,
)
from tests.contract.asking import WEATHER, ask
from workers.providers import ProviderRefused
from workers.providers.turns import ANSWER, Spoken, require_drawable, system_text, turns

WORDS = st.text("ab \n🙂", min_size=1, max_size=5)
CALLS = st.builds(ToolCall, id=WORDS, name=WORDS, arguments=st.sampled_from(["", "{}", '{"a": 1}']))
MESSAGES = st.one_of(
    st.builds(Message, role=st.sampled_from([Role.SYSTEM, Role.USER]), content=WORDS),
    st.builds(Message, role=st.just(Role.TOOL), content=WORDS, tool_call_id=WORDS),
    st.builds(
        Message,
        role=st.just(Role.ASSISTANT),
        content=WORDS,
        tool_calls=st.lists(CALLS, max_size=2).map(tuple),
    ),
)


class Told:
    """Blocks that say what they are of."""

    def said(self, text: str) -> tuple[str, str]:
        return "said", text

    def called(self, call: ToolCall, arguments: Mapping[str, object]) -> tuple[str, str]:
        return "called", call.id

    def answered(self, message: Message, call_id: str, tool: str) -> tuple[str, str]:
        return "answered", call_id


@given(st.lists(MESSAGES, max_size=8).map(tuple))
def test_sides_alternate_and_nothing_is_lost(messages: tuple[Message, ...]) -> None:
    request = replace(ask(), messages=messages)
    made = list(turns(request, Told()))
    assert all(one.model != other.model for one, other in pairwise(made))
    expected = []
    for message in messages:
        if message.role is Role.TOOL:
            expected.append(("answered", message.tool_call_id or ""))
        elif message.role is not Role.SYSTEM:
            expected.append(("said", message.content))
            expected += [("called", call.id) for call in message.tool_calls]
    assert sorted(block for turn in made for block in turn.blocks) == sorted(expected)
    for turn in made:
        kinds = [kind == "answered" for kind, _ in turn.blocks]
        assert kinds == sorted(kinds, reverse=True)
    assert all(
        message.content in system_text(request)
        for message in messages
        if message.role is Role.SYSTEM
    )


# A text, or a piece of the call at one of three places.
PIECES = st.one_of(WORDS, st.tuples(st.integers(7, 9), st.sampled_from(["", "{}"])))


@given(st.lists(PIECES, max_size=12), st.booleans())
def test_the_deltas_are_the_completion(
    pieces: list[str | tuple[int, str]], answer_tool: bool
) -> None:
    spoken, deltas = Spoken("model", answer_tool=answer_tool), list[Delta]()
    spoken.begun, spoken.finish_reason = True, FinishReason.LENGTH
    for piece in pieces:
        if isinstance(piece, str):
            deltas += spoken.say(piece)
        else:
            place, arguments = piece
            name = ANSWER if place == 9 else WEATHER.name
            deltas += spoken.call(place, call_id=str(place), name=name, arguments=arguments)
    request = replace(ask(), tools=(WEATHER, replace(WEATHER, name=ANSWER)))
    *missing, told = spoken.rest(request)
    assert isinstance(told, Completion)
    deltas += [piece for piece in missing if isinstance(piece, Delta)]
    assert "".join(delta.content for delta in deltas) == told.content
    assert _joined(deltas) == told.tool_calls
    assert all(call.arguments for call in told.tool_calls)
    if answer_tool:
        assert set(told.content) <= set("{}")
        assert ANSWER not in {call.name for call in told.tool_calls}


def ended(spoken: Spoken, request: InferenceRequested) -> Completion:
    *_, told = spoken.rest(request)
    assert isinstance(told, Completion)
    return told


def _joined(deltas: list[Delta]) -> tuple[ToolCall, ...]:
    calls: dict[int, ToolCall] = {}
    for piece in (piece for delta in deltas for piece in delta.tool_calls):
        known = calls.get(piece.index, ToolCall(id="", name="", arguments=""))
        calls[piece.index] = ToolCall(
            id=known.id + piece.id,
            name=known.name + piece.name,
            arguments=known.arguments + piece.arguments,
        )
    assert list(calls) == list(range(len(calls)))
    return tuple(calls.values())


@given(st.text("a北🙂"), st.data())
def test_halves_of_characters_come_together_again(said: str, data: st.DataObject) -> None:
    units = said.encode("utf-16-le")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(units) // 2), max_size=5)))
    halves = [
        units[2 * one : 2 * other].decode("utf-16-le", "surrogatepass")
        for one, other in pairwise([0, *cuts, len(units) // 2])
    ]
    spoken = Spoken("model")
    spoken.begun, spoken.finish_reason = True, FinishReason.LENGTH
    deltas = [delta for half in halves for delta in spoken.say(half)]
    assert "".join(delta.content for delta in deltas) == said
    assert ended(spoken, ask()).content == said


def test_half_a_character_is_none() -> None:
    spoken = Spoken("\ud83d")
    spoken.begun, spoken.finish_reason = True, FinishReason.LENGTH
    deltas = [*spoken.say("\ude42a"), *spoken.call(1, call_id="\ud83d", name="weather")]
    told = ended(spoken, ask(tools=(WEATHER,)))
    assert [delta.content for delta in deltas] == ["\ufffda", ""]
    assert (told.model, told.tool_calls[0].id) == ("\ufffd", "\ufffd")
    told.model.encode()


@pytest.mark.parametrize(
    ("reason", "calls", "told"),
    [
        (FinishReason.STOP, True, FinishReason.TOOL_CALLS),
        (FinishReason.TOOL_CALLS, False, FinishReason.STOP),
        (FinishReason.LENGTH, True, FinishReason.LENGTH),
        (FinishReason.CONTENT_FILTER, False, FinishReason.CONTENT_FILTER),
    ],
)
def test_why_it_stopped_goes_with_what_was_said(
    reason: FinishReason, calls: bool, told: FinishReason
) -> None:
    spoken = Spoken("model")
    spoken.begun, spoken.finish_reason = True, reason
    if calls:
        arguments = '{"city": "Paris", "unit": "celsius"}'
        list(spoken.whole_call(call_id="1", name=WEATHER.name, arguments=arguments))
    assert ended(spoken, ask(tools=(WEATHER,))).finish_reason is told


def test_what_is_not_known_is_refused_only_where_it_asks_for_something() -> None:
    lacks = frozenset({"frequency_penalty", "presence_penalty", "seed", "top_k", "top_logprobs"})
    neutral = Sampling(frequency_penalty=0, presence_penalty=0.0, top_k=-1)
    require_drawable(ask(sampling=neutral), lacks)
    require_drawable(ask(sampling=Sampling(seed=0)), frozenset({"top_k"}))
    with pytest.raises(ProviderRefused) as error:
        require_drawable(ask(sampling=Sampling(seed=0)), lacks)
    assert (error.value.refusal.reason, error.value.refusal.field) == (
        Reason.REQUEST_INVALID,
        "sampling.seed",
    )


def test_a_turn_that_says_nothing_is_refused() -> None:
    silent = Message(role=Role.ASSISTANT)
    with pytest.raises(ProviderRefused):
        list(turns(replace(ask(), messages=(silent,)), Told()))
