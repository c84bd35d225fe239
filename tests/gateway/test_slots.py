"""Limits and budgets before providers that fail: what is reserved comes back, and once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta
from typing import Any

import pytest

from schemas.events import Entry, Reason, Task
from schemas.topics import USAGE_COUNTED
from streams.client import Client
from tests import harness
from tests.contract.misbehaving import misbehaviours
from tests.contract.openai_servers import chunks
from tests.gateway.conftest import OUTSIDE
from tests.gateway.town import IN, Caller, Heard, Town, connection, endpoint, policy, tenant, way
from tests.gateway.upstreams import says
from tests.harness import eventually, soon, unique

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

# Of its own each time, since what is used up stays so.
TENANT = unique("slots")
USED = {"prompt_tokens": 100, "completion_tokens": 20}
MILLISECOND, ONE_S = timedelta(milliseconds=1), timedelta(seconds=1)
# How a request may end without an answer: the model of its route, and what is said of it.
ENDS = {
    "broken": ("fails-502", Reason.PROVIDER_UNAVAILABLE),
    "malformed": ("says another form", Reason.PROVIDER_FAILED),
    "mute": ("hangs", Reason.PROVIDER_TIMEOUT),
    "unknown": ("unknown", Reason.PROVIDER_FAILED),
}
# A limit for each test, so that none needs what another has yet to give back.
SLOTS = (*ENDS, "killed", "left")
TASKS: dict[str, dict[str, Any]] = {
    "chat": {},
    "embedding": {"messages": (), "task": Task.EMBEDDING, "inputs": ("a", "b")},
    "rerank": {"messages": (), "task": Task.RERANK, "query": "a", "inputs": ("a", "b")},
}
MODELS = {"chat": "good", "embedding": "embeds", "rerank": "ranks"}


def limit(name: str, unit: str, most: float, **more: Any) -> dict[str, Any]:
    window = {} if unit == "in_flight" else {"window": "1h"}
    rule = {"type": "limit", "name": name, "per": "tenant", "unit": unit, "most": most}
    return {**rule, **window, **more}


@pytest.fixture(scope="module", autouse=True)
def defined(town: Town) -> None:
    town.upstreams.scripts.update(
        {
            "fails-502": town.upstreams.scripts["fails"],
            "good": says(lambda text: ["go", "od"], usage=USED),
            "long": says(lambda text: ["word "] * 4000, gap_s=0.05),
            "twenty-cut": misbehaviours(chunks)["is cut"],
        }
    )
    up = town.upstreams
    dear = {"prices": {model: [{"request": 0.6, "input": 1}] for model in MODELS.values()}}
    short = {"first_token": "500ms"}
    tokens = limit("tokens", "total_tokens", 10**6)
    town.define(
        tenant(TENANT),
        connection("slots", up, **dear),
        connection("slots-free", up, prices={model: [{}] for model in MODELS.values()}),
        *(policy(f"slots-{name}", limit("one", "in_flight", 1)) for name in SLOTS),
        policy("slots-tries", limit("requests", "requests", 2), tokens),
        policy("slots-budget", limit("budget", "cost", 0.7)),
        *(
            endpoint(
                f"slots-{name}",
                way("a", "slots", model, **(short if name == "mute" else {})),
                policies=[f"{IN}.slots-{name}"],
            )
            for name, (model, _) in ENDS.items()
        ),
        endpoint("slots-left", way("a", "slots", "long"), policies=[f"{IN}.slots-left"]),
        endpoint(
            "slots-killed",
            {**way("a", "slots", "long"), "pool": "mortal"},
            policies=[f"{IN}.slots-killed"],
        ),
        *(
            endpoint(
                f"slots-{name}-next", way("a", "slots", "good"), policies=[f"{IN}.slots-{name}"]
            )
            for name in SLOTS
        ),
        endpoint(
            "slots-tries",
            way("a", "slots", "twenty-cut"),
            way("b", "slots", "fails"),
            way("c", "slots", "good"),
            policies=[f"{IN}.slots-tries"],
        ),
        *(
            endpoint(
                f"slots-{task}{where}",
                way("a", f"slots{where}", model),
                policies=[f"{IN}.slots-budget"],
                reserve_tokens=1,
            )
            for task, model in MODELS.items()
            for where in ("", "-free")
        ),
    )


@pytest.fixture
async def caller(town: Town) -> AsyncIterator[Caller]:
    async with town.caller(TENANT) as caller:
        yield caller


async def passes(town: Town, caller: Caller, name: str) -> None:
    """Asks until a slot is free; who comes a second after its request ended finds it so.

    By the clock of whoever decides: that of this machine's load may be slow.
    """
    heard: list[Heard] = []

    async def has_passed() -> bool:
        heard.append(await caller.ask(name))
        return heard[-1].reason is None

    await soon(has_passed, 60, "a free slot")
    for each in heard[:-1]:
        assert each.refusal
        assert (each.reason, each.refusal.used) == (Reason.LIMIT_EXCEEDED, "1")
        assert each.refusal.retry_after_ms == ONE_S // MILLISECOND
    entries = await asyncio.to_thread(town.bus.events, USAGE_COUNTED, TENANT)
    passed = heard[-1].request.request_id
    [at] = [
        number
        for number, each in enumerate(entries)
        if (each.request_id, each.entry) == (passed, Entry.RESERVED)
    ]
    ended = max(n for n, each in enumerate(entries[:at]) if each.entry is Entry.SETTLED)
    # One at most was decided late and without that end: by who was held up, and had yet to read it.
    late = [each for each in entries[ended + 1 : at] if each.at - entries[ended].at >= ONE_S]
    assert len(late) <= 1


@pytest.mark.parametrize("name", sorted(ENDS))
async def test_the_slot_of_a_request_that_fails_is_free_again(
    town: Town, caller: Caller, name: str
) -> None:
    heard = await caller.ask(f"slots-{name}")
    assert heard.reason is ENDS[name][1]
    await passes(town, caller, f"slots-{name}-next")


async def test_the_slot_of_a_stream_that_its_client_leaves_is_free_again(
    town: Town, caller: Caller
) -> None:
    async with Client(
        tenant=TENANT, kafka=town.bus.kafka, registry=town.bus.registry_settings
    ) as client:
        async with aclosing(client.stream(f"{IN}.slots-left", "go on")) as parts:
            assert (await anext(parts)).content
            refused = await caller.ask("slots-left-next")
            assert refused.reason is Reason.LIMIT_EXCEEDED
        await passes(town, caller, "slots-left-next")
    await asyncio.to_thread(town.upstreams.is_left, "slots")


async def test_the_slot_of_a_request_whose_worker_is_killed_is_free_once_another_has_ended_it(
    town: Town, caller: Caller
) -> None:
    command = [*OUTSIDE[:-1], "mortal"]
    up, before = town.upstreams, len(town.upstreams.to("slots"))
    with harness.running(town.bus, command, town.folder) as worker:
        asked = asyncio.create_task(caller.stream("slots-killed", "go on"))
        await asyncio.to_thread(up.is_asked, "slots", before + 1)
        worker.kill()
    assert (await caller.ask("slots-killed-next")).reason is Reason.LIMIT_EXCEEDED
    up.scripts["long"] = up.scripts["good"]
    with harness.running(town.bus, command, town.folder):
        heard = await asked
        assert heard.text == "good"
        await passes(town, caller, "slots-killed-next")


async def test_a_request_that_took_three_tries_counts_once_with_the_tokens_of_all(
    town: Town, caller: Caller
) -> None:
    heard = await caller.ask("slots-tries", " ".join(["word"] * 20))
    assert heard.text == "good"
    assert len(heard.tried) == 2
    row = await asyncio.to_thread(town.row, heard.request.request_id)
    tries = await asyncio.to_thread(town.attempts, heard.request.request_id, 3)
    total = sum(each.prompt_tokens + each.completion_tokens for each in tries)
    assert row.prompt_tokens + row.completion_tokens == total
    assert total > 120
    assert await asyncio.to_thread(settled, town, heard) == {"requests": 1, "total_tokens": total}
    assert (await caller.ask("slots-tries")).reason is None
    assert (await caller.ask("slots-tries")).reason is Reason.LIMIT_EXCEEDED


async def test_with_a_spent_budget_no_task_is_let_through_but_what_is_free(
    town: Town, caller: Caller
) -> None:
    heard = await caller.ask("slots-rerank", **TASKS["rerank"])
    assert heard.reason is None, heard.refusal
    await asyncio.to_thread(settled, town, heard)
    for task, asked in TASKS.items():
        calls = len(town.upstreams.to("slots"))
        refused = await caller.ask(f"slots-{task}", **asked)
        assert refused.reason is Reason.BUDGET_EXCEEDED
        assert len(town.upstreams.to("slots")) == calls
        free = await caller.ask(f"slots-{task}-free", **asked)
        assert free.reason is None, free.refusal


def settled(town: Town, heard: Heard) -> dict[str, int]:
    """Returns what a request is settled with, by unit."""

    def found() -> dict[str, int]:
        return {
            charge.unit: charge.amount
            for each in town.bus.events(USAGE_COUNTED, TENANT)
            if each.request_id == heard.request.request_id and each.entry is Entry.SETTLED
            for charge in each.charges
        }

    eventually(found, 90, "a settlement")
    return found()
