"""Laws of the step of agents, whatever the model says and in whatever order others answer."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from schemas.events import (
    ApprovalWanted,
    Completion,
    InferenceReplied,
    InferenceRequested,
    InferenceRouted,
    Message,
    Reason,
    Refusal,
    Task,
    ToolCall,
)
from schemas.search import Hit
from schemas.topics import Outgoing
from streams.agents.causes import Answered, Begun, Cancelled, Cause, Decided, Expired
from streams.agents.progress import Ended, Step
from streams.agents.run import Run
from streams.agents.step import advance, begin
from tests.unit.agents import (
    HOUR,
    NOON,
    SECOND,
    an_object,
    answered,
    begun,
    definition,
    found,
    limits,
    refusal,
    result,
    said,
)
from tests.unit.events import INSTANTS, events

LIMITS = limits(turns=6, parallel=2)
AGENT = definition(
    limits=LIMITS, repairs=1, summarise=True, output=an_object(["n"], n={"type": "integer"})
)

RIGHT = [
    ("add", '{"a": 1, "b": 2}'),
    ("books", '{"query": "whales"}'),
    ("books", '{"query": "ships", "k": 2}'),
    ("expert", '{"message": "Why?"}'),
    ("transfer_to_desk", "{}"),
    ("wipe", "{}"),
]
WRONG = [("fly", "{}"), ("add", "{"), ("books", '{"k": 0}')]
ASKED = st.builds(
    lambda id_, call: ToolCall(id=id_, name=call[0], arguments=call[1]),
    st.sampled_from(["", "a", "b", "c"]),
    st.sampled_from(RIGHT * 3 + WRONG),
)
CALLS = st.lists(ASKED, min_size=1, max_size=6).map(lambda each: said("", tool_calls=tuple(each)))
ANSWERS = st.sampled_from([said('{"n": 7}'), said("seven")])
REFUSALS = st.sampled_from(
    [
        Reason.ANSWER_UNKEPT,
        Reason.BUDGET_EXCEEDED,
        Reason.CONTEXT_EXCEEDED,
        Reason.PROVIDER_FAILED,
        Reason.RATE_LIMITED,
    ]
).map(refusal)
# What the model says, turn by turn; the last of it for ever after.
SCRIPTS = st.lists(st.one_of(CALLS, CALLS, CALLS, ANSWERS, REFUSALS), min_size=1, max_size=6)
# Which of those who are to answer does so next.
ORDERS = st.lists(st.integers(0, 100), max_size=40)


@dataclass
class Play:
    """A run with all that came, and what it led to."""

    script: list[Completion | Refusal]
    steps: list[Step] = field(default_factory=list)
    causes: list[Cause] = field(default_factory=list)
    waiting: list[ApprovalWanted | InferenceRequested] = field(default_factory=list)
    turns: int = 0

    @property
    def run(self) -> Run:
        return self.steps[-1].run

    def begin(self) -> None:
        self._taken(begin(begun(), AGENT, NOON))

    def take(self, cause: Cause) -> None:
        self.causes.append(cause)
        self._taken(advance(self.run, cause, moment(len(self.steps))))

    def _taken(self, step: Step) -> None:
        self.steps.append(step)
        self.waiting += [
            event
            for _, event in step.outgoing
            if isinstance(event, ApprovalWanted | InferenceRequested)
        ]

    def answer(self, which: int) -> None:
        """Has one of those answer who are to."""
        event = self.waiting.pop(which % len(self.waiting))
        number = int(event.request_id.rpartition("/")[2])
        if not isinstance(event, InferenceRequested):
            self.take(Decided(number=number, granted=number % 3 > 0, principal="bob"))
        elif event.task is Task.CHAT:
            self.take(answered(number, self.script[min(self.turns, len(self.script) - 1)]))
            self.turns += 1
        else:
            self.take(answered(number, _answer(event, number)))


def _answer(event: InferenceRequested, number: int) -> Completion | Refusal:
    if event.task is Task.SEARCH:
        return found(Hit(key={"id": number}, text="x" * number), Hit(key={"id": 0}))
    if number % 4 == 0:
        return refusal(Reason.PRIVILEGE_MISSING)
    return result(number) if event.task is Task.TOOL else said(f"number {number}")


def moment(step: int) -> datetime:
    return NOON + step * SECOND


def played(script: list[Completion | Refusal], order: list[int]) -> Play:
    play = Play(script)
    play.begin()
    for which in (*order, *[0] * 400):
        if not play.waiting:
            break
        play.answer(which)
    assert not play.waiting
    return play


def encoded(step: Step) -> list[tuple[str, bytes]]:
    return [(topic.name, event.to_bytes()) for topic, event in step.outgoing]


def folded(causes: list[Cause], *, crash: int | None = None) -> list[Step]:
    """Returns the steps of causes; at a crash the run is lost, and read as JSON text."""
    steps = [begin(begun(), AGENT, NOON)]
    for place, cause in enumerate(causes, start=1):
        run = steps[-1].run
        if place == crash:
            run = Run.from_json(run.to_json())
        steps.append(advance(run, cause, moment(place)))
    return steps


@given(SCRIPTS, ORDERS)
def test_every_run_ends_once(script: list[Completion | Refusal], order: list[int]) -> None:
    play = played(script, order)
    ends = [step.ended for step in play.steps if step.ended]
    assert play.run.ended
    assert len(ends) == 1
    assert (ends[0].completion is None) != (ends[0].refusal is None)


@given(SCRIPTS, ORDERS)
def test_no_more_is_under_way_than_may_be(
    script: list[Completion | Refusal], order: list[int]
) -> None:
    for step in played(script, order).steps:
        assert step.run.under_way <= LIMITS.parallel
        assert step.run.turns <= LIMITS.turns


@given(SCRIPTS, ORDERS, ORDERS)
def test_the_order_of_answers_changes_nothing_that_is_said(
    script: list[Completion | Refusal], order: list[int], other: list[int]
) -> None:
    one, two = played(script, order), played(script, other)
    assert one.run == two.run
    assert one.steps[-1].ended == two.steps[-1].ended


@given(SCRIPTS, ORDERS)
def test_every_request_has_an_id_of_its_own(
    script: list[Completion | Refusal], order: list[int]
) -> None:
    asked = [
        event.request_id
        for step in played(script, order).steps
        for _, event in step.outgoing
        if isinstance(event, InferenceRequested)
    ]
    assert len(asked) == len(set(asked))


@given(SCRIPTS, ORDERS)
def test_each_call_has_one_result_behind_it(
    script: list[Completion | Refusal], order: list[int]
) -> None:
    for step in played(script, order).steps:
        for _, event in step.outgoing:
            if isinstance(event, InferenceRequested):
                assert _calls(event.messages) == _results(event.messages)


def _calls(messages: tuple[Message, ...]) -> list[str | None]:
    return [call.id for message in messages for call in message.tool_calls]


def _results(messages: tuple[Message, ...]) -> list[str | None]:
    return [message.tool_call_id for message in messages if message.tool_call_id is not None]


@given(SCRIPTS, ORDERS, st.data())
def test_what_comes_again_changes_nothing(
    script: list[Completion | Refusal], order: list[int], data: st.DataObject
) -> None:
    play = played(script, order)
    place = data.draw(st.integers(1, len(play.causes)))
    for cause in play.causes[:place]:
        again = advance(play.steps[place].run, cause, moment(place))
        assert again == Step(run=play.steps[place].run)


@given(SCRIPTS, ORDERS)
def test_folding_the_same_causes_leads_to_the_same_bytes(
    script: list[Completion | Refusal], order: list[int]
) -> None:
    play = played(script, order)
    assert [encoded(step) for step in folded(play.causes)] == [encoded(step) for step in play.steps]


@given(SCRIPTS, ORDERS, st.data())
def test_a_run_that_was_lost_midway_goes_on_as_if_it_was_not(
    script: list[Completion | Refusal], order: list[int], data: st.DataObject
) -> None:
    play = played(script, order)
    again = folded(play.causes, crash=data.draw(st.integers(1, len(play.causes))))
    assert again == play.steps
    assert list(map(encoded, again)) == list(map(encoded, play.steps))


@given(SCRIPTS, ORDERS)
def test_a_run_is_the_same_again_as_json(
    script: list[Completion | Refusal], order: list[int]
) -> None:
    for step in played(script, order).steps:
        text = step.run.to_json()
        assert Run.from_json(text) == step.run
        assert Run.from_json(text).to_json() == text


@given(SCRIPTS, ORDERS, st.data())
def test_a_run_that_is_called_off_asks_nothing_more(
    script: list[Completion | Refusal], order: list[int], data: st.DataObject
) -> None:
    play = played(script, order)
    place = data.draw(st.integers(0, len(play.causes)))
    run = play.steps[place].run
    for cause, now in ((Cancelled(), moment(place)), (Expired(), NOON + HOUR)):
        step = advance(run, cause, now)
        assert (step.ended is None) == run.ended
        assert not any(isinstance(event, InferenceRequested) for _, event in step.outgoing)


@given(SCRIPTS, ORDERS)
def test_all_that_is_told_and_asked_is_the_callers(
    script: list[Completion | Refusal], order: list[int]
) -> None:
    told = 0
    for step in played(script, order).steps:
        for _, event in step.outgoing:
            said: Any = event
            assert said.tenant == "acme"
            if hasattr(said, "seq"):
                assert said.seq == told
                told += 1


CAUSES = st.one_of(
    st.builds(Answered, number=st.integers(0, 3), replied=events(InferenceReplied)),
    st.builds(Decided, number=st.integers(0, 3), granted=st.booleans()),
    st.just(Cancelled()),
    st.just(Expired()),
)


@given(events(InferenceRouted), INSTANTS, st.lists(st.tuples(CAUSES, INSTANTS), max_size=4))
def test_nothing_that_can_come_makes_a_step_raise(
    routed: InferenceRouted, at: datetime, came: list[tuple[Cause, datetime]]
) -> None:
    step = begin(Begun(routed=routed, reply_to_agents="reply.v1.agents"), AGENT, at)
    for cause, now in came:
        step = advance(step.run, cause, now)
        for topic, event in step.outgoing:
            assert topic.key(event) is not None
            assert event.to_bytes()
        assert Run.from_json(step.run.to_json()) == step.run


@given(events(InferenceReplied), st.integers(0, 2))
def test_any_answer_to_a_run_that_waits_for_it_is_taken(
    replied: InferenceReplied, number: int
) -> None:
    run = begin(begun(), AGENT, NOON).run
    if number:
        turn = said("", tool_calls=tuple(ToolCall(id="", name=n, arguments=a) for n, a in RIGHT))
        run = advance(run, answered(0, turn), NOON).run
    step = advance(run, Answered(number=number, replied=replied), NOON)
    assert step.ended is None or isinstance(step.ended, Ended)
    assert all(isinstance(each, Outgoing) for each in step.outgoing)
    assert json.loads(step.run.to_json())
    assert replace(step.run) == Run.from_json(step.run.to_json())
