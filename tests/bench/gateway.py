"""What governance costs: a gateway's processor time, the latency it adds, its stalls, its memory.

python -m tests.bench gateway                       20,000 requests each way (a few minutes)
python -m tests.bench gateway --requests 200000     the long one, for the slope of memory
python -m tests.bench gateway --only latency        one part: cost, latency or streams

A request is one record in and one answer back: admit and release together. The ways of asking are
measured in one run, so that their ratios hold whatever else the machine does.
"""

from __future__ import annotations

import argparse
import base64
import os
import platform
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
from confluent_kafka import Consumer, TopicPartition

from infra.bus import fetch, partitions
from infra.signing import Signer, claimed, generate
from infra.telemetry import now
from schemas.events import (
    Completion,
    Delta,
    FinishReason,
    InferenceCompleted,
    InferencePart,
    InferenceRequested,
    InferenceRouted,
    Message,
    Role,
    Route,
    Sampling,
    Usage,
)
from schemas.kinds import Key
from schemas.topics import (
    INFERENCE_COMPLETED,
    INFERENCE_PARTS,
    INFERENCE_REQUESTED,
    INFERENCE_ROUTED,
    REPLY,
)
from streams.gateway.reply import signed as proof
from tests.conftest import CATALOG
from tests.conftest import running as running_stack
from tests.harness import Bus, Process, eventually, running, unique
from tests.seed import SEEDED, changed, changes, publish, seed

ECHO = "main.tests.echo"
ROUTE = {"name": "local", "pool": "echo", "model": "echo"}
TEXT = "The quick brown fox jumps over the lazy dog while a patient reader waits for it all. " * 10
# So many that every partition has its share.
TENANTS = tuple(f"bench{number}" for number in range(24))
REPLIES = [REPLY.member(tenant).name for tenant in TENANTS]

# Requests a second while latency is measured, and for how long.
MODERATE, LATENCY_S = 100, 15
STREAMS, STREAMS_S = 128, 15
# Streams that go straight to the caller: what they suffer is not the gateway's doing.
DIRECT = 8
# A token each 20 ms, of which a worker makes a part when 30 ms are over: every second one.
PART_S = 0.04
STALL_MS = 200
# On the line of memory.
POINTS = 10


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way of asking: whether requests are signed, and what the endpoint holds them to."""

    signed: bool = True
    documents: tuple[Mapping[str, Any], ...] = ()
    policies: tuple[str, ...] = ()


# From the cheapest to the dearest.
WAYS: dict[str, Way] = dict(
    unsigned=Way(signed=False),
    signed=Way(),
)


class Bench:
    """A provisioned bus with tenants and their keys, and a folder for logs."""

    def __init__(self, bus: Bus, folder: Path, requests: int) -> None:
        self.bus = bus
        self.folder = folder
        self.requests = requests
        self.signers = {tenant: Signer(generate()) for tenant in TENANTS}
        made = changes(
            {"kind": "tenant", "name": tenant, "spec": {"accept_unsigned": True}}
            for tenant in TENANTS
        )
        for tenant, signer in self.signers.items():
            public_key = base64.b64encode(signer.public_key).decode()
            key = Key(principal=tenant, public_key=public_key, not_before=SEEDED)
            made.append(changed("key", signer.key_id, key))
        publish(bus, *made)
        self._group = Consumer(
            {"bootstrap.servers": bus.kafka.bootstrap_servers, "group.id": "gateway"}
        )
        self._places = [
            TopicPartition(topic.name, each)
            for topic in (INFERENCE_REQUESTED, INFERENCE_COMPLETED)
            for each in partitions(self._group, topic.name)
        ]

    @contextmanager
    def gateway(self, way: Way) -> Iterator[Process]:
        """Runs a gateway over an endpoint that asks for what this way does."""
        spec = (
            {"routes": [ROUTE], "policies": way.policies} if way.policies else {"routes": [ROUTE]}
        )
        endpoint = {"kind": "endpoint", "name": ECHO, "spec": spec}
        publish(self.bus, *changes([*way.documents, endpoint]))
        with running(self.bus, ["-m", "streams", "gateway"], self.folder) as process:
            yield process

    def left(self) -> int:
        """Returns how many records the gateway has not acknowledged."""
        return sum(
            self._group.get_watermark_offsets(each, 30)[1] - max(each.offset, 0)
            for each in self._group.committed(self._places, 30)
        )

    def ask(self, number: int, *, signed: bool) -> InferenceCompleted:
        """Puts a request on the log; returns the answer that comes of it."""
        tenant = TENANTS[number % len(TENANTS)]
        request = _request(f"bench-{number}", tenant)
        key, value = tenant.encode(), self.bus.codec.encode(request)
        name, deadline = INFERENCE_REQUESTED.name, request.deadline
        headers = self.signers[tenant].headers(name, key, deadline, value) if signed else ()
        self.bus.put(name, key, value, headers=list(headers))
        return _completed(
            InferenceRouted(
                request=request,
                route=Route(name="local", pool="echo", model="echo"),
                signed=proof(claimed(headers, value)),
                routed_at=now(),
            )
        )

    def answer(self, answer: InferenceCompleted) -> None:
        """Puts an answer on the log."""
        key = answer.routed.request.tenant.encode()
        self.bus.put(INFERENCE_COMPLETED.name, key, self.bus.codec.encode(answer))
        while len(self.bus.producer) > 10_000:
            self.bus.producer.poll(0.1)


@contextmanager
def hearing(bus: Bus, topics: Sequence[str]) -> Iterator[dict[tuple[str, bytes], list[float]]]:
    """Hears the records of some topics for a block: when those of each topic and key came."""
    heard: dict[tuple[str, bytes], list[float]] = defaultdict(list)
    consumer = Consumer(
        {
            "bootstrap.servers": bus.kafka.bootstrap_servers,
            "group.id": unique("ear"),
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 10,
        }
    )
    places = [
        TopicPartition(topic, each) for topic in topics for each in partitions(consumer, topic)
    ]
    for place in places:
        place.offset = consumer.get_watermark_offsets(place, 30)[1]
    consumer.assign(places)
    closing = threading.Event()

    def listen() -> None:
        while not closing.is_set():
            for record in fetch(consumer, 500, 0.1):
                heard[record.topic, record.key or b""].append(time.perf_counter())

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield heard
    finally:
        closing.set()
        thread.join()
        consumer.close()


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


def cost(bench: Bench) -> None:
    """Processor time of one gateway over full topics, and its memory, for each way of asking."""
    first = 0.0
    for name, way in WAYS.items():
        for number in range(bench.requests):
            bench.answer(bench.ask(number, signed=way.signed))
        bench.bus.settle()
        with bench.gateway(way) as gateway:
            # Counted from when it is ready: what it did before, it did while it was still starting.
            process = psutil.Process(gateway.child.pid)
            before, began, spent = bench.left(), time.perf_counter(), _cpu(process)
            line: list[tuple[float, float]] = []

            def done(
                process: psutil.Process = process,
                line: list[tuple[float, float]] = line,
                whole: int = before,
            ) -> bool:
                left = bench.left()
                if (whole - left) * POINTS >= whole * (len(line) + 1):
                    line.append(((whole - left) / 2, process.memory_info().rss / 2**20))
                return left == 0

            eventually(done, 3600, "the end")
            wall, spent = time.perf_counter() - began, _cpu(process) - spent
        each = spent / before * 2
        first = first or each
        print(
            f"{name}: {each * 1000:.2f} CPU s per 1,000 requests ({each / first:.2f} times the "
            f"first), {1 / each:,.0f} requests per CPU s, {before / 2 / wall:,.0f}/s; memory "
            f"{' '.join(f'{size:.0f}' for _, size in line)} MiB{_slope(line)}",
            flush=True,
        )


def _slope(line: list[tuple[float, float]]) -> str:
    """Says how memory grows over the second half, when all that is made once is made."""
    half = line[len(line) // 2 :]
    if len(half) < 2:
        return ""
    slope = statistics.linear_regression(*zip(*half, strict=True)).slope
    return f", {slope * 100_000:+.1f} MiB per 100,000 requests"


def latency(bench: Bench) -> None:
    """What admit and release add, at a moderate rate, to a hop over the bus alone."""
    routed = INFERENCE_ROUTED.member("echo").name
    count = MODERATE * LATENCY_S
    for name, way in WAYS.items():
        times: dict[str, list[float]] = {"bus": [], "admit": [], "release": []}
        with bench.gateway(way), hearing(bench.bus, [routed, *REPLIES]) as heard:
            sent: dict[tuple[str, bytes], tuple[str, float]] = {}
            for number in _paced(count, 1 / MODERATE):
                bare, key = b"bare-%d" % number, b"bench-%d" % number
                sent[routed, bare] = "bus", time.perf_counter()
                bench.bus.put(routed, bare, b"")
                sent[routed, key] = "admit", time.perf_counter()
                answer = bench.ask(number, signed=way.signed)
                sent[answer.routed.request.reply_to, key] = "release", time.perf_counter()
                bench.answer(answer)
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


def streams(bench: Bench) -> None:
    """The longest silence in each of many streams whose parts pass through release."""
    count, deadline = int(STREAMS_S / PART_S), now() + timedelta(minutes=10)
    everyone = STREAMS + DIRECT
    with bench.gateway(Way()), hearing(bench.bus, REPLIES) as heard:
        for number in _paced(everyone * count, PART_S / everyone):
            seq, stream = divmod(number, everyone)
            tenant = TENANTS[stream % len(TENANTS)]
            part = InferencePart(
                request_id=f"stream-{stream:03}",
                tenant=tenant,
                reply_to=REPLY.member(tenant).name,
                epoch=1,
                seq=seq,
                delta=Delta(content="two words "),
                deadline=deadline,
                endpoint=ECHO,
            )
            target = INFERENCE_PARTS.name if stream < STREAMS else part.reply_to
            bench.bus.put(target, part.request_id.encode(), bench.bus.codec.encode(part))
        eventually(lambda: sum(map(len, heard.values())) >= everyone * count, 60, "all parts")
    silences = {
        key: max(later - earlier for earlier, later in pairwise(at)) * 1000
        for (_, key), at in heard.items()
    }
    longest = [silences[key] for key in sorted(silences)]
    ours, direct = longest[:STREAMS], max(longest[STREAMS:])
    print(
        f"{STREAMS} streams, a part each {PART_S * 1000:.0f} ms: a stream's longest silence is "
        f"{statistics.median(ours):.0f} ms at the median, {max(ours):.0f} ms at most (past the "
        f"gateway {direct:.0f}); {sum(each > STALL_MS for each in ours)} stalled for over "
        f"{STALL_MS} ms",
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


def _request(request_id: str, tenant: str) -> InferenceRequested:
    instant = now()
    return InferenceRequested(
        request_id=request_id,
        tenant=tenant,
        endpoint=ECHO,
        messages=(Message(role=Role.USER, content=TEXT),),
        sampling=Sampling(temperature=0.5, max_tokens=64),
        reply_to=REPLY.member(tenant).name,
        requested_at=instant,
        deadline=instant + timedelta(minutes=10),
    )


def _completed(routed: InferenceRouted) -> InferenceCompleted:
    instant = now()
    return InferenceCompleted(
        routed=routed,
        completion=Completion(
            model="echo",
            content=TEXT,
            finish_reason=FinishReason.STOP,
            usage=Usage(prompt_tokens=100, completion_tokens=100),
        ),
        started_at=instant,
        completed_at=instant,
    )
