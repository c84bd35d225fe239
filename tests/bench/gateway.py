"""What governance costs: a gateway's processor time, the latency it adds, its stalls, its memory.

python -m tests.bench gateway                       20,000 requests each way (a few minutes)
python -m tests.bench gateway --requests 200000     the long one, for the slope of memory
python -m tests.bench gateway --only latency        one part: cost, latency or streams

A request is one record in and one answer back: admit and release together. The ways of asking are
measured in one run, so that their ratios hold whatever else the machine does.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path

import psutil

from schemas.events import InferenceRouted
from tests.bench.asking import (
    REPLIES,
    ROUTED,
    WAYS,
    Bench,
    Way,
    completed,
    has_names,
    hearing,
    routed,
)
from tests.bench.streaming import streams
from tests.conftest import CATALOG
from tests.conftest import running as running_stack
from tests.harness import Bus, Process, eventually
from tests.seed import seed

# Requests a second while latency is measured, and for how long.
MODERATE, LATENCY_S = 100, 15
# On the line of memory.
POINTS = 5
# Requests of each way that nothing is measured of: what a process makes once is made by then.
WARMING = 200


def run(*arguments: str) -> None:
    """Prints the figures of all parts, or of one."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench gateway")
    parser.add_argument("--requests", type=int, default=20_000, help="of each way of asking")
    parser.add_argument("--only", choices=PARTS, help="one part")
    given = parser.parse_args(arguments)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores", flush=True)
    with running_stack(["kafka", "registry"]) as stack, tempfile.TemporaryDirectory() as folder:
        bus = Bus(stack)
        seed(bus, CATALOG)
        bench = Bench(bus, Path(folder), given.requests)
        for part in [given.only] if given.only else PARTS:
            PARTS[part](bench)


class Watched:
    """What a gateway spends, and how large it is on the way."""

    def __init__(self, bench: Bench, gateway: Process) -> None:
        self._bench = bench
        self._process = psutil.Process(gateway.child.pid)
        self._spent = _cpu(self._process)
        self.line: list[tuple[float, float]] = []

    def until_done(self) -> float:
        """Waits until the gateway has nothing left; returns the CPU seconds since the last time."""
        eventually(lambda: self._bench.left() == 0, 3600, "the end")
        before, self._spent = self._spent, _cpu(self._process)
        return self._spent - before

    def note(self, requests: int) -> None:
        """Notes how large it is after so many requests."""
        self.line.append((requests, self._process.memory_info().rss / 2**20))


def cost(bench: Bench) -> None:
    """Processor time of one gateway over full topics, and its memory, for each way of asking.

    It admits in as many portions as there are points on the line of memory, and releases after each
    what it admitted: so an answer carries all that the gateway itself put into the request.
    """
    first, portion = 0.0, bench.requests // POINTS
    for name, way in WAYS.items():
        admit = release = 0.0
        with bench.gateway(way) as gateway, bench.admitted() as admitted:
            watched = Watched(bench, gateway)
            _turn(bench, way, watched, admitted, range(WARMING))
            if way.policies:
                eventually(partial(has_names, gateway), 60, "the names of people")
                watched.until_done()
            for done in range(0, portion * POINTS, portion):
                numbers = range(WARMING + done, WARMING + done + portion)
                admitting, releasing = _turn(bench, way, watched, admitted, numbers)
                admit, release = admit + admitting, release + releasing
                watched.note(done + portion)
        admit, release = (each / (portion * POINTS) * 1000 for each in (admit, release))
        first = first or admit + release
        print(
            f"{name}: {admit + release:.2f} CPU s per 1,000 requests (admit {admit:.2f}, release "
            f"{release:.2f}), {(admit + release) / first:.2f} times the first; "
            f"{1000 / (admit + release):,.0f} requests per CPU s; memory "
            f"{' '.join(f'{size:.0f}' for _, size in watched.line)} MiB{_slope(watched.line)}",
            flush=True,
        )


def _turn(
    bench: Bench, way: Way, watched: Watched, admitted: Iterator[InferenceRouted], numbers: range
) -> tuple[float, float]:
    """Asks and answers so many requests; returns the CPU seconds of either."""
    for number in numbers:
        bench.ask(number, signed=way.signed)
    bench.bus.settle()
    admit = watched.until_done()
    for each in islice(admitted, len(numbers)):
        bench.answer(completed(each))
    bench.bus.settle()
    return admit, watched.until_done()


def _slope(line: list[tuple[float, float]]) -> str:
    """Says how memory grows over the second half, when all that is made once is made."""
    half = line[len(line) // 2 :]
    if len(half) < 2:
        return ""
    slope = statistics.linear_regression(*zip(*half, strict=True)).slope
    return f", {slope * 100_000:+.1f} MiB per 100,000 requests"


def latency(bench: Bench) -> None:
    """What admit and release add, at a moderate rate, to a hop over the bus alone."""
    count = MODERATE * LATENCY_S
    for name, way in WAYS.items():
        times: dict[str, list[float]] = {"bus": [], "admit": [], "release": []}
        with bench.gateway(way), hearing(bench.bus, [ROUTED, *REPLIES]) as heard:
            sent: dict[tuple[str, bytes], tuple[str, float]] = {}
            for number in _paced(count, 1 / MODERATE):
                bare, key = b"bare-%d" % number, b"bench-%d" % number
                sent[ROUTED, bare] = "bus", time.perf_counter()
                bench.bus.put(ROUTED, bare, b"")
                sent[ROUTED, key] = "admit", time.perf_counter()
                asked = bench.ask(number, signed=way.signed)
                sent[asked.reply_to, key] = "release", time.perf_counter()
                bench.answer(completed(routed(asked)))
            eventually(partial(_has, heard, 3 * count), 60, "all that comes of it")
            for place, (hop, at) in sent.items():
                times[hop].append((heard[place][0] - at) * 1000)
        hops = {
            hop: statistics.quantiles(found[count // 10 :], n=100) for hop, found in times.items()
        }
        told = ", ".join(
            f"{hop} p50 {cuts[49]:.1f} p99 {cuts[98]:.1f}" for hop, cuts in hops.items()
        )
        bus, *ours = hops.values()
        added = [sum(cuts[at] - bus[at] for cuts in ours) for at in (49, 98)]
        print(
            f"{name}, {MODERATE}/s, ms: {told}; a request gains {added[0]:.1f} / {added[1]:.1f}",
            flush=True,
        )


PARTS: dict[str, Callable[[Bench], None]] = {
    "cost": cost,
    "latency": latency,
    "streams": streams,
}


def _has(heard: Mapping[tuple[str, bytes], list[float]], count: int) -> bool:
    return len(heard) >= count


def _paced(count: int, every_s: float) -> Iterator[int]:
    """Yields so many numbers at even intervals; what is late is caught up on."""
    began = time.perf_counter()
    for number in range(count):
        if (ahead := began + number * every_s - time.perf_counter()) > 0:
            time.sleep(ahead)
        yield number


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
