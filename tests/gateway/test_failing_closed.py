"""A guard that breaks inside a gateway lets nothing pass and tells nothing, unless its rule may."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from decimal import Decimal

import pytest

from schemas.events import Outcome, Reason
from schemas.topics import AUDIT_RECORDED, DEAD_LETTERS, INFERENCE_RECORDED, INFERENCE_REFUSED
from tests.gateway.breaking import RAISES, TIMES_OUT
from tests.gateway.town import (
    IN,
    Heard,
    Town,
    connection,
    endpoint,
    masks,
    one_for_each_partition,
    policy,
    tenant,
    way,
)
from tests.gateway.upstreams import says

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

# Some of them on the gateway whose guard can break, the others not.
TENANTS = one_for_each_partition("closed")
MAIL, MARK = "ottilie.brand@closed.example.com", "<EMAIL_ADDRESS_1>"
RULE = f"{IN}.closed/personal"
# Takes for ever to find out that it is not there.
ENDLESS = {"type": "regex", "name": "endless", "patterns": [r"(?:a|aa)+[cd]$"] * 5}


@pytest.fixture(scope="module", autouse=True)
def defined(town: Town) -> None:
    up = town.upstreams
    broken = says(lambda text: [RAISES[:7], RAISES[7:]], gap_s=0.05)
    up.scripts.update({"good": says(lambda text: ["go", "od"]), "says what breaks": broken})
    town.define(
        *map(tenant, TENANTS),
        connection("closed", up),
        connection("closed-answers", up),
        policy("closed", masks("EMAIL_ADDRESS")),
        policy("closed-answers", masks("EMAIL_ADDRESS", on=["output"])),
        policy("closed-endless", ENDLESS),
        policy("open", masks("EMAIL_ADDRESS", fail_open=True)),
        endpoint("closed", way("a", "closed", "good"), policies=[f"{IN}.closed"]),
        endpoint("closed-endless", way("a", "closed", "good"), policies=[f"{IN}.closed-endless"]),
        endpoint("open", way("a", "closed", "good"), policies=[f"{IN}.open"]),
        endpoint(
            "closed-answers",
            way("a", "closed-answers", "says what breaks"),
            policies=[f"{IN}.closed-answers"],
        ),
    )


async def everywhere(town: Town, name: str, text: str, *, stream: bool) -> dict[str, Heard]:
    """Asks for every tenant; returns what each heard."""
    async with AsyncExitStack() as opened:
        callers = [await opened.enter_async_context(town.caller(each)) for each in TENANTS]
        found = await asyncio.gather(*(each.ask(name, text, stream=stream) for each in callers))
    return dict(zip(TENANTS, found, strict=True))


def refused(found: dict[str, Heard]) -> list[Heard]:
    """Returns who asked the gateway whose guard broke; the others were answered."""
    failed = [each for each in found.values() if each.reason is Reason.POLICY_FAILED]
    assert 0 < len(failed) < len(found)
    assert all(each.text for each in found.values() if each not in failed)
    return failed


async def untold(town: Town, text: bytes) -> None:
    """Asserts that a text is in no row, audit, letter, log or span."""
    for topic in (AUDIT_RECORDED, DEAD_LETTERS, INFERENCE_RECORDED, INFERENCE_REFUSED):
        for record in await asyncio.to_thread(town.bus.records, topic.name):
            assert text not in (record.value or b"") + repr(record.headers).encode()
    assert text not in town.logs()
    assert text not in town.spans.raw


@pytest.mark.parametrize(
    ("words", "error"), [(RAISES, b"RuntimeError"), (TIMES_OUT, b"TimeoutError")]
)
async def test_what_a_guard_breaks_over_is_refused_and_told_to_nobody(
    town: Town, words: str, error: bytes
) -> None:
    sent = len(town.upstreams.to("closed"))
    found = await everywhere(town, "closed", f"{words} with {MAIL}", stream=True)
    failed = refused(found)
    for heard in failed:
        assert heard.refusal
        assert heard.refusal.rule == RULE
        assert "could not judge" in heard.refusal.message
        assert words not in heard.refusal.message
        assert heard.parts == []
        row = await asyncio.to_thread(town.row, heard.request.request_id)
        assert (row.outcome, row.status, row.rule) == (Outcome.REFUSED, 503, RULE)
        assert (row.cost, row.attempts) == (Decimal(0), 0)
        assert words not in row.request
    calls = town.upstreams.to("closed")[sent:]
    assert len(calls) == len(found) - len(failed)
    assert all(MARK.encode() in each.raw and b"ottilie" not in each.raw for each in calls)
    await untold(town, b"ottilie")
    lines = [line for line in town.logs().splitlines() if b"guard failed" in line]
    assert any(error in line and RULE.encode() in line for line in lines)
    assert not any(words.encode() in line for line in lines)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_a_guard_breaks_over_is_not_shown(town: Town, stream: bool) -> None:
    failed = refused(await everywhere(town, "closed-answers", "hi", stream=stream))
    for heard in failed:
        assert RAISES not in "".join(part.content for part in heard.parts)
        row = await asyncio.to_thread(town.row, heard.request.request_id)
        assert (row.status, row.rule) == (503, f"{IN}.closed-answers/personal")
        assert RAISES not in (row.response or "")
        # What the provider did is paid for, said or not.
        assert row.completion_tokens == 3


async def test_a_rule_that_takes_for_ever_lets_nothing_pass(town: Town) -> None:
    sent = len(town.upstreams.to("closed"))
    async with town.caller(TENANTS[0]) as caller:
        heard = await caller.ask("closed-endless", "a" * 60 + "cx", MAIL)
    assert heard.refusal
    assert (heard.reason, heard.refusal.rule) == (
        Reason.POLICY_FAILED,
        f"{IN}.closed-endless/endless",
    )
    assert len(town.upstreams.to("closed")) == sent
    await untold(town, b"ottilie")


async def test_a_rule_that_may_fail_lets_pass_what_it_breaks_over_and_its_row_says_so(
    town: Town,
) -> None:
    found = await everywhere(town, "open", f"{RAISES} all the same", stream=False)
    assert {each.text for each in found.values()} == {"good"}
    rows = [await asyncio.to_thread(town.row, each.request.request_id) for each in found.values()]
    failed = [row for row in rows if "FAILED" in str(row.judgements)]
    assert 0 < len(failed) < len(rows)
