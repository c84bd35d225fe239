"""Gateways that are killed again and again neither forget nor double what they have counted."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from infra.registry import Registry
from infra.stack.local import LocalStack
from infra.telemetry import now
from schemas.events import Entry, InferenceRecorded, Outcome, Reason, UsageCounted, UsageSummed
from schemas.topics import INFERENCE_RECORDED, USAGE_COUNTED
from streams.client import Client, RequestRefused
from streams.gateway.limits.counters import DECISIONS, Counters
from streams.gateway.limits.recover import Takeover, recover
from tests.faults.test_kill import Crew
from tests.harness import PATIENCE_S, READY_S, Bus, eventually, running, unique
from tests.seed import seed

pytestmark = [pytest.mark.stack, pytest.mark.timeout(1800)]

REQUESTS = 20_000
FIT = 15_000
KILLS = 10
AT_ONCE = 128
COUNTED = "main.tests.counted"

LIMIT = {"type": "limit", "window": "10d"}
RULES = [
    LIMIT | {"name": "requests", "per": "tenant", "unit": "requests", "most": FIT},
    LIMIT | {"name": "shared", "per": "service", "unit": "requests", "most": 10**9},
    LIMIT | {"name": "tokens", "per": "tenant", "unit": "total_tokens", "most": 10**9},
    LIMIT | {"name": "budget", "per": "tenant", "unit": "cost", "most": 10**6},
]
CATALOG: list[dict[str, Any]] = [
    {
        "kind": "model",
        "name": COUNTED,
        "spec": {"prices": [{"input": 1, "output": 3, "request": "0.000000001"}]},
        "versions": [{"spec": {"uri": "file:/models/counted"}}],
    },
    {"kind": "policy", "name": "main.tests.counting", "spec": {"rules": RULES}},
    {
        "kind": "endpoint",
        "name": "main.tests.asked",
        "spec": {
            "routes": [{"name": "local", "pool": "echo", "model": "echo", "entity": COUNTED}],
            "policies": ["main.tests.counting"],
        },
    },
]


@pytest.fixture(scope="module")
def crew(bus: Bus, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    """Two gateways and a worker, revived when they end, as their supervisor would."""
    seed(bus, CATALOG)
    folder: Path = tmp_path_factory.mktemp("ledger")
    commands = {
        "gateway": ["-m", "streams", "gateway"],
        "gateway2": ["-m", "streams", "gateway"],
        "worker": ["-m", "workers", "inference", "--provider", "echo", "--pool", "echo"],
    }
    with ExitStack() as processes:
        crew = Crew(
            {
                name: processes.enter_context(running(bus, command, folder))
                for name, command in commands.items()
            }
        )
        yield crew
        crew.close()


async def test_ten_kills_amid_twenty_thousand_requests_leave_answers_rows_and_counters_alike(
    mortal_stack: LocalStack, bus: Bus, crew: Crew
) -> None:
    chance = random.Random(10)
    ledger: dict[str, Reason | None] = {}
    numbers = iter(range(REQUESTS))
    kills = [(each + 1) * REQUESTS // (KILLS + 1) for each in range(KILLS)]
    began = time.monotonic()
    async with Client(tenant="faults", kafka=bus.kafka, registry=bus.registry_settings) as client:

        async def lane() -> None:
            for number in numbers:
                reason: Reason | None = None
                try:
                    reply = await client.chat("main.tests.asked", f"count {number}", timeout=600)
                except RequestRefused as refused:
                    request_id, reason = refused.request_id, refused.refusal.reason
                else:
                    request_id = reply.request_id
                    assert reply.content == f"count {number}"
                assert request_id not in ledger
                ledger[request_id] = reason
                if kills and len(ledger) >= kills[0]:
                    kills.pop(0)
                    victim = crew.processes[chance.choice(["gateway", "gateway2"])]
                    await asyncio.to_thread(victim.kill)

        await asyncio.gather(*(lane() for _ in range(AT_ONCE)))
    print(f"{REQUESTS} requests and {KILLS} kills in {time.monotonic() - began:.0f} s")
    assert not kills
    assert Counter(ledger.values()) == {None: FIT, Reason.LIMIT_EXCEEDED: REQUESTS - FIT}
    await asyncio.to_thread(
        eventually, lambda: rows(bus).keys() >= ledger.keys(), PATIENCE_S, "a row for each request"
    )
    found = rows(bus)
    assert {each: found[each].reason for each in ledger} == ledger
    await asyncio.to_thread(eventually, lambda: settled(bus), PATIENCE_S, "every settlement")
    # Who was killed last may still be on its way, and would not end in good order.
    await asyncio.to_thread(eventually, lambda: stand(crew), READY_S, "both gateways")
    crew.close()
    for name in ("gateway", "gateway2"):
        assert crew.processes[name].stop() == 0
    answered = [each for each in found.values() if each.outcome is Outcome.COMPLETED]
    cost = sum(int((each.cost or 0) * 10**12) for each in answered)
    tokens = sum((each.prompt_tokens or 0) + (each.completion_tokens or 0) for each in answered)
    counted = taken_over(bus)
    assert {name: sums(each) for name, each in counted.items()} == {
        "budget": cost,
        "requests": FIT,
        "shared": FIT,
        "tokens": tokens,
    }
    assert not any(each.reserved for each in counted.values())
    # Whoever reads the whole ledger counts as much.
    assert {name: sums(each) for name, each in folded(bus).items()} == {
        name: sums(each) for name, each in counted.items()
    }


def stand(crew: Crew) -> bool:
    """Returns whether both gateways are ready."""
    return all(crew.processes[name].ask("/ready")[0] == 200 for name in ("gateway", "gateway2"))


def rows(bus: Bus) -> dict[str, InferenceRecorded]:
    """Returns the row of each request; one that comes twice says the same."""
    return {each.request_id: each for each in bus.events(INFERENCE_RECORDED)}


def settled(bus: Bus) -> bool:
    """Returns whether what is reserved is settled, at each of its homes."""
    entries: list[UsageCounted] = bus.events(USAGE_COUNTED)
    reserved = {
        (each.charge_id, each.home) for each in entries if each.entry in DECISIONS and each.charges
    }
    return reserved <= {
        (each.charge_id, each.home) for each in entries if each.entry is Entry.SETTLED
    }


def taken_over(bus: Bus) -> dict[str, UsageSummed]:
    """Returns the counters by their rules, as whoever takes the ledger over finds them."""
    registry, found = Registry(bus.registry_settings), {}
    for partition, shared in product(range(USAGE_COUNTED.partitions), (False, True)):
        taken_id = unique("taken")
        taken = UsageCounted(
            charge_id=taken_id,
            home="",
            shared=shared,
            tenant="",
            request_id="",
            entry=Entry.TAKEN,
            at=now(),
            until=now(),
        )
        bus.put(USAGE_COUNTED.name, None, bus.codec.encode(taken), partition=partition)
        bus.settle()
        takeover = Takeover(
            partition=partition, shared=shared, taken_id=taken_id, place=0, since=now()
        )
        found.update(by_rule(recover(bus.kafka, bus.codec, registry, takeover)))
    return found


def folded(bus: Bus) -> dict[str, UsageSummed]:
    """Returns the counters by their rules, as the sum of all that lies on the ledger."""
    pages = {
        page: Counters(shared=page[1], partition=page[0])
        for page in product(range(USAGE_COUNTED.partitions), (False, True))
    }
    for record in bus.records(USAGE_COUNTED.name):
        entry = bus.codec.decode(record.value, UsageCounted)
        for shared in (False, True):
            pages[record.partition, shared].apply(entry, record.offset)
    return {name: each for page in pages.values() for name, each in by_rule(page).items()}


def by_rule(counters: Counters) -> dict[str, UsageSummed]:
    counters.all_changed()
    return {each.counter.split("/")[1]: each for each in counters.summed(now()) if each.unit}


def sums(counter: UsageSummed) -> int:
    return sum(each.amount for each in counter.sums)
