"""A run on the screen of whoever asked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from streams.agent_command import Steps
from streams.client.told import RunEvent
from streams.replies import Reply
from tests.unit.agents import said
from tests.unit.test_agent_said import ANSWER, SPOKEN, run, split

CALLED = ["run request", '-> add {"a": 1, "b": 2}', '<- {"result": 3}']


def shown(events: list[RunEvent], *, live: bool) -> None:
    """Shows events, the last one with the answer."""
    steps = Steps(live=live)
    reply = Reply(request_id="request", completion=said(ANSWER))
    for event in [*events[:-1], replace(events[-1], reply=reply)]:
        steps.show(event)


@pytest.mark.parametrize("live", [True, False])
def test_an_answer_is_shown_once(live: bool, capsys: pytest.CaptureFixture[str]) -> None:
    before, rest = split()
    shown(run(before, SPOKEN, rest), live=live)
    out, err = capsys.readouterr()
    assert out == f"{ANSWER}\n"
    assert err.splitlines() == CALLED


def test_an_answer_that_was_heard_in_part_is_shown_whole(
    capsys: pytest.CaptureFixture[str],
) -> None:
    before, rest = split()
    shown(run(before, SPOKEN[:2], rest), live=True)
    assert capsys.readouterr().out == f"It is \n{ANSWER}\n"
