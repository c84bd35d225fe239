"""What is left out of a conversation that a model cannot read at once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from schemas.events import Message, Role, ToolCall
from streams.agents.trimming import LEFT_OUT, trimmed

RULES = Message(role=Role.SYSTEM, content="Be brief.")
OLD = Message(role=Role.USER, content="Hello, and more of that." * 9)
QUESTION = Message(role=Role.USER, content="How many?" * 100)


def call(*ids: str) -> Message:
    asked = tuple(ToolCall(id=each, name="add", arguments="{}") for each in ids)
    return Message(role=Role.ASSISTANT, tool_calls=asked)


def told(id_: str, content: str) -> Message:
    return Message(role=Role.TOOL, content=content, tool_call_id=id_)


def test_the_oldest_results_go_first() -> None:
    transcript = (call("a"), told("a", "x" * 900), call("b"), told("b", "y" * 500))
    conversation, left = trimmed((RULES, QUESTION), transcript) or ((), ())
    assert conversation == (RULES, QUESTION)
    assert left == (call("a"), told("a", LEFT_OUT), call("b"), told("b", "y" * 500))


def test_turns_go_when_results_are_not_enough() -> None:
    answer = Message(role=Role.ASSISTANT, content="Good day to you.")
    conversation, left = trimmed((RULES, OLD, answer, QUESTION), (call("a"), told("a", "3"))) or (
        (),
        (),
    )
    assert conversation == (RULES, answer, QUESTION)
    assert left == (call("a"), told("a", "3"))


def test_what_must_stay_cannot_go() -> None:
    assert trimmed((RULES, QUESTION), ()) is None
    assert trimmed((), ()) is None


IDS = st.sampled_from("abc")
TEXTS = st.text("xy", max_size=200)
MESSAGES = st.one_of(
    st.builds(
        Message, role=st.sampled_from([Role.SYSTEM, Role.USER, Role.ASSISTANT]), content=TEXTS
    ),
    st.builds(told, IDS, TEXTS),
    st.builds(call, IDS),
)
TALKS = st.lists(MESSAGES, max_size=8)


def size(messages: tuple[Message, ...]) -> int:
    return sum(len(message.content) for message in messages)


@given(TALKS, TALKS)
def test_less_is_said_and_what_must_stay_stays(
    conversation: list[Message], transcript: list[Message]
) -> None:
    less = trimmed(conversation, transcript)
    if less is None:
        return
    assert less != (tuple(conversation), tuple(transcript))
    assert size(less[0] + less[1]) <= size((*conversation, *transcript))
    for role, last in ((Role.SYSTEM, 0), (Role.USER, -1)):
        kept = [message for message in conversation if message.role is role][last:]
        assert all(message in less[0] for message in kept)


@given(TALKS, TALKS)
def test_saying_less_again_and_again_comes_to_an_end(
    conversation: list[Message], transcript: list[Message]
) -> None:
    less = trimmed(conversation, transcript)
    for _ in range(len(conversation) + 2 * len(transcript) + 10):
        if less is None:
            return
        less = trimmed(*less)
    raise AssertionError("it never ends")


@given(st.lists(st.tuples(IDS, TEXTS), max_size=6))
def test_a_call_never_goes_without_its_results(calls: list[tuple[str, str]]) -> None:
    transcript = [each for id_, text in calls for each in (call(id_), told(id_, text))]
    less = trimmed((QUESTION,), transcript)
    if less is not None:
        roles = [message.role for message in less[1]]
        assert roles == [Role.ASSISTANT, Role.TOOL] * (len(roles) // 2)
