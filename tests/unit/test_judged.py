"""What is held, and what becomes of it when others have judged it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.events import (
    Charge,
    Entry,
    InferenceHeld,
    InferenceJudged,
    Judgement,
    Message,
    Reason,
    Refusal,
    Role,
)
from schemas.topics import (
    APPROVAL_WANTED,
    INFERENCE_HELD,
    INFERENCE_REFUSED,
    INFERENCE_ROUTED,
    INFERENCE_WEIGHED,
    USAGE_COUNTED,
    Outgoing,
)
from streams.gateway.admit import admit
from streams.gateway.desk import Desk
from streams.gateway.holding import asking, held_answer, held_request, sensitive
from streams.gateway.judged import judged
from streams.gateway.judging import Firsts, Mark
from streams.gateway.release import release
from streams.guards import (
    Guarded,
    Released,
    answer_texts,
    guard_completion,
    guard_request,
    request_texts,
    with_answer_texts,
    with_request_texts,
)
from tests.unit import guarding, holding
from tests.unit.asking import NOON, ask, asked, only, routed
from tests.unit.guarding import SEAL, policies, said
from tests.unit.holding import JUDGE, POLICY, VIEW, answer, request, told, verdict

DESK = Desk()
CALLER = "reply.v1.acme"
RULE = f"{POLICY}/judge"
NO = Refusal(reason=Reason.POLICY_DENIED, message="no", rule=RULE)
ASKS = {"type": "keywords", "words": ["wire transfer"], "action": "ask"}


def after(event: InferenceJudged) -> list[Outgoing]:
    return list(judged(event, VIEW, NOON, DESK))


def test_a_request_that_may_pass_goes_on_its_route_with_what_was_said_of_it() -> None:
    allowed = Judgement(rule=RULE, stage="input", verdict="ALLOW")
    [(topic, event)] = after(verdict(request(), judgements=(allowed,)))
    assert topic.name.startswith(INFERENCE_ROUTED.name)
    assert event.judgements == (allowed,)  # type: ignore[attr-defined]


def test_a_request_that_asks_of_shared_limits_goes_there_first() -> None:
    charge = Charge(counter="c", home="c", unit="requests", amount=1)
    [(topic, event)] = after(verdict(request(asks=(charge,))))
    assert topic is INFERENCE_WEIGHED
    assert event.asks == (charge,)  # type: ignore[attr-defined]


def test_a_request_that_may_not_pass_is_refused_once_and_gives_back_what_it_reserved() -> None:
    charge = Charge(counter="p/r/requests/1/x", home="acme", unit="requests", amount=1)
    held = request()
    assert held.routed is not None
    held = replace(held, routed=replace(held.routed, charge_id="c", charges=(charge,)))
    outgoing = after(verdict(held, refusal=NO))
    [counted] = only(outgoing, USAGE_COUNTED)
    assert counted.entry is Entry.SETTLED
    assert [each.amount for each in counted.charges] == [0]
    [refused] = only(outgoing, INFERENCE_REFUSED)
    assert refused.refusal == NO
    [reply] = told(outgoing, CALLER)
    assert reply.refusal == NO
    assert not only(outgoing, INFERENCE_ROUTED)


def test_what_a_service_masks_goes_on_masked() -> None:
    [(_, event)] = after(verdict(request(), texts=("hidden",)))
    assert [each.content for each in event.request.messages] == ["hidden"]  # type: ignore[attr-defined]
    [reply] = told(after(verdict(answer("secret plans"), texts=("plans",))), CALLER)
    assert reply.completion is not None
    assert reply.completion.content == "plans"


def test_an_answer_that_may_not_pass_is_withheld_and_its_tokens_count() -> None:
    outgoing = after(verdict(answer("secret plans"), refusal=NO))
    [reply] = told(outgoing, CALLER)
    assert reply.refusal == NO
    assert reply.completion is None
    [row] = [each.event for each in outgoing if each.topic.name == "inference.recorded.v1"]
    assert (row.prompt_tokens, row.completion_tokens, row.response) == (3, 2, None)  # type: ignore[attr-defined]
    assert "secret plans" not in str(outgoing)


def test_who_asks_for_a_person_gets_one_and_the_question_tells_nothing_of_the_text() -> None:
    held = request(routed=routed(request=ask(endpoint=holding.ENDPOINT)))
    [wanted] = only(after(verdict(held, approvals=(RULE,))), APPROVAL_WANTED)
    assert wanted.rules == (RULE,)
    assert wanted.deciders == (holding.ENDPOINT, POLICY)
    assert "hello" not in wanted.question
    assert "ann" in wanted.question
    assert wanted.until == held.until


def test_rules_of_two_policies_are_decided_by_who_manages_the_endpoint() -> None:
    held = request(rules=(), approvals=("a.b.c/x", "a.b.d/y"))
    [wanted] = only([asking(held, NOON)], APPROVAL_WANTED)
    assert wanted.deciders == (holding.ENDPOINT,)


def test_a_request_is_held_before_its_route_and_an_answer_before_its_reply() -> None:
    [(topic, held)] = admit(asked(ask(endpoint=holding.ENDPOINT)), VIEW, NOON, DESK)
    assert topic is INFERENCE_HELD
    assert (held.stage, held.rules) == ("input", (RULE,))  # type: ignore[attr-defined]
    done = answer().completed
    assert done is not None
    [(topic, held)] = release(done, VIEW, NOON, DESK)
    assert topic is INFERENCE_HELD
    assert (held.stage, held.rules) == ("output", (RULE,))  # type: ignore[attr-defined]
    assert not only(release(replace(done, judgements=()), VIEW, NOON, DESK), INFERENCE_HELD)


def test_nothing_is_held_where_nobody_is_to_be_asked() -> None:
    assert held_request(routed(), policies(guarding.pii(PERSON="mask")), NOON, decision="d") is None


def test_an_answer_is_not_held_again_once_it_was_judged() -> None:
    held = answer().completed
    assert held is not None
    assert held.completion is not None
    released = Released(reply=held.completion, kept=held.completion)
    assert held_answer(held, released, VIEW, NOON) is not None
    assert held_answer(replace(held, judgements=()), released, VIEW, NOON) is None


def test_a_wait_has_the_same_name_whenever_its_cause_is_read() -> None:
    later = replace(routed(), routed_at=holding.later(5))
    names = {
        made.event.held_id  # type: ignore[attr-defined]
        for going in (routed(), later)
        for made in [held_request(going, policies(JUDGE), NOON, decision="d")]
        if made
    }
    assert len(names) == 1


def test_what_wants_approval_here_passes_only_where_somebody_waits_for_it() -> None:
    wanted, rules = said("a wire transfer, please"), policies(ASKS)
    assert isinstance(guard_request(wanted, rules, SEAL), Refusal)
    guarded = guard_request(wanted, rules, SEAL, waits=True)
    assert isinstance(guarded, Guarded)
    assert guarded.approvals == ("main.tests.policy/keywords",)
    assert guarded.request == wanted
    assert [each.verdict for each in guarded.judgements] == ["ASK"]


def test_an_answer_that_wants_approval_here_is_released_with_that() -> None:
    going = guarding.routed(Guarded(request=said("hi")))
    rules = policies(ASKS, guarding.pii(EMAIL_ADDRESS="mask"))
    text = f"a wire transfer to {guarding.ADA}"
    assert isinstance(guard_completion(guarding.answer(text), going, rules, SEAL), Refusal)
    released = guard_completion(guarding.answer(text), going, rules, SEAL, waits=True)
    assert isinstance(released, Released)
    assert released.approvals == ("main.tests.policy/keywords",)
    assert guarding.ADA not in released.kept.content
    assert {each.verdict for each in released.judgements} == {"ASK", "MASK"}


@pytest.mark.parametrize("stage", ["input", "output"])
def test_what_nobody_waits_for_does_not_pass_a_rule_that_others_answer(stage: str) -> None:
    rules = policies({**JUDGE, "on": [stage]})
    if stage == "input":
        assert isinstance(guard_request(said("x"), rules, SEAL), Refusal)
        assert isinstance(guard_request(said("x"), rules, SEAL, waits=True), Guarded)
    else:
        going = guarding.routed(Guarded(request=said("hi")))
        done = guarding.answer("x")
        assert isinstance(guard_completion(done, going, rules, SEAL), Refusal)
        assert isinstance(guard_completion(done, going, rules, SEAL, waits=True), Released)


def test_what_holds_for_one_caller_is_kept_for_nobody() -> None:
    assert sensitive([Judgement(rule=RULE, stage="output", verdict="ASK")])
    assert sensitive([Judgement(rule=RULE, stage="output", verdict="MASK")])
    assert not sensitive([Judgement(rule=RULE, stage="output", verdict="ALLOW")])
    assert not sensitive([Judgement(rule=RULE, stage="output", verdict="MASK", shadow=True)])


TURNS = st.lists(st.sampled_from(["", "a", "b c"]), max_size=5)


@given(turns=TURNS)
def test_texts_that_are_put_back_are_what_they_were(turns: list[str]) -> None:
    messages = tuple(Message(role=Role.USER, content=turn) for turn in turns)
    before = ask(messages=messages)
    texts = request_texts(before)
    assert with_request_texts(before, texts) == before
    others = tuple(f"<{text}>" for text in texts)
    assert request_texts(with_request_texts(before, others)) == others
    done = guarding.answer(*(turns or [""]))
    assert with_answer_texts(done, answer_texts(done)) == done
    with pytest.raises(ValueError, match="keeps the number"):
        with_request_texts(before, (*texts, "more"))


@given(offsets=st.permutations(list(range(5))), again=st.lists(st.integers(0, 4)))
def test_of_several_verdicts_on_one_thing_the_first_on_the_log_counts(
    offsets: list[int], again: list[int]
) -> None:
    firsts = Firsts()
    mark = Mark("held", 0.0)
    for offset in range(5):
        firsts.first(mark, offset)
    assert {firsts.first(mark, offset) for offset in (*offsets, *again)} == {0}


def test_an_event_that_holds_nothing_is_no_decision() -> None:
    empty = InferenceHeld(
        held_id="h", tenant="acme", request_id="r", stage="input", held_at=NOON, until=NOON
    )
    with pytest.raises(ValueError, match="neither"):
        after(verdict(empty))
