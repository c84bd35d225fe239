"""What a run tells, put in order for whoever follows it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest

from schemas.events import AgentTold, FinishReason
from streams.client.told import EventsMissing, InOrder, RunEvent, answered
from streams.replies import Reply
from tests.unit.agents import NOON, said

CREATED, ADDED, DONE = (
    "response.created",
    "response.output_item.added",
    "response.output_item.done",
)


def told(seq: int, kind: str = DONE, item: dict[str, object] | None = None) -> AgentTold:
    text = None if item is None else json.dumps(item)
    return AgentTold(request_id="run", tenant="acme", seq=seq, kind=kind, item=text, told_at=NOON)


def heard(order: InOrder, seqs: Sequence[int]) -> list[int]:
    return [event.seq for seq in seqs for event in order.take(told(seq))]


@pytest.mark.parametrize(
    "seqs", [[0, 1, 2, 3], [0, 0, 1, 0, 1, 2, 2, 3], [1, 3, 0, 2], [3, 2, 1, 0]]
)
def test_each_event_is_heard_once_in_its_place_however_the_log_has_it(seqs: list[int]) -> None:
    order = InOrder("run")
    assert heard(order, seqs) == [0, 1, 2, 3]
    order.end()


def test_a_gap_is_told_at_the_end_and_nothing_behind_it_is_heard() -> None:
    order = InOrder("run")
    assert heard(order, [0, 2, 3]) == [0]
    with pytest.raises(EventsMissing, match="event 1 of run run is not on the log"):
        order.end()


@pytest.mark.parametrize("item", ["{", "[]", "{}", '{"id": 1}'])
def test_what_is_no_item_is_not_heard_and_missed_at_the_end(item: str) -> None:
    order = InOrder("run")
    with pytest.raises(ValueError, match=r"Expecting|no item"):
        list(order.take(replace(told(0), item=item)))
    assert heard(order, [1]) == []
    with pytest.raises(EventsMissing):
        order.end()


@pytest.mark.parametrize(
    ("reason", "status"), [(FinishReason.STOP, "completed"), (FinishReason.LENGTH, "incomplete")]
)
def test_a_run_whose_answer_a_policy_looked_at_ends_with_what_that_left(
    reason: FinishReason, status: str
) -> None:
    [begun] = InOrder("run").take(told(0, CREATED, {"id": "run", "status": "in_progress"}))
    reply = Reply(request_id="run", completion=said("It is ***.", finish_reason=reason))
    end = answered(begun, 3, reply, NOON)
    assert (end.seq, end.kind, end.reply, end.is_end) == (3, f"response.{status}", reply, True)
    assert end.item is not None
    assert (end.item["id"], end.item["status"]) == ("run", status)
    assert end.item["output"][0]["content"][0]["text"] == "It is ***."


def test_items_are_counted_from_their_beginning_whatever_is_told_of_them() -> None:
    order = InOrder("run")
    several = [
        told(0, CREATED, {"id": "run"}),
        told(1, ADDED, {"id": "one"}),
        told(2, ADDED, {"id": "two"}),
        told(3, DONE, {"id": "one"}),
        told(4, DONE, None),
        told(5, "response.completed", {"id": "run"}),
    ]
    events: list[RunEvent] = [event for each in several for event in order.take(each)]
    assert [event.output_index for event in events] == [None, 0, 1, 0, None, None]
    assert [event.is_end for event in events] == [False] * 5 + [True]
    assert events[0].to_openai() == {
        "type": CREATED,
        "sequence_number": 0,
        "response": {"id": "run"},
    }
    assert events[3].to_openai() == {
        "type": DONE,
        "sequence_number": 3,
        "output_index": 0,
        "item": {"id": "one"},
    }
