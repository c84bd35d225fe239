"""Rows of requests and tries: what providers say was used, each request once, at its price."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from decimal import Decimal

import pytest

from infra.telemetry import now
from schemas.events import Outcome, Reason, RequestCancelled
from schemas.topics import REQUEST_CANCELLED
from tests.contract.scripted_server import fails
from tests.gateway.town import Caller, Town, connection, endpoint, request, tenant, way
from tests.gateway.upstreams import says
from tests.harness import soon

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

TENANT = "rows"
USAGE = {
    "prompt_tokens": 1000,
    "completion_tokens": 500,
    "prompt_tokens_details": {"cached_tokens": 400},
    "completion_tokens_details": {"reasoning_tokens": 300},
}
# 600 at $2, 400 at $0.5 and 500 at $8 a million.
NOTHING = Decimal(0)
COST = Decimal("0.0054")
PRICE = {"input": 2, "cached_input": 0.5, "output": 8}
CLAUDE = {"input": 3, "cached_input": 0.3, "cache_write": 3.75, "output": 15}
DEAR = {"input": 20, "output": 80, "request": 1}


@pytest.fixture(scope="module", autouse=True)
def defined(town: Town) -> None:
    # More than anybody waits for.
    words = [f"word{number} " for number in range(4000)]
    town.upstreams.scripts.update(
        {
            "good": says(lambda text: ["go", "od"]),
            "priced": says(lambda text: ["wor", "ds"], usage=USAGE),
            "long": says(lambda text: words, gap_s=0.05),
        }
    )
    up, kept = town.upstreams, {"lasts": "1h"}
    prices = {"priced": [PRICE], "long": [PRICE], "is cut": [PRICE]}
    town.define(
        tenant(TENANT),
        connection("rows", up, prices=prices),
        connection("rows-dear", up, prices={"fails": [DEAR], "bad parameter": [DEAR]}),
        connection("rows-ill", up),
        connection("rows-claude", up, type="anthropic", prices={"caches": [CLAUDE]}),
        endpoint("rows", way("a", "rows", "priced")),
        endpoint("rows-again", way("a", "rows-dear", "fails"), way("b", "rows", "priced")),
        endpoint("rows-cached", way("a", "rows", "priced"), cache=kept),
        *(
            endpoint(f"rows-ill-{status}", way("a", "rows-ill", f"ill {status}"), cache=kept)
            for status in (429, 503)
        ),
        endpoint("rows-claude", way("a", "rows-claude", "caches")),
        endpoint("rows-cut", way("a", "rows", "is cut"), way("b", "rows", "priced")),
        endpoint("rows-refused", way("a", "rows-dear", "bad parameter")),
        endpoint("rows-long", way("a", "rows", "long")),
        endpoint("rows-unpriced", way("a", "rows-dear", "good")),
    )


@pytest.fixture
async def caller(town: Town) -> AsyncIterator[Caller]:
    async with town.caller(TENANT) as caller:
        yield caller


async def test_a_streams_row_says_what_the_provider_says_and_costs_what_one_in_one_piece_does(
    town: Town, caller: Caller
) -> None:
    for stream in (False, True):
        heard = await caller.ask("rows", stream=stream)
        # Usage is asked of the provider, and is no part of what the caller is shown.
        assert town.upstreams.to("rows")[-1].form["stream_options"] == {"include_usage": True}
        assert heard.text == "words"
        assert len([part for part in heard.parts if part.content]) <= 3
        row = await asyncio.to_thread(town.row, heard.request.request_id)
        assert (row.prompt_tokens, row.cached_tokens) == (1000, 400)
        assert (row.completion_tokens, row.reasoning_tokens) == (500, 300)
        assert (row.cost, row.usage_estimated, row.streamed) == (COST, False, stream)
        assert (row.status, row.outcome, row.attempts) == (200, Outcome.COMPLETED, 1)
        [tried] = await asyncio.to_thread(town.attempts, heard.request.request_id, 1)
        assert (tried.cost, tried.prompt_tokens, tried.reasoning_tokens) == (COST, 1000, 300)


async def test_what_a_provider_read_from_and_wrote_to_its_cache_has_its_own_price(
    town: Town, caller: Caller
) -> None:
    heard = await caller.ask("rows-claude")
    row = await asyncio.to_thread(town.row, heard.request.request_id)
    assert (row.prompt_tokens, row.cached_tokens, row.cache_write_tokens) == (31_406, 30_940, 460)
    assert row.cost == Decimal("0.012555")


async def test_a_stream_that_its_caller_leaves_has_one_row_with_what_came_of_it(
    town: Town, caller: Caller
) -> None:
    asked = request(TENANT, "main.tests.rows-long", stream=True)
    sending = asyncio.create_task(caller.send(asked))

    async def ten_came() -> bool:
        return caller.heard_of(asked.request_id) >= 10

    await soon(ten_came, 90, "ten parts")
    cancelled = RequestCancelled(
        request_id=asked.request_id,
        tenant=TENANT,
        cancelled_at=now(),
        deadline=asked.deadline,
    )
    await asyncio.to_thread(town.bus.send, REQUEST_CANCELLED, cancelled)
    heard = await sending
    assert heard.reason is Reason.CANCELLED
    await asyncio.to_thread(town.upstreams.is_left, "rows")
    row = await asyncio.to_thread(town.row, asked.request_id)
    assert (row.outcome, row.status, row.usage_estimated) == (Outcome.CANCELLED, 499, True)
    assert row.completion_tokens >= 10
    assert row.cost


async def test_what_comes_out_of_the_cache_costs_nothing_and_says_what_it_saves(
    town: Town, caller: Caller
) -> None:
    first = await caller.ask("rows-cached", "the same again")

    async def is_kept() -> bool:
        heard = await caller.ask("rows-cached", "the same again", stream=True)
        assert heard.text == heard.shown == first.text
        row = await asyncio.to_thread(town.row, heard.request.request_id)
        return row.saved_tokens > 0

    await soon(is_kept, what="a kept answer")
    asked = len(town.upstreams.to("rows"))
    kept = await caller.ask("rows-cached", "the same again")
    assert len(town.upstreams.to("rows")) == asked
    row = await asyncio.to_thread(town.row, kept.request.request_id)
    assert (row.cost, row.saved_tokens, row.prompt_tokens, row.attempts) == (NOTHING, 1500, 0, 0)
    assert json.loads(row.response or "")["choices"][0]["message"]["content"] == "words"


@pytest.mark.parametrize("status", [429, 503])
async def test_what_failed_is_not_kept(town: Town, caller: Caller, status: int) -> None:
    scripts, model = town.upstreams.scripts, f"ill {status}"
    scripts[model] = fails(status, message="not now")
    refused = await caller.ask(f"rows-ill-{status}", "kept?")
    assert refused.reason in (Reason.PROVIDER_UNAVAILABLE, Reason.RATE_LIMITED)
    scripts[model] = scripts["priced"]
    assert (await caller.ask(f"rows-ill-{status}", "kept?")).text == "words"


async def test_a_request_that_goes_on_to_a_second_route_is_one_row_of_two_tries_at_its_price(
    town: Town, caller: Caller
) -> None:
    heard = await caller.ask("rows-again")
    row = await asyncio.to_thread(town.row, heard.request.request_id)
    assert (row.route, row.attempts, row.cost, row.reason) == ("b", 2, COST, None)
    first, second = await asyncio.to_thread(town.attempts, heard.request.request_id, 2)
    assert (first.route, first.reason, first.cost) == ("a", Reason.PROVIDER_UNAVAILABLE, NOTHING)
    assert (second.route, second.reason, second.cost) == ("b", None, COST)


async def test_what_a_stream_used_before_it_was_cut_is_in_the_row_beside_what_came_after(
    town: Town, caller: Caller
) -> None:
    heard = await caller.ask("rows-cut", "one two three four five six seven eight nine")
    first, second = await asyncio.to_thread(town.attempts, heard.request.request_id, 2)
    assert first.usage_estimated
    assert first.completion_tokens == 8
    assert first.cost
    row = await asyncio.to_thread(town.row, heard.request.request_id)
    assert row.cost == first.cost + COST
    assert row.completion_tokens == first.completion_tokens + second.completion_tokens


async def test_a_request_that_a_provider_refuses_is_one_row_that_cost_nothing(
    town: Town, caller: Caller
) -> None:
    heard = await caller.ask("rows-refused")
    row = await asyncio.to_thread(town.row, heard.request.request_id)
    assert (row.outcome, row.status, row.reason) == (Outcome.REFUSED, 400, Reason.REQUEST_INVALID)
    assert (row.cost, row.prompt_tokens, row.attempts) == (NOTHING, 0, 1)


async def test_a_row_whose_price_nobody_knows_has_no_cost(town: Town, caller: Caller) -> None:
    heard = await caller.ask("rows-unpriced")
    row = await asyncio.to_thread(town.row, heard.request.request_id)
    assert (row.cost, row.completion_tokens) == (None, 3)
