"""Runs as trees: out of a journal, and out of the inference table alone."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from infra.lake import Row
from infra.registry import Reader, Registry
from infra.settings import RegistrySettings
from schemas.agents import Definition
from schemas.codec import Codec
from schemas.events import (
    EVENTS,
    AgentJournaled,
    FinishReason,
    InferenceRecorded,
    InferenceReplied,
    Outcome,
    Reason,
)
from schemas.topics import Outgoing
from streams.agents.causes import Answered, Cancelled, Cause, Decided
from streams.agents.folding import Taken, begin_run, emitted, go_on
from streams.runs.journals import Journals
from streams.runs.node import Node
from streams.runs.recorded import priced, rebuilt, rows
from streams.runs.screen import table, tree
from streams.runs.unfolding import unfolded
from tests.unit.agents import (
    ADD,
    AGENT,
    EXPERT,
    MODEL,
    NOON,
    SECOND,
    WIPE,
    added,
    answered,
    begun,
    calls,
    definition,
    refusal,
    request,
    result,
    said,
)
from tests.unit.lakes import opened

CODEC = Codec({name: number for number, name in enumerate(EVENTS)})
READER = Reader(CODEC, Registry(RegistrySettings(url="http://127.0.0.1:1")))
RUN = "request//acme"


def journal(*came: Cause, quiet: bool = False, **asked: Any) -> list[AgentJournaled]:
    """Returns the journal of a run that takes this in, an entry a second."""
    first = begun(request(**asked), quiet=quiet)
    entry = AgentJournaled(
        run_id=f"{first.request.request_id}//acme",
        tenant="acme",
        agent=first.request.endpoint,
        seq=0,
        cause_id="0",
        cause_topic="routed",
        cause=CODEC.encode(first.routed),
        definition=definition(agent=first.request.endpoint).model_dump_json(),
        reply_to="reply.v1.agents",
        at=NOON,
    )
    taken = begin_run(first, Definition.model_validate_json(entry.definition or ""), entry)
    entries = [_with(entry, taken)]
    for seq, cause in enumerate(came, start=1):
        entry = replace(
            entry,
            seq=seq,
            cause_id=str(seq),
            cause_topic="" if isinstance(cause, Cancelled) else "reply",
            cause=_record(cause, entry.run_id),
            definition=None,
            reply_to=None,
            at=NOON + seq * SECOND,
        )
        taken = go_on(taken.folded, cause, entry)
        entries.append(_with(entry, taken))
    return entries


def _with(entry: AgentJournaled, taken: Taken) -> AgentJournaled:
    outgoing: tuple[Outgoing, ...] = taken.outgoing
    return replace(entry, emitted=emitted(outgoing), ended=taken.ended)


def _record(cause: Cause, run: str) -> bytes:
    if isinstance(cause, Answered):
        name = f"{run}//{cause.number}"
        return CODEC.encode(replace(cause.replied, request_id=name))
    if isinstance(cause, Decided):
        said = {"granted": cause.granted, "principal": cause.principal, "reason": cause.reason}
        name = f"{run}//{cause.number}"
        return CODEC.encode(
            InferenceReplied(request_id=name, result=json.dumps(said), replied_at=NOON)
        )
    return b"cancelled"


async def seen(*came: Cause, **how: Any) -> Node:
    entries = journal(*came, **how)
    node = await unfolded(RUN, {RUN: entries}, READER)
    node.add_up()
    return node


def outline(node: Node) -> list[Any]:
    """Returns kinds, names and states, those of what was asked below each."""
    below = [outline(each) for each in node.below]
    return [node.kind, node.name, node.state, *([below] if below else [])]


async def test_a_run_is_its_turns_and_what_each_called() -> None:
    node = await seen(
        answered(0, calls(added("one"), added("two", 3, 4))),
        answered(2, result(7)),
        answered(1, refusal(Reason.PRIVILEGE_MISSING, "you may not")),
        answered(3, said("It is 7.")),
    )
    assert outline(node) == [
        "run",
        AGENT,
        "completed",
        [
            [
                "turn",
                MODEL,
                "completed",
                [["function", ADD, "failed"], ["function", ADD, "completed"]],
            ],
            ["turn", MODEL, "completed"],
        ],
    ]
    first, second = node.below[0].below
    assert (first.said, first.reason) == ('{"a": 1, "b": 2}', "PRIVILEGE_MISSING: you may not")
    assert second.result == '{"result": 7}'
    assert (second.asked_at, second.ended_at) == (NOON + SECOND, NOON + 2 * SECOND)
    assert (node.said, node.result) == ("How many?", "It is 7.")
    assert (node.asked_at, node.ended_at) == (NOON, NOON + 4 * SECOND)
    assert (node.prompt_tokens, node.completion_tokens) == (30, 15)


async def test_a_call_that_waits_for_a_person_says_how_it_is_approved() -> None:
    asking = answered(0, calls(("one", "wipe", {})))
    [call] = (await seen(asking)).below[0].below
    assert (call.name, call.state) == (WIPE, "waits")
    text = drawn(await seen(asking))
    assert f"tessera approvals approve {call.approval}" in text
    granted = await seen(asking, Decided(number=1, granted=True))
    assert granted.below[0].below[0].state == "running"
    denied = await seen(asking, Decided(number=1, granted=False, principal="bob", reason="no"))
    assert denied.below[0].below[0].reason == "denied by bob: no"
    called_off = await seen(asking, Cancelled())
    assert (called_off.state, called_off.below[0].below[0].state) == ("cancelled", "cancelled")


@pytest.mark.parametrize(
    "calling",
    [
        calls(("one", "nothing", {}), ("two", "add", "{")),
        calls(("one", "nothing", {}), added("two"), ("three", "add", "{")),
    ],
)
async def test_a_wrong_call_says_what_the_model_is_told_of_it(calling: Any) -> None:
    node = await seen(answered(0, calling))
    wrong = [each for each in node.below[0].below if each.state == "failed"]
    assert [json.loads(each.result)["error"]["kind"] for each in wrong] == ["arguments"] * 2
    assert [each.reason for each in wrong] == ["it could not be called"] * 2
    assert (wrong[0].kind, wrong[0].name) == ("unknown", "nothing")


async def test_a_run_below_another_stands_below_its_call() -> None:
    above = journal(
        answered(0, calls(("one", "expert", {"message": "hi"}))),
        answered(1, said("hello", usage=replace(said("").usage, prompt_tokens=0))),
    )
    below = journal(answered(0, said("hello")), request_id=f"{RUN}//1", endpoint=EXPERT)
    node = await unfolded(RUN, {RUN: above, f"{RUN}//1//acme": below}, READER)
    call = node.below[0].below[0]
    assert outline(call) == [
        "agent",
        EXPERT,
        "completed",
        [["run", EXPERT, "completed", [["turn", MODEL, "completed"]]]],
    ]


async def test_what_a_policy_holds_back_is_not_shown() -> None:
    node = await seen(
        answered(0, calls(added("one"))),
        answered(1, result(3)),
        answered(2, said("3.")),
        quiet=True,
    )
    assert [each.said + each.result for each in node.walk()] == [""] * 4


async def test_a_journal_of_other_rules_is_shown_as_far_as_it_can_be() -> None:
    entries = journal(answered(0, calls(added("one"))), answered(1, result(3)))
    entries[2] = replace(entries[2], emitted=())
    node = await unfolded(RUN, {RUN: entries}, READER)
    assert outline(node) == [
        "run",
        AGENT,
        "running",
        [["turn", MODEL, "completed", [["function", ADD, "running"]]]],
    ]
    assert "what came at 12:00:02Z is not shown" in node.reason
    entries[-1] = replace(entries[-1], ended=True)
    over = await unfolded(RUN, {RUN: entries}, READER)
    assert (over.state, over.ended_at) == ("ended", NOON + 2 * SECOND)
    priced(over, [recorded("request", {}, None, outcome=Outcome.FAILED).to_avro()])
    assert over.state == "failed"


def test_of_two_entries_with_one_number_the_first_on_the_log_counts() -> None:
    first, second = journal(answered(0, said("3.")))
    known = Journals()
    for entry in (second, first, first, second, replace(second, seq=2)):
        known.take(entry)
    assert known == {RUN: [first, second]}
    assert known.broken == set()


def recorded(name: str, asked: object, cost: str | None, **changes: Any) -> InferenceRecorded:
    return InferenceRecorded(
        request_id=name,
        tenant="acme",
        endpoint=changes.pop("endpoint", MODEL),
        request=json.dumps(asked),
        requested_at=NOON,
        elapsed_ms=1500,
        cost=None if cost is None else Decimal(cost),
        row_id=name,
        **{"outcome": Outcome.COMPLETED, **changes},
    )


ROWS = [
    recorded("request", {"messages": []}, "0", endpoint=AGENT),
    recorded(f"{RUN}//0", {"messages": []}, "0.25", prompt_tokens=10, model="tiny"),
    recorded(f"{RUN}//1", {"arguments": {"a": 1}}, None, endpoint=ADD),
    recorded(f"{RUN}//2", {"messages": []}, None, endpoint=EXPERT),
    recorded(f"{RUN}//2//acme//0", {"messages": []}, "0.5", prompt_tokens=1),
    recorded("request2", {"messages": []}, "9"),
]


def lake(folder: Path) -> Path:
    opened(folder).append([Row(each, "recorded", 0, at) for at, each in enumerate(ROWS)])
    return folder


async def test_the_table_says_what_each_request_of_a_run_cost(tmp_path: Path) -> None:
    node = await seen(answered(0, calls(added("one"))), answered(1, result(3)))
    priced(node, rows(lake(tmp_path), "request"))
    node.add_up()
    assert (node.below[0].cost, node.cost) == (Decimal("0.25"), Decimal("0.25"))
    assert "$0.25" in drawn(node)


def test_a_run_without_a_journal_is_what_the_table_has_of_it(tmp_path: Path) -> None:
    assert rows(tmp_path, "request") == []
    node = rebuilt("request", rows(lake(tmp_path), "request"))
    assert node is not None
    node.add_up()
    assert outline(node) == [
        "run",
        AGENT,
        "completed",
        [
            ["turn", MODEL, "completed"],
            ["function", ADD, "completed"],
            ["run", EXPERT, "completed", [["turn", MODEL, "completed"]]],
        ],
    ]
    assert (node.cost, node.prompt_tokens) == (Decimal("0.75"), 11)
    assert node.below[1].said == '{"a": 1}'
    assert node.ended_at == NOON + timedelta(seconds=1.5)
    assert rebuilt("nothing", []) is None


def drawn(*nodes: Node) -> str:
    console = Console(width=160)
    with console.capture() as shown:
        console.print(tree(nodes[0], NOON + 9 * SECOND) if len(nodes) == 1 else table(nodes, NOON))
    return shown.get()


async def test_texts_on_the_screen_are_short_and_move_no_cursor() -> None:
    long = "\x1b[2J" + "x" * 500
    node = await seen(answered(0, said(long, finish_reason=FinishReason.LENGTH)))
    text = drawn(node)
    assert "\x1b[2J" not in text
    assert "\\x1b[2Jxxx" in text
    assert "x" * 100 not in text
    shown = drawn(node, node)
    assert shown.splitlines()[0].split() == [
        "run",
        "agent",
        "state",
        "began",
        "took",
        "tokens",
        "cost",
        "$",
        "asked",
    ]
    assert "completed" in shown
