"""Approvals: who may decide, what comes of it, and that it comes once."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from schemas.events import (
    ApprovalDecided,
    AuditOutcome,
    InferenceReplied,
    InferenceRouted,
    Reason,
)
from schemas.topics import (
    APPROVAL_DECIDED,
    AUDIT_RECORDED,
    INFERENCE_REFUSED,
    INFERENCE_ROUTED,
    Outgoing,
)
from streams.gateway.approvals import decide, give, nobody_decided
from streams.gateway.board import KNOWN, Board
from streams.gateway.desk import Desk
from tests.unit.asking import NOON, only
from tests.unit.holding import VIEW, answer, answered, given, later, on, told, wanted

CALLER, DECIDER = "reply.v1.acme", "reply.v1.platform"
DESK = Desk()


def waiting() -> Board:
    board = Board()
    board.want(wanted())
    return board


def decided(board: Board, by: str = "boss", **changes: Any) -> ApprovalDecided:
    [event] = only(give(answered(given(**changes), by, board), VIEW, NOON), APPROVAL_DECIDED)
    assert isinstance(event, ApprovalDecided)
    return event


def after(board: Board, event: ApprovalDecided, offset: int = 1) -> list[Outgoing]:
    return list(decide(on(board, event, offset), VIEW, NOON, DESK))


def test_what_is_granted_goes_on_its_route_and_who_decided_is_told_and_audited() -> None:
    board = waiting()
    outgoing = after(board, decided(board))
    [routed] = only(outgoing, INFERENCE_ROUTED)
    assert isinstance(routed, InferenceRouted)
    [reply] = told(outgoing, DECIDER)
    assert (reply.request_id, reply.refusal, reply.result) == ("given", None, "{}")
    assert reply.claim
    [audit] = only(outgoing, AUDIT_RECORDED)
    assert (audit.action, audit.principal) == ("approval.granted", "boss")
    assert audit.outcome is AuditOutcome.DONE
    assert not told(outgoing, CALLER)


def test_what_is_denied_is_refused_in_the_words_of_who_denied_it() -> None:
    board = waiting()
    outgoing = after(board, decided(board, granted=False, reason="not on a Sunday"))
    [reply] = told(outgoing, CALLER)
    assert reply.refusal is not None
    assert reply.refusal.reason is Reason.APPROVAL_DENIED
    assert "boss denied it" in reply.refusal.message
    assert reply.refusal.message.endswith("not on a Sunday")
    assert only(outgoing, INFERENCE_REFUSED)
    [audit] = only(outgoing, AUDIT_RECORDED)
    assert audit.action == "approval.denied"


def test_what_nobody_decides_is_refused_at_its_deadline() -> None:
    board = waiting()
    assert board.due(later(59)) == []
    [due] = board.due(later(60))
    [reply] = told(after(board, nobody_decided(due, later(60)).event), CALLER)  # type: ignore[arg-type]
    assert reply.refusal is not None
    assert reply.refusal.reason is Reason.APPROVAL_DENIED
    assert reply.refusal.message.startswith("nobody approved in time")
    assert board.due(later(90)) == []


def test_what_its_caller_cancels_is_asked_about_no_more() -> None:
    board = waiting()
    [reply] = told(after(board, nobody_decided(wanted(), later(5)).event), CALLER)  # type: ignore[arg-type]
    assert reply.refusal is not None
    assert reply.refusal.reason is Reason.CANCELLED
    assert not board.wanted


def test_an_answer_that_is_granted_goes_to_the_caller_and_one_denied_does_not() -> None:
    for granted in (True, False):
        board = Board()
        board.want(wanted(answer(), stage="output"))
        outgoing = after(board, decided(board, granted=granted))
        [reply] = told(outgoing, CALLER)
        assert (reply.completion is not None) is granted
        assert (reply.refusal is None) is granted


REFUSED: dict[str, tuple[str | None, dict[str, Any], Reason]] = {
    "a key that nobody knows": ("stranger", {}, Reason.KEY_UNKNOWN),
    "a principal who manages neither": ("intern", {"reply_to": CALLER}, Reason.PRIVILEGE_MISSING),
    "a reason without end": ("boss", {"reason": "x" * 501}, Reason.REQUEST_INVALID),
    "a reply address of another tenant": (
        "boss",
        {"reply_to": CALLER},
        Reason.REPLY_ADDRESS_FORBIDDEN,
    ),
    "an approval that nobody wants": ("boss", {"approval_id": "other"}, Reason.NOT_FOUND),
    "another's name": ("boss", {"principal": "keeper"}, Reason.PRINCIPAL_FOREIGN),
    "another's tenant": ("boss", {"tenant": "other"}, Reason.NOT_FOUND),
    "no signature": (None, {}, Reason.SIGNATURE_MISSING),
    "who asked": ("ann", {"reply_to": CALLER}, Reason.PRIVILEGE_MISSING),
}


@pytest.mark.parametrize("what", REFUSED)
def test_it_is_decided_by_none_who_may_not_nor_without_proof(what: str) -> None:
    by, changes, reason = REFUSED[what]
    said = given(**changes)
    outgoing = list(give(answered(said, by, waiting()), VIEW, NOON))
    assert not only(outgoing, APPROVAL_DECIDED)
    [reply] = told(outgoing, said.reply_to)
    assert reply.refusal is not None
    assert reply.refusal.reason is reason


def test_who_may_not_decide_is_audited() -> None:
    outgoing = list(give(answered(given(reply_to=CALLER), "intern", waiting()), VIEW, NOON))
    [audit] = only(outgoing, AUDIT_RECORDED)
    assert (audit.action, audit.principal) == ("approval.granted", "intern")
    assert audit.outcome is AuditOutcome.DENIED


def test_a_signature_for_another_value_decides_nothing() -> None:
    board = waiting()
    signed = answered(given(granted=False), "boss", board)
    outgoing = list(give(replace(signed, given=given(tenant="other")), VIEW, NOON))
    [reply] = told(outgoing, DECIDER)
    assert reply.refusal is not None
    assert reply.refusal.reason is Reason.SIGNATURE_INVALID


def test_it_is_too_late_once_nobody_waits() -> None:
    late = given(deadline=later(90))
    outgoing = list(give(answered(late, "boss", waiting()), VIEW, later(60)))
    [reply] = told(outgoing, DECIDER)
    assert reply.refusal is not None
    assert reply.refusal.reason is Reason.DEADLINE_EXPIRED
    assert "too late" in reply.refusal.message


def test_a_second_decision_does_nothing_and_says_what_stands() -> None:
    board = waiting()
    after(board, decided(board))
    second = given(given_id="second", granted=False)
    outgoing = list(give(answered(second, "boss", board), VIEW, NOON))
    [reply] = told(outgoing, DECIDER)
    assert reply.refusal is not None
    assert reply.refusal.reason is Reason.CONFLICT
    assert "already granted by boss" in reply.refusal.message
    assert not only(outgoing, APPROVAL_DECIDED)


def test_the_record_of_a_decision_that_is_read_again_says_nothing_more() -> None:
    board = waiting()
    after(board, decided(board))
    assert list(give(answered(given(), "boss", board), VIEW, NOON)) == []


def test_decisions_are_forgotten_after_a_day() -> None:
    board = waiting()
    after(board, decided(board))
    board.forget(NOON + KNOWN)
    assert board.decided
    board.forget(NOON + KNOWN + timedelta(seconds=1))
    assert not board.decided


# What lies on the log of decisions, in any order and number, read once or more.
LOGS = st.lists(st.sampled_from(["clock", "denied", "granted"]), min_size=1, max_size=6)


@drawn(log=LOGS, reads=st.integers(1, 3), ends=st.lists(st.integers(0, 6), max_size=3))
def test_one_decision_counts_whatever_comes_after_it_and_whoever_reads_the_log_again(
    log: list[str], reads: int, ends: list[int]
) -> None:
    fresh = waiting()
    events = {
        "clock": nobody_decided(wanted(), NOON).event,
        "denied": decided(fresh, given_id="no", granted=False),
        "granted": decided(fresh, given_id="yes"),
    }
    board = waiting()
    ended: set[str] = set()
    for begin in (0, *sorted(min(end, len(log)) for end in ends)[:reads]):
        # A process that begins anew knows the whole log before it goes on.
        board = Board()
        for offset, what in enumerate(log):
            board.decide(events[what], 0, offset)  # type: ignore[arg-type]
            board.want(wanted())
        for offset in range(begin, len(log)):
            event = events[log[offset]]
            assert isinstance(event, ApprovalDecided)
            for topic, reply in after(board, event, offset):
                if topic.name == CALLER and isinstance(reply, InferenceReplied):
                    ended.add("refused")
                if topic.name.startswith(INFERENCE_ROUTED.name):
                    ended.add("routed")
        assert not board.wanted
    assert ended == {"routed" if log[0] == "granted" else "refused"}
