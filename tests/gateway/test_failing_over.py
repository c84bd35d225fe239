"""Routes that fail: what is tried instead, for how long, and what the caller hears of it."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web

from infra.telemetry import now
from schemas.events import Outcome, Reason
from tests.contract.anthropic_server import begun, ended, saying, text_block
from tests.contract.misbehaving import broken_off, delivered
from tests.contract.scripted_server import fails
from tests.gateway.town import Caller, Town, connection, endpoint, tenant, way
from tests.gateway.upstreams import says
from tests.harness import soon

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

TENANT = "failing-over"
SCHEMA = json.dumps({"type": "object", "properties": {"name": {"type": "string"}}})
# Model of a route that fails, and how it is said to have failed.
FAILURES = {
    "cut": ("is cut", Reason.STREAM_CUT),
    "ill": ("fails", Reason.PROVIDER_UNAVAILABLE),
    "limited": ("busy", Reason.RATE_LIMITED),
    "mute": ("hangs", Reason.PROVIDER_TIMEOUT),
}
# How a connection may be lost before the first word.
EARLY = {"begun": "breaks when it has begun", "gone": "breaks at once"}


async def breaks_at_once(_: object, request: web.Request, body: object) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@pytest.fixture(scope="module", autouse=True)
def defined(town: Town) -> None:
    said = text_block('{"name": ', '"Ada"}')
    town.upstreams.scripts.update(
        {
            "breaks at once": breaks_at_once,
            "breaks when it has begun": delivered(lambda _: [b": begun\n\n"] * 2, broken_off),
            "asks for minutes": fails(429, {"Retry-After": "600"}),
            "busy": fails(429, message="not now"),
            "good": says(lambda text: ["go", "od"]),
            "soon-again": fails(429, {"retry-after-ms": "1500"}),
            "messages: says JSON": saying(*begun(), *said, *ended("end_turn")),
            "unprocessable": fails(422, message="no", param="temperature"),
        }
    )
    up = town.upstreams
    # A way each that fails in its way; whoever does not begin within half a second times out.
    ill = {
        name: way(name, f"over-{name}", model, first_token="500ms" if name == "mute" else "60s")
        for name, (model, _) in FAILURES.items()
    }
    good = way("good", "over-good", "good")
    first, second = way("first", "over-first", "good"), way("second", "over-second", "good")
    cooldown = {"failures": 3, "lasts": "2s"}
    many = {"failures": 1000, "lasts": "1s"}
    town.define(
        tenant(TENANT),
        *(
            connection(f"over-{name}", up)
            for name in (*EARLY, *FAILURES, "first", "good", "second")
        ),
        connection("over-again", up),
        connection("over-claude", up, type="anthropic"),
        connection("over-blamed", up),
        *(endpoint(f"over-{name}", each, good, cooldown=many) for name, each in ill.items()),
        *(
            endpoint(f"over-{name}", way(name, f"over-{name}", model), good, cooldown=many)
            for name, model in EARLY.items()
        ),
        endpoint("over-all", *ill.values(), cooldown=many),
        endpoint("over-blame", way("a", "over-blamed", "bad parameter"), good),
        endpoint("over-blame-422", way("a", "over-blamed", "unprocessable"), good),
        endpoint("over-down", first, second, cooldown=cooldown),
        endpoint("over-load", first, second, cooldown=cooldown),
        endpoint("over-again", way("a", "over-again", "soon-again", retries=1), cooldown=many),
        connection("over-busy", up),
        endpoint("over-busy", way("a", "over-busy", "busy"), good, cooldown={"failures": 1}),
        endpoint("over-asking-for-time", way("a", "over-busy", "asks for minutes"), good),
        endpoint("over-schema", ill["ill"], way("b", "over-claude", "says JSON")),
        endpoint("over-prose", ill["ill"], way("b", "over-claude", "answers in prose")),
    )


@pytest.fixture
async def caller(town: Town) -> AsyncIterator[Caller]:
    async with town.caller(TENANT) as caller:
        yield caller


@pytest.mark.parametrize("name", sorted(FAILURES))
@pytest.mark.parametrize("stream", [False, True])
async def test_a_route_that_fails_is_made_up_for_by_the_next(
    caller: Caller, name: str, stream: bool
) -> None:
    heard = await caller.ask(f"over-{name}", "say six words and no more", stream=stream)
    assert heard.text == "good"
    assert heard.routes == [(name, FAILURES[name][1])]


@pytest.mark.parametrize("name", sorted(EARLY))
@pytest.mark.parametrize("stream", [False, True])
async def test_a_connection_that_breaks_before_the_first_word_is_made_up_for_unseen(
    town: Town, caller: Caller, name: str, stream: bool
) -> None:
    before = len(town.upstreams.to(f"over-{name}"))
    heard = await caller.ask(f"over-{name}", stream=stream)
    assert heard.text == heard.shown == "good"
    assert heard.routes == [(name, Reason.PROVIDER_UNAVAILABLE)]
    assert len(town.upstreams.to(f"over-{name}")) == before + 1
    row = await asyncio.to_thread(town.row, heard.request.request_id)
    assert (row.outcome, row.route, row.attempts) == (Outcome.COMPLETED, "good", 2)


async def test_where_all_routes_fail_one_reply_names_all_that_was_tried(
    town: Town, caller: Caller
) -> None:
    began = time.monotonic()
    heard = await caller.stream("over-all", "say six words and no more")
    tried = [(name, reason) for name, (_, reason) in FAILURES.items()]
    assert heard.routes == tried[:-1]
    assert heard.reason is tried[-1][1]
    assert heard.whole is None
    # Who did not begin was not waited for as long as the others may be.
    assert time.monotonic() - began < 60
    row = await asyncio.to_thread(town.row, heard.request.request_id)
    assert (row.outcome, row.attempts, row.response) == (Outcome.FAILED, 4, None)


async def test_no_try_outlasts_the_deadline(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    # That it has passed may take a while to be heard of.
    monkeypatch.setattr("infra.asker.GRACE_S", 60.0)
    began = time.monotonic()
    heard = await caller.ask("over-mute", "hi", deadline=now() + timedelta(milliseconds=400))
    assert heard.reason is Reason.DEADLINE_EXPIRED
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("name", ["over-blame", "over-blame-422"])
async def test_what_is_the_callers_fault_is_neither_tried_again_nor_elsewhere(
    town: Town, caller: Caller, name: str
) -> None:
    asked, others = len(town.upstreams.to("over-blamed")), len(town.upstreams.to("over-good"))
    heard = await caller.ask(name)
    assert heard.reason is Reason.REQUEST_INVALID
    assert heard.routes == []
    assert len(town.upstreams.to("over-blamed")) == asked + 1
    assert len(town.upstreams.to("over-good")) == others


async def test_a_provider_that_asks_for_time_gets_it(town: Town, caller: Caller) -> None:
    began = time.monotonic()
    heard = await caller.ask("over-again")
    assert heard.reason is Reason.RATE_LIMITED
    assert len(heard.tried) == 1
    assert len(town.upstreams.to("over-again")) == 2
    assert time.monotonic() - began >= 1.5


async def test_a_provider_that_is_busy_is_neither_down_nor_asked_before_it_says(
    town: Town, caller: Caller
) -> None:
    up = town.upstreams
    for _ in range(5):
        assert (await caller.ask("over-busy")).routes == [("a", Reason.RATE_LIMITED)]
    assert len(up.to("over-busy")) == 5
    for at in range(5):
        heard = await caller.ask("over-asking-for-time")
        assert heard.text == "good"
        assert heard.routes == ([] if at else [("a", Reason.RATE_LIMITED)])
    assert len(up.to("over-busy")) == 6


async def test_a_route_that_is_down_is_only_probed_and_taken_back_once_it_is_up(
    town: Town, caller: Caller
) -> None:
    up = town.upstreams
    up.down.add("over-first")
    before = len(up.to("over-first"))
    began, asked = time.monotonic(), 0

    async def is_long() -> bool:
        nonlocal asked
        heard = await caller.ask("over-down")
        assert heard.text == "good"
        asked += 1
        return asked > 15 and time.monotonic() - began > 6

    await soon(is_long, 120, "six seconds of requests")
    # Three until it counts as down, then one for each two seconds; this tenant asks one gateway.
    probes = len(up.to("over-first")) - before - 3
    assert probes <= (time.monotonic() - began) / 2
    up.down.discard("over-first")

    async def is_back() -> bool:
        return not (await caller.ask("over-down")).tried and len(up.to("over-second")) == seconds

    seconds = -1

    async def goes_to_the_first() -> bool:
        nonlocal seconds
        seconds = len(up.to("over-second"))
        return await is_back()

    await soon(goes_to_the_first, 60, "that the first route is taken back")


async def test_with_a_provider_down_nearly_all_of_three_hundred_requests_are_answered(
    town: Town, caller: Caller
) -> None:
    up = town.upstreams
    up.down.add("over-first")
    before, began = len(up.to("over-first")), time.monotonic()
    numbers = iter(range(300))
    outcomes: Counter[Reason | None] = Counter()

    async def lane() -> None:
        for _ in numbers:
            outcomes[(await caller.ask("over-load")).reason] += 1

    await asyncio.gather(*(lane() for _ in range(10)))
    up.down.discard("over-first")
    assert outcomes[None] >= 297, outcomes
    # Those that were under way before it counted as down, then one for each two seconds.
    assert len(up.to("over-first")) - before < 30 + (time.monotonic() - began) / 2


async def test_a_schema_reaches_the_next_provider_in_its_form_or_the_call_fails(
    town: Town, caller: Caller
) -> None:
    heard = await caller.ask("over-schema", json_schema=SCHEMA)
    assert json.loads(heard.text)["name"] == "Ada"
    form: dict[str, Any] = town.upstreams.to("over-claude")[-1].form
    assert json.loads(SCHEMA)["properties"].items() <= _properties(form).items()
    heard = await caller.ask("over-prose", json_schema=SCHEMA)
    assert heard.reason is Reason.ANSWER_UNKEPT


async def test_a_second_provider_is_sent_the_request_as_it_was_and_its_own_model(
    town: Town, caller: Caller
) -> None:
    await caller.ask("over-ill", "as it was")
    [first, second] = (town.upstreams.to(f"over-{name}")[-1] for name in ("ill", "good"))
    assert first.form == {**second.form, "model": "fails"}
    assert second.form["model"] == "good"


def _properties(form: dict[str, Any]) -> dict[str, Any]:
    """Returns the properties of the schema that Anthropic is asked to keep to."""
    if "output_config" in form:
        found: dict[str, Any] = form["output_config"]["format"]["schema"]["properties"]
        return found
    tools: list[dict[str, Any]] = form["tools"]
    return dict(tools[-1]["input_schema"]["properties"])
