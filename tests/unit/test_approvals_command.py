"""What `tessera approvals` shows, and what it says when it cannot."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from infra.telemetry import now
from schemas.events import ApprovalDecided
from streams import approvals_command
from streams.approvals_command import Unknown, decide, listed
from streams.gateway.board import Board
from tests.unit.holding import request, wanted


def board() -> Board:
    """Returns a board on which two approvals wait and one is decided."""
    instant = now()
    made = Board()
    for name, minutes in (("bbb-late", 10), ("aaa-soon", 5)):
        made.want(wanted(approval_id=name, until=instant + timedelta(minutes=minutes)))
    done = wanted(approval_id="ccc-done")
    granted = ApprovalDecided(
        approval_id="ccc-done",
        tenant="acme",
        wanted=done,
        granted=True,
        principal="boss",
        decided_at=instant,
    )
    made.want(done)
    made.decide(granted, 0, 0)
    return made


def test_the_most_urgent_comes_first_with_who_asks_what_rule_until_when_and_no_text() -> None:
    lines = "\n".join(listed(board()))
    assert lines.index("aaa-soon") < lines.index("bbb-late")
    assert "ccc-done" not in lines
    assert "may it?" in lines
    assert "tenant acme  request request  input  until " in lines
    assert "hello" not in lines


def test_texts_are_shown_as_they_are_held_and_move_no_cursor() -> None:
    held = replace(request(), texts=("first\n\x1b[2Jsecond",))
    made = Board()
    made.want(wanted(held))
    assert [line for line in listed(made, show=True) if "|" in line] == [
        "    | first",
        "    | \\x1b[2Jsecond",
    ]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ccc-done", "already granted by boss at"),
        ("nothing", "nothing waits as nothing"),
        ("", "nothing waits as "),
    ],
)
async def test_what_does_not_wait_is_told_before_anything_is_sent(
    name: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def read() -> Board:
        return board()

    monkeypatch.setattr(approvals_command, "read", read)
    with pytest.raises(Unknown, match=says):
        await decide(name, "", granted=True)
