"""The spine: what a request costs on its way, beside the cost of the bus itself.

python -m tests.bench spine           hops, throughput and parts (about two minutes)
python -m tests.bench spine memory    memory over 100,000 requests
python -m tests.bench spine model     reply time against vLLM called directly
"""

from __future__ import annotations

import asyncio
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
from confluent_kafka import Consumer
from openai import AsyncOpenAI

from infra.bus import fetch
from infra.stack.workers import MODEL
from infra.telemetry import now
from schemas.events import (
    Completion,
    FinishReason,
    InferenceCompleted,
    InferenceRequested,
    InferenceRouted,
    Message,
    Role,
    Route,
    Sampling,
    Usage,
)
from schemas.topics import (
    INFERENCE_COMPLETED,
    INFERENCE_RECORDED,
    INFERENCE_REQUESTED,
    REPLY,
    Topic,
)
from streams.client import Client
from tests.conftest import CATALOG
from tests.conftest import running as running_stack
from tests.contract.conftest import driven_vllm
from tests.harness import Bus, Process, eventually, running, unique
from tests.seed import changes, publish, seed

ECHO = "main.tests.echo"
GUARDED = "main.tests.guarded"
TENANT = "acme"
TEXT = "The quick brown fox jumps over the lazy dog while a patient reader waits for it all. " * 10

CONNECTION = "main.tests.engine"
OUTSIDE = "outside"
VLLM = "main.tests.vllm"
QUESTION = "What is the capital of France?"
TOKENS = 16

LOAD = 20_000
MEMORY_LOAD = 100_000
IN_FLIGHT = 256


@dataclass(frozen=True)
class Bench:
    """A provisioned bus, and a folder for logs."""

    bus: Bus
    folder: Path

    def gateway(self) -> AbstractContextManager[Process]:
        """Runs a gateway."""
        command = ["-m", "streams", "gateway"]
        return running(self.bus, command, self.folder)

    def recorder(self) -> AbstractContextManager[Process]:
        """Runs a recorder."""
        return running(self.bus, ["-m", "streams", "recorder"], self.folder)

    def echo(self) -> AbstractContextManager[Process]:
        """Runs an echo worker."""
        command = ["-m", "workers", "inference", "--provider", "echo", "--pool", "echo"]
        return running(self.bus, command, self.folder, INFERENCE_MAX_IN_FLIGHT=str(IN_FLIGHT))

    def client(self) -> Client:
        """Returns a client of the bench's tenant."""
        return Client(tenant=TENANT, kafka=self.bus.kafka, registry=self.bus.registry_settings)


def run(what: str = "bus") -> None:
    """Prints the figures of one part: bus, memory or model."""
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores", flush=True)
    with running_stack(["kafka", "registry"]) as stack, tempfile.TemporaryDirectory() as folder:
        bus = Bus(stack)
        seed(bus, CATALOG)
        bench = Bench(bus, Path(folder))
        PARTS[what](bench)


def on_the_bus(bench: Bench) -> None:
    """Hops, throughput beside a bare loop, and parts."""
    bare = bare_loop(bench)
    governed(bench, bare)
    with bench.gateway(), bench.echo():
        asyncio.run(hops(bench))
        asyncio.run(parts(bench, ECHO, "straight to the caller"))
        asyncio.run(parts(bench, GUARDED, "through release"))


def bare_loop(bench: Bench) -> float:
    """Consume, decode, encode, produce, and nothing else; returns records per CPU second."""
    source, target = (_topic(unique(name)) for name in ("bench-in", "bench-out"))
    bench.bus.make(source, target)
    _fill(bench, source, [_request(number) for number in range(LOAD)])
    consumer = Consumer(
        {
            "bootstrap.servers": bench.bus.kafka.bootstrap_servers,
            "group.id": unique("bare"),
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([source.name])
    codec, producer, done = bench.bus.codec, bench.bus.producer, 0
    records = fetch(consumer, 500, 30)
    began, cpu = time.perf_counter(), time.process_time()
    while done < LOAD:
        for record in records:
            event = codec.decode(record.value, InferenceRequested)
            producer.produce(target.name, codec.encode(event), record.key)
        producer.poll(0)
        done += len(records)
        records = fetch(consumer, 500, 1) if done < LOAD else []
    producer.flush()
    wall, spent = time.perf_counter() - began, time.process_time() - cpu
    consumer.close()
    print(f"bare loop: {LOAD / wall:,.0f} records/s, {LOAD / spent:,.0f} per CPU second")
    return LOAD / spent


def governed(bench: Bench, bare: float) -> None:
    """What one gateway process admits and releases, given full topics."""
    requests = [_request(number) for number in range(LOAD)]
    _fill(bench, INFERENCE_REQUESTED, requests)
    _fill(bench, INFERENCE_COMPLETED, [_completed(request) for request in requests])
    with bench.gateway() as gateway:
        # Counted from when it is ready: what it did before, it did while it was still starting.
        process = psutil.Process(gateway.child.pid)
        before, began, cpu = _left(bench), time.perf_counter(), _cpu(process)
        eventually(lambda: not _left(bench), 300, "the end")
        wall, spent = time.perf_counter() - began, _cpu(process) - cpu
    print(
        f"admit + release: {before / 2 / wall:,.0f} requests/s, "
        f"{before / 2 / spent:,.0f} per CPU second; a record costs "
        f"{bare * spent / before:.0f} times what it costs the bare loop"
    )


def _left(bench: Bench) -> int:
    topics = (INFERENCE_REQUESTED.name, INFERENCE_COMPLETED.name)
    return sum(bench.bus.lag("gateway", topic) for topic in topics)


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def hops(bench: Bench) -> None:
    """From produce to reply through admit, an echo worker and release."""
    async with bench.client() as client:

        async def ask() -> None:
            await client.chat(ECHO, "ping")

        await _timed(ask, 50, 1)
        for at_once in (1, 32):
            times = await _timed(ask, 1000, at_once)
            print(f"produce to reply, {at_once} at once: {_spread(times)}")


async def parts(bench: Bench, endpoint: str, way: str) -> None:
    """Parts per second that reach one client; each word is one part at coalescing's cadence."""
    async with bench.client() as client:
        words = "word " * 2000
        count = 0

        async def ask() -> None:
            nonlocal count
            async for part in client.stream(endpoint, words):
                count += bool(part.content)

        began = time.perf_counter()
        await asyncio.gather(*(ask() for _ in range(64)))
        wall = time.perf_counter() - began
    print(
        f"64 streams of 2,000 words {way}: {count / wall:,.0f} parts/s, "
        f"{64 * 2000 / wall:,.0f} words/s"
    )


def memory(bench: Bench) -> None:
    """Resident memory of each process over many requests."""
    with bench.gateway() as gateway, bench.recorder() as recorder, bench.echo() as echo:
        watched = {"gateway": gateway, "recorder": recorder, "worker": echo}
        sizes: dict[str, list[float]] = {name: [] for name in watched}

        def measure() -> None:
            for name, process in watched.items():
                resident = psutil.Process(process.child.pid).memory_info().rss
                sizes[name].append(resident / 2**20)

        asyncio.run(_load(bench, measure))
        eventually(lambda: bench.bus.lag("recorder", INFERENCE_RECORDED.name) == 0, 120, "the rows")
    for name, series in sizes.items():
        print(f"{name}: {' '.join(f'{size:.0f}' for size in series)} MiB, every 10,000 requests")


async def _load(bench: Bench, measure: Callable[[], None]) -> None:
    async with bench.client() as client:

        async def ask() -> None:
            await client.chat(ECHO, TEXT)

        for _ in range(MEMORY_LOAD // 10_000):
            await _timed(ask, 10_000, IN_FLIGHT)
            measure()


def model(bench: Bench) -> None:
    """Reply time over the bus against calling the same engine over its own HTTP server."""
    asyncio.run(_model(bench))


async def _model(bench: Bench) -> None:
    async with driven_vllm() as engine:
        command = ["-m", "workers", "inference", "--provider", "outside", "--pool", OUTSIDE]
        connection = {"type": "openai", "url": engine.said, "private": True}
        route = {"name": "outside", "pool": OUTSIDE, "model": MODEL, "connection": CONNECTION}
        made = changes(
            [
                {"kind": "connection", "name": CONNECTION, "spec": connection},
                {"kind": "endpoint", "name": VLLM, "spec": {"routes": [route]}},
            ]
        )
        publish(bench.bus, *made)
        direct = AsyncOpenAI(base_url=engine.said, api_key="none", max_retries=0)
        with (
            bench.gateway(),
            running(bench.bus, command, bench.folder),
        ):
            async with bench.client() as client:

                async def over_http() -> None:
                    await direct.chat.completions.create(
                        model=MODEL,
                        messages=[{"role": "user", "content": QUESTION}],
                        temperature=0,
                        max_tokens=TOKENS,
                    )

                async def over_the_bus() -> None:
                    sampling = Sampling(temperature=0, max_tokens=TOKENS)
                    await client.chat(VLLM, QUESTION, sampling=sampling)

                for ask in (over_http, over_the_bus):
                    await ask()
                # Turn by turn, so that whatever else the machine does befalls both.
                http, bus = [], []
                for _ in range(40):
                    http += await _timed(over_http, 1, 1)
                    bus += await _timed(over_the_bus, 1, 1)
        await direct.close()
    added = statistics.median(bus) - statistics.median(http)
    print(f"{TOKENS} tokens over HTTP: {_spread(http)}")
    print(f"{TOKENS} tokens over the bus: {_spread(bus)}; added p50 {added:.1f} ms")


PARTS: dict[str, Callable[[Bench], None]] = {
    "bus": on_the_bus,
    "memory": memory,
    "model": model,
}


async def _timed(ask: Callable[[], Awaitable[None]], count: int, at_once: int) -> list[float]:
    """Returns the milliseconds of each of so many calls, so many at a time."""
    times: list[float] = []
    left = iter(range(count))

    async def lane() -> None:
        for _ in left:
            began = time.perf_counter()
            await ask()
            times.append((time.perf_counter() - began) * 1000)

    await asyncio.gather(*(lane() for _ in range(at_once)))
    return times


def _spread(times: list[float]) -> str:
    cuts = statistics.quantiles(times, n=100)
    return f"p50 {cuts[49]:.1f} ms, p99 {cuts[98]:.1f} ms"


def _topic(name: str) -> Topic[InferenceRequested]:
    return Topic(name=name, event=InferenceRequested, key=lambda request: request.tenant)


def _fill(bench: Bench, topic: Topic[Any], events: Sequence[Any]) -> None:
    for event in events:
        while bench.bus.producer.poll(0) and len(bench.bus.producer) > 50_000:
            pass
        # Spread over the partitions, as many tenants would be.
        key = event.request_id if hasattr(event, "request_id") else event.routed.request.request_id
        bench.bus.put(topic.name, key.encode(), bench.bus.codec.encode(event))
    bench.bus.settle()


def _request(number: int) -> InferenceRequested:
    instant = now()
    return InferenceRequested(
        request_id=f"bench-{number}",
        tenant=TENANT,
        endpoint=ECHO,
        messages=(Message(role=Role.USER, content=TEXT),),
        sampling=Sampling(temperature=0.5, max_tokens=64),
        reply_to=REPLY.member(TENANT).name,
        requested_at=instant,
        deadline=instant + timedelta(minutes=10),
    )


def _completed(request: InferenceRequested) -> InferenceCompleted:
    instant = now()
    route = Route(name="local", pool="echo", model="echo")
    return InferenceCompleted(
        routed=InferenceRouted(request=request, route=route, routed_at=instant),
        completion=Completion(
            model="echo",
            content=TEXT,
            finish_reason=FinishReason.STOP,
            usage=Usage(prompt_tokens=100, completion_tokens=100),
        ),
        started_at=instant,
        completed_at=instant,
    )
