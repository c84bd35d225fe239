"""Approvals that runs of agents wait for: what was decided is told to the run itself."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from schemas.agents import call_id, run_id
from schemas.events import (
    ApprovalDecided,
    ApprovalWanted,
    InferenceReplied,
    Reason,
    RequestCancelled,
)
from schemas.topics import APPROVAL_DECIDED, AUDIT_RECORDED, Outgoing
from streams.gateway.approvals import decide, give, nobody_decided
from streams.gateway.board import Board
from streams.gateway.desk import Desk
from streams.gateway.watch import concerns
from tests.unit.asking import NOON, only
from tests.unit.holding import VIEW, answered, given, later, on, told, wanted

RUN = run_id("request", "acme")
CALL = call_id(RUN, 3)
# Of those who run agents.
RUNNER = "reply.v1.other"


def of_run(**changes: Any) -> ApprovalWanted:
    plain = {"held": None, "request_id": CALL, "reply_to": RUNNER, "rules": ()}
    return replace(wanted(), **{**plain, **changes})


def board_of(wait: ApprovalWanted) -> Board:
    board = Board()
    board.want(wait)
    return board


def decided(board: Board, by: str = "boss", **changes: Any) -> ApprovalDecided:
    [event] = only(give(answered(given(**changes), by, board), VIEW, NOON), APPROVAL_DECIDED)
    assert isinstance(event, ApprovalDecided)
    return event


def by_the_clock(wait: ApprovalWanted, seconds: float) -> ApprovalDecided:
    event = nobody_decided(wait, later(seconds)).event
    assert isinstance(event, ApprovalDecided)
    return event


def after(board: Board, event: ApprovalDecided, offset: int = 1) -> list[Outgoing]:
    return list(decide(on(board, event, offset), VIEW, NOON, Desk()))


def result(outgoing: list[Outgoing], to: str = RUNNER) -> dict[str, Any]:
    [reply] = told(outgoing, to)
    assert isinstance(reply, InferenceReplied)
    assert (reply.request_id, reply.refusal, reply.completion) == (CALL, None, None)
    said = json.loads(reply.result or "")
    assert isinstance(said, dict)
    return said


@pytest.mark.parametrize("granted", [True, False])
def test_a_run_is_told_who_decided_what_and_why(*, granted: bool) -> None:
    board = board_of(of_run())
    outgoing = after(board, decided(board, granted=granted, reason="it is Sunday"))
    assert result(outgoing) == {
        "granted": granted,
        "principal": "boss",
        "reason": "it is Sunday",
    }
    [audit] = only(outgoing, AUDIT_RECORDED)
    assert (audit.principal, audit.request_id) == ("boss", CALL)
    assert told(outgoing, "reply.v1.platform"), "who decided hears of it, too"


@pytest.mark.parametrize(
    ("seconds", "reason"),
    [(60, "nobody decided in time"), (5, "the caller cancelled the request")],
)
def test_a_run_is_told_what_the_clock_decided(seconds: float, reason: str) -> None:
    board = board_of(of_run())
    said = result(after(board, by_the_clock(of_run(), seconds)))
    assert said == {"granted": False, "principal": "", "reason": reason}


def test_a_run_is_told_once_whatever_is_decided_later() -> None:
    board = board_of(of_run())
    first = decided(board)
    second = decided(board_of(of_run()), given_id="second", granted=False)
    assert result(after(board, first, 1))["granted"] is True
    assert told(after(board, second, 2), RUNNER) == []
    assert told(after(board, by_the_clock(of_run(), 60), 3), RUNNER) == []
    assert result(after(board, first, 1))["granted"] is True, "read again, it is told again"


def test_who_asked_the_agent_may_not_decide_what_it_may() -> None:
    board = board_of(of_run())
    said = given(reply_to="reply.v1.acme")
    outgoing = list(give(answered(said, "ann", board), VIEW, NOON))
    [reply] = told(outgoing, "reply.v1.acme")
    assert reply.refusal is not None
    assert reply.refusal.reason is Reason.PRIVILEGE_MISSING
    assert only(outgoing, APPROVAL_DECIDED) == []


UNTOLD: dict[str, dict[str, Any]] = {
    "a request that is no run's call": {"request_id": "request"},
    "a topic that is none of replies": {"reply_to": "inference.requested.v1"},
    "a topic of no tenant": {"reply_to": "reply.v1.nobody"},
    "no topic": {"reply_to": None},
}


@pytest.mark.parametrize("what", UNTOLD)
def test_nobody_else_is_told_by_way_of_an_approval(what: str) -> None:
    board = board_of(of_run(**UNTOLD[what]))
    outgoing = after(board, decided(board))
    assert [each.topic.name for each in outgoing] == ["audit.recorded.v1", "reply.v1.platform"]


def test_what_is_held_goes_on_and_nobody_is_told_besides() -> None:
    board = board_of(wanted(request_id=CALL, reply_to=RUNNER))
    assert told(after(board, decided(board)), RUNNER) == []


@pytest.mark.parametrize(
    ("tenant", "request_id", "is_concerned"),
    [
        ("acme", "request", True),
        ("acme", CALL, True),
        ("acme", "req", False),
        ("acme", "request//acme", False),
        ("acme", call_id(RUN, 30), False),
        ("other", "request", False),
    ],
)
def test_of_a_run_that_is_cancelled_nobody_is_asked_any_more(
    tenant: str, request_id: str, *, is_concerned: bool
) -> None:
    cancelled = RequestCancelled(
        request_id=request_id, tenant=tenant, cancelled_at=NOON, deadline=later(60)
    )
    assert concerns(cancelled, of_run()) is is_concerned
    deeper = of_run(request_id=call_id(run_id(CALL, "acme"), 1))
    assert concerns(cancelled, deeper) is is_concerned
