"""Streams that break, fall silent or crawl, and others beside them that do not mind."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator
from itertools import pairwise
from math import inf

import pytest

from schemas.events import Outcome, Reason
from tests.contract.misbehaving import delivered, misbehaviours, slowly
from tests.contract.openai_servers import chunks, frames
from tests.contract.scripted_server import chunk
from tests.gateway.town import Caller, Heard, Town, connection, endpoint, tenant, way
from tests.gateway.upstreams import GAP_S, GOOD, good_once, says
from tests.harness import eventually, soon

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

TENANT = "streams"
SIXTY = " ".join(f"word{number}" for number in range(60))
FRAMES = 64
# Until this is set, whoever asks a provider that hangs waits.
OVER = threading.Event()
BUSY = {"error": {"message": "slow down", "type": "rate_limit_error", "code": 429}}


@pytest.fixture(scope="module", autouse=True)
def defined(town: Town) -> None:
    town.upstreams.scripts.update(
        {
            "good": GOOD,
            "hangs until it is over": good_once(OVER),
            "limited-midway": delivered(lambda _: frames([chunk("half a"), BUSY]), slowly),
            "long": says(lambda text: [f"{text[:5]} {len(text)}"]),
            "paced": says(lambda text: [f"word{n} " for n in range(FRAMES)], gap_s=GAP_S),
            **{f"sixty {name}": each for name, each in misbehaviours(chunks).items()},
        }
    )
    up = town.upstreams
    town.define(
        tenant(TENANT),
        connection("streams", up),
        connection("streams-bad", up),
        connection("streams-hung", up, options={"max_in_flight": "16"}),
        *(
            endpoint(f"streams-{name}", way("a", "streams-bad", f"sixty {model}"))
            for name, model in {
                "bad-line": "has a bad line",
                "broken": "breaks off",
                "cut": "is cut",
            }.items()
        ),
        endpoint(
            "streams-silent",
            way("a", "streams-bad", "sixty falls silent", idle="500ms"),
            cooldown={"failures": 1000},
        ),
        endpoint("streams-good", way("a", "streams", "good")),
        endpoint("streams-hung", way("a", "streams-hung", "hangs until it is over")),
        endpoint("streams-limited", way("a", "streams-bad", "limited-midway")),
        endpoint("streams-long", way("a", "streams", "long")),
        endpoint("streams-paced", way("a", "streams", "paced")),
    )


@pytest.fixture
async def caller(town: Town) -> AsyncIterator[Caller]:
    async with town.caller(TENANT) as caller:
        yield caller


def longest_gap(heard: Heard) -> float:
    """Returns the longest time between two parts; no end to it where there are no two."""
    return max((after - before for before, after in pairwise(heard.times)), default=inf)


@pytest.mark.parametrize("name", ["streams-broken", "streams-cut"])
async def test_a_stream_that_is_cut_ends_with_a_refusal_and_nothing_of_it_counts_as_whole(
    town: Town, caller: Caller, name: str
) -> None:
    # The refusal may come before the last words, which are not heard then: once they were.
    async def shows_most() -> bool:
        heard = await caller.stream(name, SIXTY)
        assert heard.reason is Reason.STREAM_CUT
        assert heard.whole is None
        assert SIXTY.startswith(heard.shown)
        row = await asyncio.to_thread(town.row, heard.request.request_id)
        assert (row.outcome, row.reason, row.response) == (Outcome.FAILED, Reason.STREAM_CUT, None)
        words = len(heard.shown.split())
        assert words <= 45
        return words >= 35

    await soon(shows_most, what="most of the words")


async def test_a_line_that_cannot_be_read_costs_no_other(town: Town, caller: Caller) -> None:
    heard = await caller.stream("streams-bad-line", SIXTY)
    assert heard.text == heard.shown == SIXTY

    def told() -> list[bytes]:
        return [line for line in town.logs().splitlines() if b"stream lines skipped" in line]

    await asyncio.to_thread(eventually, told, what="a line about it")
    assert json.loads(told()[-1])["lines"] == 1


async def test_a_stream_that_falls_silent_ends_when_its_route_says_and_is_left_upstream(
    town: Town, caller: Caller
) -> None:
    # Its last words may come late, and so may its end: once neither did.
    async def ends_in_time() -> bool:
        heard = await caller.stream("streams-silent", SIXTY)
        ended = time.monotonic()
        assert heard.reason is Reason.PROVIDER_TIMEOUT
        return bool(heard.times) and 0.4 < ended - heard.times[-1] < 3

    await soon(ends_in_time, what="an end half a second after the last words")
    await asyncio.to_thread(town.upstreams.is_left, "streams-bad")


async def test_a_provider_that_is_busy_amid_a_stream_ends_it_once_and_leaves_nothing_running(
    town: Town, caller: Caller
) -> None:
    async def shows_half() -> bool:
        heard = await caller.stream("streams-limited")
        assert heard.reason is Reason.RATE_LIMITED
        row = await asyncio.to_thread(town.row, heard.request.request_id)
        assert (row.outcome, row.status, row.attempts) == (Outcome.FAILED, 429, 1)
        return heard.shown == "half a"

    await soon(shows_half, what="what was said before the end")
    since, used = time.monotonic(), town.cpu_s()

    def is_quiet() -> bool:
        nonlocal since, used
        if time.monotonic() - since < 1:
            return False
        before, at = used, since
        since, used = time.monotonic(), town.cpu_s()
        return used - before < 0.05 * (since - at)

    await asyncio.to_thread(eventually, is_quiet, what="a worker with nothing to do")


async def test_pieces_arrive_one_by_one_as_they_come(caller: Caller) -> None:
    # What else runs on the machine may hold up some of them: one answer says what is possible.
    async def one_by_one() -> bool:
        heard = await caller.stream("streams-paced", "go")
        assert heard.shown == "".join(f"word{n} " for n in range(FRAMES))
        count, gap = len(heard.times), longest_gap(heard)
        print(f"{count} parts of {FRAMES} pieces, longest gap {gap:.3f} s")
        # The last piece but the one with the whole; two may come within the same millisecond.
        return count >= FRAMES - 2 and gap < 0.2

    await soon(one_by_one, 180, "pieces one by one")


async def test_a_long_request_holds_up_no_small_stream(caller: Caller) -> None:
    # Some 100,000 tokens in a request of less than a mebibyte.
    long = "word " * 100_000

    async def nobody_is_held_up() -> bool:
        streams = [asyncio.create_task(caller.stream("streams-paced", "go")) for _ in range(20)]
        heard = await caller.ask("streams-long", long)
        assert heard.text == f"word  {len(long)}"
        longest = max(longest_gap(each) for each in await asyncio.gather(*streams))
        print(f"longest gap of all streams: {longest:.3f} s")
        return longest < 0.3

    await soon(nobody_is_held_up, 180, "streams that go on")


async def test_a_provider_that_hangs_holds_up_no_other(town: Town, caller: Caller) -> None:
    hung = [asyncio.create_task(caller.ask("streams-hung")) for _ in range(100)]

    async def all_taken() -> bool:
        asked = town.upstreams.under_way["streams-hung"]
        return (sum(each.done() for each in hung), asked) == (84, 16)

    await soon(all_taken, 90, "that 84 of them are refused, and the others asked")
    others = await asyncio.gather(*(caller.ask("streams-good") for _ in range(200)))
    assert {each.text for each in others} == {"good"}
    ended = [each for each in hung if each.done()]
    assert len(ended) == 84
    assert {each.result().reason for each in ended} == {Reason.RATE_LIMITED}
    assert town.upstreams.under_way["streams-hung"] == town.upstreams.most["streams-hung"] == 16
    OVER.set()
    left = await asyncio.gather(*(each for each in hung if each not in ended))
    assert {each.text for each in left} == {"good"}
    await asyncio.to_thread(town.upstreams.is_left, "streams-hung")
