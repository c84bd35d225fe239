"""What names the decision on a record goes along with it, into its row and those of its tries."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from decimal import Decimal

import pytest

from schemas.events import (
    Completion,
    FinishReason,
    InferenceCompleted,
    InferenceRecorded,
    InferenceRefused,
    InferenceRouted,
    InferenceWeighed,
    Reason,
    Refusal,
    Usage,
)
from schemas.topics import (
    INFERENCE_ATTEMPTED,
    INFERENCE_RECORDED,
    INFERENCE_REFUSED,
    INFERENCE_ROUTED,
    REPLY,
    Outgoing,
)
from streams.gateway.asked import Asked
from streams.gateway.desk import Desk
from streams.gateway.holding import held_answer, held_request
from streams.gateway.judged import judged
from streams.gateway.limits.counters import Counters
from streams.gateway.limits.weigh import NOTHING
from streams.gateway.release import answer
from streams.gateway.rows import record_refusal
from streams.gateway.sending import sent
from streams.gateway.weighed import Heard, pass_on
from streams.guards import Released
from tests.unit import holding
from tests.unit.asking import FIRST, NOON, SECOND, VIEW, ask, asked, completed, only, routed
from tests.unit.deciding import admit, release
from tests.unit.guarding import policies
from tests.unit.limiting import Gateway, routed_with, rule, view_with

ANSWER = Completion(
    model="m", content="hi", finish_reason=FinishReason.STOP, usage=Usage(prompt_tokens=3)
)
NO = Refusal(reason=Reason.POLICY_DENIED, message="no")
DOWN = Refusal(reason=Reason.PROVIDER_UNAVAILABLE, message="down")


def at(offset: int, partition: int = 0, **changes: object) -> Asked:
    """Returns one and the same request as it lies at a place of the log."""
    place = f"inference.requested.v1/{partition}/{offset}"
    return replace(asked(ask(**changes)), place=place)


def admitted(given: Asked) -> InferenceRouted:
    [event] = only(admit(given, VIEW, NOON), INFERENCE_ROUTED)
    assert isinstance(event, InferenceRouted)
    return event


def row_of(outgoing: Iterable[Outgoing]) -> InferenceRecorded:
    """Returns the one row that comes of what goes out."""
    outgoing = list(outgoing)
    rows = only(outgoing, INFERENCE_RECORDED)
    for refused in only(outgoing, INFERENCE_REFUSED):
        rows += only(record_refusal(refused, VIEW, NOON), INFERENCE_RECORDED)
    [row] = rows
    assert isinstance(row, InferenceRecorded)
    return row


def row_of_answer(given: Asked) -> InferenceRecorded:
    done = completed(routed=admitted(given), completion=ANSWER)
    return row_of(release(done, VIEW, NOON))


def row_of_refusal(given: Asked) -> InferenceRecorded:
    gone = replace(given, request=replace(given.request, endpoint="main.tests.gone"))
    return row_of(admit(gone, VIEW, NOON))


def row_of_kept(given: Asked) -> InferenceRecorded:
    return row_of(answer(admitted(given), ANSWER, VIEW, NOON, Desk()))


Recording = Callable[[Asked], InferenceRecorded]
ROWS: list[Recording] = [row_of_answer, row_of_kept, row_of_refusal]


@pytest.mark.parametrize("row", ROWS)
def test_one_id_on_two_records_is_two_rows_and_on_one_that_is_read_again_one(
    row: Recording,
) -> None:
    first, again, other, elsewhere = (row(each) for each in (at(7), at(7), at(8), at(7, 1)))
    assert {each.request_id for each in (first, again, other, elsewhere)} == {"request"}
    assert first == again
    assert len({first.row_id, other.row_id, elsewhere.row_id}) == 3


@pytest.mark.parametrize("row", ROWS)
def test_a_row_is_named_as_the_ledger_names_the_decision(
    row: Recording,
) -> None:
    assert row(at(7)).row_id == at(7).charge_id


def test_a_record_that_was_put_here_twice_has_no_row_of_its_own() -> None:
    again = replace(at(9), replayed=True, moved_again=True)
    assert list(admit(again, VIEW, NOON)) == []


def test_tries_of_two_requests_under_one_id_are_told_apart_and_so_are_their_copies() -> None:
    ids = [
        each.attempt_id
        for given in (at(7), at(8))
        for onward in sent(admitted(given), [SECOND])
        for done in [completed(routed=onward.event, completion=ANSWER)]
        for each in only(release(done, VIEW, NOON), INFERENCE_ATTEMPTED)
    ]
    first, second = at(7).charge_id, at(8).charge_id
    assert ids == [
        f"{first}/0",
        f"{first}/0/copy:second",
        f"{second}/0",
        f"{second}/0/copy:second",
    ]


def test_the_next_try_is_of_the_same_decision() -> None:
    failed = completed(routed=admitted(at(7)), refusal=DOWN)
    [again] = only(release(failed, VIEW, NOON), INFERENCE_ROUTED)
    assert (again.attempt, again.decision_id) == (1, at(7).charge_id)
    [tried] = only(release(completed(routed=again), VIEW, NOON), INFERENCE_ATTEMPTED)
    assert tried.attempt_id == f"{at(7).charge_id}/1"


@pytest.mark.parametrize("most", [1, 0])
def test_limits_that_tenants_share_let_pass_or_refuse_what_was_decided_on(most: int) -> None:
    view = view_with(rule("service", per="service", most=most))
    weighed = Gateway(view).asks()
    assert not isinstance(weighed, Refusal)
    onward = replace(routed_with(weighed, view), decision_id="decision")
    asks = InferenceWeighed(routed=onward, asks=weighed.asks, weighed_at=NOON)
    heard = Heard(weighed=asks, counters=Counters(shared=True))
    found = [
        event.decision_id
        for _, event in pass_on(heard, view, NOON, Desk())
        if isinstance(event, InferenceRefused | InferenceRouted)
    ]
    assert found == ["decision"]


@pytest.mark.parametrize("refusal", [None, NO])
def test_what_others_judged_goes_on_or_is_refused_as_what_was_decided_on(
    refusal: Refusal | None,
) -> None:
    going = routed(request=ask(endpoint=holding.ENDPOINT), decision_id="decision")
    waits = held_request(going, policies(holding.JUDGE), NOON, decision="decision")
    assert waits is not None
    event = holding.verdict(waits.event, refusal=refusal)  # type: ignore[arg-type]
    outgoing = list(judged(event, holding.VIEW, NOON, Desk()))
    found = [*only(outgoing, INFERENCE_ROUTED), *only(outgoing, INFERENCE_REFUSED)]
    assert [each.decision_id for each in found] == ["decision"]


def test_two_answers_under_one_id_are_asked_about_each_for_itself() -> None:
    def waits(decision: str) -> str:
        going = routed(request=ask(endpoint=holding.ENDPOINT), decision_id=decision)
        released = Released(reply=ANSWER, kept=ANSWER)
        done = completed(routed=going, completion=ANSWER)
        made = held_answer(done, released, holding.VIEW, NOON)
        assert made is not None
        name: str = made.event.held_id  # type: ignore[attr-defined]
        return name

    assert waits("one") == waits("one") != waits("other")


def test_what_was_decided_on_before_decisions_had_names_is_named_after_its_request() -> None:
    done: InferenceCompleted = completed(routed=routed(route=FIRST), completion=ANSWER)
    outgoing = list(release(done, VIEW, NOON))
    [tried] = only(outgoing, INFERENCE_ATTEMPTED)
    assert (row_of(outgoing).row_id, tried.attempt_id) == ("request", "request/0")
    refused = InferenceRefused(request=ask(), refusal=NO, refused_at=NOON)
    [found] = only(record_refusal(refused, VIEW, NOON), INFERENCE_RECORDED)
    assert found.row_id == "request"


def test_an_answer_costs_its_caller_what_its_row_says_and_a_kept_one_nothing() -> None:
    view = view_with(input=2)
    on_route = routed_with(NOTHING, view)
    whole = list(release(completed(routed=on_route, completion=ANSWER), view, NOON))
    kept = list(answer(on_route, ANSWER, view, NOON, Desk()))
    costs = []
    for outgoing in (whole, kept):
        [replied] = only(outgoing, REPLY)
        costs.append(replied.cost_usd)
        assert row_of(outgoing).cost == costs[-1]
    assert costs == [Decimal("0.000006"), 0]
