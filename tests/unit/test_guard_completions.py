"""Whole answers: what the caller gets, and what is kept."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from schemas.events import Alternative, Judgement, Reason, Refusal, TokenLogprob, ToolCall
from streams.guards import Released, guard_completion
from streams.guards.found import Detector
from streams.guards.kinds import GUARDS
from tests.unit.guarding import (
    ADA,
    BOB,
    MASK,
    RESTORE,
    SEAL,
    Policies,
    answer,
    breaking,
    passed,
    pii,
    policies,
    replied,
    routed,
    said,
    sealed,
    whole,
)

VALUES = {"<EMAIL_ADDRESS_1>": ADA, "<EMAIL_ADDRESS>": ADA}
ASKED = sealed(VALUES)
WORDS = policies({"type": "keywords", "words": ["forbidden"]})


def released(content: str, *arguments: str, held_to: Policies = RESTORE) -> Released:
    done = whole(answer(content, *arguments), ASKED, held_to)
    assert isinstance(done, Released), done
    return done


def test_a_mail_goes_out_masked_and_comes_back_as_it_was() -> None:
    guarded = passed(said(f"mail {ADA}"))
    assert ADA not in repr(guarded.request)
    echo = answer(guarded.request.messages[0].content)
    assert replied(echo, routed(guarded), RESTORE).content == f"mail {ADA}"


def test_what_a_model_gives_away_is_masked_where_it_is_kept_and_shown_to_the_caller() -> None:
    done = released(f"It is {BOB}.")
    assert done.reply.content == f"It is {BOB}."
    assert done.kept.content == "It is [EMAIL_ADDRESS]."
    assert not done.cacheable


def test_what_a_model_gives_away_is_masked_for_the_caller_where_the_policy_says_so() -> None:
    done = released(f"It is {BOB}.", held_to=MASK)
    assert done.reply.content == done.kept.content == "It is [EMAIL_ADDRESS]."


def test_what_a_model_says_again_is_kept_under_its_placeholder() -> None:
    done = released(f"It is {ADA}.")
    assert done.reply.content == f"It is {ADA}."
    assert done.kept.content == "It is <EMAIL_ADDRESS_1>."


def test_the_callers_own_text_is_not_taken_for_the_models() -> None:
    blocking = [*policies(pii(EMAIL_ADDRESS="block"))]
    assert released("To <EMAIL_ADDRESS_1>", held_to=blocking).reply.content == f"To {ADA}"


def test_arguments_stay_json_with_the_same_keys() -> None:
    arguments = json.dumps({BOB: 1, "to": ["<EMAIL_ADDRESS_1>", f'"{BOB}"'], "n": 1.5})
    done = released("", arguments, held_to=MASK)
    [call] = done.reply.tool_calls
    assert json.loads(call.arguments) == {BOB: 1, "to": [ADA, '"[EMAIL_ADDRESS]"'], "n": 1.5}
    assert (call.id, call.name) == ("call_0", "send")


def test_an_answer_that_is_json_stays_json() -> None:
    asked = sealed({"<PERSON_1>": 'Ada "the" L'})
    done = replied(answer('{"who": "<PERSON_1>", "card": 4111111111111111}'), asked, MASK)
    assert json.loads(done.content) == {"who": 'Ada "the" L', "card": "[CREDIT_CARD]"}


def test_ids_that_look_like_something_stay_what_they_are() -> None:
    completion = replace(answer(""), tool_calls=(ToolCall(id=ADA, name=ADA, arguments="{}"),))
    assert replied(completion, ASKED, RESTORE) == completion


def test_log_probabilities_do_not_say_what_is_masked() -> None:
    token = TokenLogprob(token=BOB, logprob=-0.1, top=(Alternative(token=BOB, logprob=-0.1),))
    done = whole(replace(answer(BOB), logprobs=(token,)), ASKED, MASK)
    assert isinstance(done, Released)
    assert BOB not in repr(done)
    untouched = whole(replace(answer("x"), logprobs=(token,)), ASKED, MASK)
    assert isinstance(untouched, Released)
    assert untouched.kept.logprobs == (token,)


def test_another_tenants_seal_does_not_open() -> None:
    theirs = replace(ASKED, request=replace(ASKED.request, tenant="other"))
    refusal = guard_completion(answer("<EMAIL_ADDRESS_1>"), theirs, RESTORE, SEAL)
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.POLICY_FAILED


def test_a_forbidden_word_is_refused_and_not_quoted() -> None:
    refusal = whole(answer("This is Forbidden."), ASKED, WORDS)
    assert isinstance(refusal, Refusal)
    assert (refusal.reason, refusal.rule) == (
        Reason.POLICY_DENIED,
        "main.tests.policy/keywords",
    )
    assert "forbidden" not in refusal.message.lower()


def test_a_forbidden_word_in_arguments_is_refused_too() -> None:
    assert isinstance(whole(answer("", '{"a": "forbidd\\u0065n"}'), ASKED, WORDS), Refusal)


def test_a_guard_that_breaks_lets_nothing_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(GUARDS, "keywords", lambda rule: Detector(find=breaking))
    held_to = policies({"type": "keywords", "words": ["x"]})
    refusal = whole(answer(f"mail {ADA}"), ASKED, held_to)
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.POLICY_FAILED
    out, err = capsys.readouterr()
    assert "guard failed" in out + err
    assert ADA not in out + err + repr(refusal)


def test_a_guard_that_breaks_and_may_lets_pass_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(GUARDS, "keywords", lambda rule: Detector(find=breaking))
    held_to = policies({"type": "keywords", "words": ["x"], "fail_open": True})
    done = released(ADA, held_to=held_to)
    assert done.judgements == (
        Judgement(
            rule="main.tests.policy/keywords", stage="output", verdict="ALLOW", found={"FAILED": 1}
        ),
    )


def test_what_is_only_evaluated_changes_nothing_and_is_recorded() -> None:
    held_to = policies(
        {**pii(EMAIL_ADDRESS="block"), "shadow": True},
        {"type": "keywords", "words": ["forbidden"], "shadow": True},
    )
    done = released(f"forbidden {BOB} {BOB}", held_to=held_to)
    assert done.reply == done.kept == answer(f"forbidden {BOB} {BOB}")
    assert [(each.verdict, each.found, each.shadow) for each in done.judgements] == [
        ("DENY", {"EMAIL_ADDRESS": 2}, True),
        ("DENY", {"KEYWORD": 1}, True),
    ]


def test_what_was_masked_is_counted_by_its_kind() -> None:
    done = released(f"{BOB} 4111 1111 1111 1111", f'{{"to": "{BOB}"}}', held_to=MASK)
    assert [(each.stage, each.verdict, each.found) for each in done.judgements] == [
        ("output", "MASK", {"EMAIL_ADDRESS": 1, "CREDIT_CARD": 1}),
        ("tools", "MASK", {"EMAIL_ADDRESS": 1}),
    ]


@pytest.mark.parametrize("rule", ["judge", "function", "http"])
def test_what_somebody_else_must_judge_does_not_pass_unjudged(rule: str) -> None:
    told = {
        "function": {"function": "main.tests.judge"},
        "http": {"connection": "main.tests.service"},
        "judge": {"endpoint": "main.tests.judge"},
    }[rule]
    held_to = policies({"type": rule, "on": ["output"], **told})
    refusal = whole(answer("fine"), ASKED, held_to)
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.POLICY_FAILED
    for passing in ({"fail_open": True}, {"shadow": True}):
        let = policies({"type": rule, "on": ["output"], **told, **passing})
        assert released("fine", held_to=let).reply.content == "fine"


def test_without_policies_and_anything_withheld_an_answer_is_the_same() -> None:
    completion = answer("<EMAIL_ADDRESS_1>")
    done = guard_completion(completion, replace(ASKED, sealed=None), [], SEAL)
    assert done == Released(reply=completion, kept=completion)
