"""How answers fare while a provider is down: what a fallback costs its callers.

python -m tests.bench failover                      300 requests each way (two minutes)
python -m tests.bench failover --requests 3000

One request at a time, first to an endpoint with the fallback alone, then to one whose first
provider answers 503, in turns. Promised: 99 % of the requests answered, at no more than 1.2 times
the fallback's own latency, and the provider taken back once it is up.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from schemas.topics import INFERENCE_ATTEMPTED, INFERENCE_RECORDED, INFERENCE_REFUSED
from tests.broker.pools import following
from tests.conftest import CATALOG
from tests.conftest import running as running_stack
from tests.gateway.conftest import OUTSIDE, SECOND
from tests.gateway.town import SCOUTS, Caller, Town, connection, endpoint, tenant, way
from tests.gateway.upstreams import says, serving
from tests.harness import Bus, running
from tests.seed import seed

TENANT = "failover"
TARGET = 1.2
# A provider needs some time for an answer; without it, the bus is all that is measured.
ANSWER_S = 0.1


def run(*arguments: str) -> None:
    """Prints the share that was answered, both latencies and their ratio."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench failover")
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--cooldown", default="30s", help="how long a provider counts as down")
    given = parser.parse_args(arguments)
    with ExitStack() as opened:
        stack = opened.enter_context(running_stack(["kafka", "registry"]))
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        up, bus = opened.enter_context(serving()), Bus(stack)
        up.scripts["good"] = says(lambda text: ["go", "od"], gap_s=ANSWER_S / 4)
        first, second = way("first", "first", "good"), way("second", "second", "good")
        scouts = [tenant(name, replies=["scouts"]) for name in SCOUTS]
        documents = [
            *CATALOG,
            *scouts,
            tenant(TENANT),
            *(connection(name, up) for name in ("first", "second")),
            endpoint("alone", second),
            endpoint("over", first, second, cooldown={"failures": 3, "lasts": given.cooldown}),
        ]
        seed(bus, documents)
        gateway, worker = (
            opened.enter_context(running(bus, command, folder)) for command in (SECOND, OUTSIDE)
        )
        town = Town(
            bus=bus,
            upstreams=up,
            gateways=(gateway, gateway),
            worker=worker,
            folder=folder,
            recorded=opened.enter_context(following(bus, INFERENCE_RECORDED)),
            attempted=opened.enter_context(following(bus, INFERENCE_ATTEMPTED)),
            refused=opened.enter_context(following(bus, INFERENCE_REFUSED)),
        )
        town.define()
        asyncio.run(_measure(town, given.requests))


async def _measure(town: Town, requests: int) -> None:
    up = town.upstreams
    async with town.caller(TENANT) as caller:
        for _ in range(20):
            await _timed(caller, "alone")
        up.down.add("first")
        times: dict[str, list[float]] = {"alone": [], "over": []}
        for _ in range(requests):
            for name, taken in times.items():
                seconds = await _timed(caller, name)
                if seconds is not None:
                    taken.append(seconds)
        up.down.discard("first")
        began = time.monotonic()
        while (await caller.ask("over")).tried or not _answered_by_first(town):
            pass
        back = time.monotonic() - began
    answered = len(times["over"]) / requests
    alone, over = (statistics.median(each) for each in times.values())
    worst = {name: statistics.quantiles(each, n=100)[98] for name, each in times.items()}
    probes = len([call for call in up.to("first")])
    print(
        f"{answered:.1%} of {requests} requests answered while the first provider is down; the "
        f"fallback alone {alone * 1000:.1f} ms (p99 {worst['alone'] * 1000:.1f}), behind it "
        f"{over * 1000:.1f} ms (p99 {worst['over'] * 1000:.1f}): {over / alone:.3f} times, "
        f"{worst['over'] / worst['alone']:.3f} at p99 (target {TARGET}); the first was asked "
        f"{probes} times, and again {back:.1f} s after it was up"
    )


async def _timed(caller: Caller, name: str) -> float | None:
    """Returns how long an answer took, in seconds; None where there was none."""
    began = time.perf_counter()
    heard = await caller.ask(name)
    return None if heard.refusal else time.perf_counter() - began


def _answered_by_first(town: Town) -> bool:
    """Returns whether the last request went to the first provider."""
    return town.upstreams.calls[-1].upstream == "first"
