"""Requests that go on with a conversation: whose form the gateway lets pass."""

from __future__ import annotations

import pytest

from schemas.events import InferenceRequested, Reason
from tests.unit.asking import ask
from tests.unit.test_agents_asked import call, refusal_of, routed, run

# What is refused: the request, the field, and a word that says what to do.
REFUSED: dict[str, tuple[InferenceRequested, str, str]] = {
    "a call": (call(previous="a"), "previous", "goes on with nothing"),
    "a chat": (ask(previous="a"), "previous", "send all that was said"),
    "a run after less than a turn": (
        run(previous="a", previous_turns=0),
        "previous_turns",
        "from 1",
    ),
    "a run after turns of nothing": (run(previous_turns=1), "previous_turns", "without previous"),
    "a run behind one without an id": (run(previous=""), "previous", "empty"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_request_goes_on_with_nothing_where_it_is(what: str) -> None:
    request, field, word = REFUSED[what]
    refusal = refusal_of(request)
    assert (refusal.reason, refusal.field) == (Reason.REQUEST_INVALID, field)
    assert word in refusal.message


def test_nothing_goes_on_with_what_an_agent_asked_of_another() -> None:
    refusal = refusal_of(run(previous="a//acme//1"))
    assert (refusal.reason, refusal.field) == (Reason.NOT_FOUND, "previous")
    assert "the request that began it" in refusal.message


@pytest.mark.parametrize("request_", [run(previous="a"), run(previous="b", previous_turns=2)])
def test_whether_there_is_such_a_conversation_is_seen_by_the_run(
    request_: InferenceRequested,
) -> None:
    assert routed(request_).request == request_
