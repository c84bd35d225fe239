"""Asking from the command line: what is said, and what a person hears of a refusal."""

from __future__ import annotations

import argparse
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from schemas.events import Attempt, Reason, Refusal
from streams.ask import ADVICE, labels, main, tag, told
from streams.client import RequestRefused
from tests.unit.asking import FIRST

REFUSAL = Refusal(reason=Reason.REQUEST_INVALID, message="messages is empty")
LIMITED = Refusal(
    reason=Reason.LIMIT_EXCEEDED,
    message="ann uses 60 of 60 requests",
    rule="main.default.fair/per-minute",
    limit="60",
    used="60",
    retry_after_ms=12_400,
)


def refused(refusal: Refusal, *tried: Attempt) -> RequestRefused:
    return RequestRefused("request", refusal, tried)


def test_a_refusal_by_a_limit_tells_the_rule_how_much_is_used_and_when_to_try_again() -> None:
    assert list(told(refused(LIMITED))) == [
        "rule: main.default.fair/per-minute",
        "used: 60 of 60",
        "try again: in 13 s",
        "see what is left: tessera limits",
    ]


def test_a_program_has_the_same_as_numbers() -> None:
    found = refused(replace(LIMITED, limit="0.45", used="0.3"))
    assert (found.limit, found.used) == (Decimal("0.45"), Decimal("0.3"))
    assert found.rule == "main.default.fair/per-minute"
    assert found.retry_after == timedelta(seconds=12.4)
    nothing = refused(REFUSAL)
    assert (nothing.rule, nothing.limit, nothing.used, nothing.retry_after) == (None,) * 4


@pytest.mark.parametrize(
    ("wait_ms", "said"),
    [
        (1, "1 s"),
        (1001, "2 s"),
        (119_000, "119 s"),
        (120_000, "2 min"),
        (3_600_001, "61 min"),
        (7_200_000, "2 h"),
        (30 * 86_400_000, "30 days"),
    ],
)
def test_a_wait_is_told_in_units_of_people_and_never_as_too_short(wait_ms: int, said: str) -> None:
    assert f"try again: in {said}" in told(refused(replace(LIMITED, retry_after_ms=wait_ms)))


def test_a_refusal_without_more_to_tell_tells_no_more() -> None:
    assert list(told(refused(REFUSAL))) == []


def test_what_was_tried_before_is_told() -> None:
    failed = Attempt(route=FIRST, refusal=replace(REFUSAL, reason=Reason.PROVIDER_TIMEOUT))
    assert list(told(refused(REFUSAL, failed))) == ["tried before: first (PROVIDER_TIMEOUT)"]


@pytest.mark.parametrize("reason", ADVICE)
def test_an_advice_names_the_policy_of_the_rule(reason: Reason) -> None:
    *_, advice = told(refused(replace(LIMITED, reason=reason)))
    assert "{" not in advice
    assert ("{policy}" in ADVICE[reason]) == advice.endswith(" main.default.fair")


def test_a_tag_is_a_name_and_a_value_which_may_hold_anything() -> None:
    assert tag("team=blue") == ("team", "blue")
    assert tag("note=a=b") == ("note", "a=b")
    assert tag("note=") == ("note", "")


@pytest.mark.parametrize("text", ["team", "=blue", ""])
def test_what_is_no_tag_is_told_how_one_is_written(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="NAME=VALUE"):
        tag(text)


def test_a_session_is_a_tag_which_others_stand_beside() -> None:
    team = [("team", "red"), ("team", "blue")]
    assert labels(team, "trip-7") == {"team": "blue", "session": "trip-7"}
    assert labels(team, None) == {"team": "blue"}
    assert labels([], "trip-7") == {"session": "trip-7"}


def test_help_teaches(capsys: Any) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    for word in ("--session NAME", "--tag NAME=VALUE", "examples:"):
        assert word in said
