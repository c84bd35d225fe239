"""The meter: what is being used right now, from the log, before it is in any table.

Knows the topic of recorded requests. Adds each of their rows once, however often it lies there, and
keeps none: only sums, and how often which latency came.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from infra.bus import Record
from infra.figures import ERRORS, Figure, Grouping
from infra.registry import Reader, Registry, SchemaMissing
from infra.settings import KafkaSettings, RegistrySettings
from infra.tail import Tail
from schemas.codec import Codec, Unreadable
from schemas.events import InferenceRecorded, Outcome
from schemas.topics import INFERENCE_RECORDED

# Latencies are told to within 2 %.
STEP = math.log(1.02)
# Rows that are remembered, by their ids, so that none counts twice.
REMEMBERED = 1_000_000
# Seconds of the past of which each is counted for itself.
SECONDS = 60
REFRESH_S = 1.0


@dataclass(slots=True)
class Sums:
    """What a group of requests used so far."""

    requests: int = 0
    errors: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    saved_tokens: int = 0
    cost: Decimal = Decimal(0)
    unpriced: int = 0
    latencies: Counter[int] = field(default_factory=Counter)

    def add(self, event: InferenceRecorded) -> None:
        """Adds a request."""
        self.requests += 1
        self.errors += event.outcome in ERRORS
        self.prompt_tokens += event.prompt_tokens
        self.cached_tokens += event.cached_tokens
        self.completion_tokens += event.completion_tokens
        self.reasoning_tokens += event.reasoning_tokens
        self.saved_tokens += event.saved_tokens
        self.cost += event.cost or 0
        self.unpriced += event.cost is None
        if event.outcome is Outcome.COMPLETED:
            self.latencies[round(math.log(max(event.elapsed_ms, 1)) / STEP)] += 1

    def figure(self, name: str | None) -> Figure:
        """Returns the sums as they are."""
        return Figure(
            name=name,
            requests=self.requests,
            errors=self.errors,
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.cached_tokens,
            completion_tokens=self.completion_tokens,
            reasoning_tokens=self.reasoning_tokens,
            saved_tokens=self.saved_tokens,
            cost=self.cost,
            unpriced=self.unpriced,
            p50_ms=self._within(0.5),
            p99_ms=self._within(0.99),
        )

    def _within(self, part: float) -> int | None:
        """Returns the latency that a part of the answers stayed within."""
        left = math.ceil(self.latencies.total() * part)
        for step in sorted(self.latencies):
            left -= self.latencies[step]
            if left <= 0:
                return round(math.exp(step * STEP))
        return None


class Meter:
    """Sums of requests, by groups, as they come."""

    def __init__(self, by: Grouping) -> None:
        self._by = by
        self._all = Sums()
        self._groups: dict[str, Sums] = {}
        self._known: OrderedDict[str, None] = OrderedDict()
        self._seconds: deque[tuple[int, int]] = deque([(0, 0)] * SECONDS, SECONDS)
        self._told = 0, 0

    def take(self, event: InferenceRecorded) -> None:
        """Adds a request, unless it has been."""
        name = event.row_id or event.request_id
        if name in self._known:
            return
        self._known[name] = None
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        self._all.add(event)
        self._groups.setdefault(self._by.of(event) or "", Sums()).add(event)

    def figures(self) -> list[Figure]:
        """Returns the sums: of all requests first, then of each group, the dearest first."""
        groups = [sums.figure(name) for name, sums in self._groups.items()]
        groups.sort(key=lambda each: (-each.cost, -each.requests, each.name))
        return [self._all.figure(None), *groups] if groups else []

    def second(self) -> list[tuple[int, int]]:
        """Ends a second; returns the requests and errors of each of the last ``SECONDS``."""
        before, self._told = self._told, (self._all.requests, self._all.errors)
        self._seconds.append((self._told[0] - before[0], self._told[1] - before[1]))
        return list(self._seconds)


async def follow(
    by: Grouping, since: datetime | None, kafka: KafkaSettings, registry: RegistrySettings
) -> AsyncGenerator[Meter, None]:
    """Yields a meter every second, for ever, with all that was recorded by then.

    Args:
        by: What usage is told apart by.
        since: The first instant of interest; None for what is yet to come.
        kafka: Where the broker is.
        registry: Where the registry is.

    Raises:
        BusUnreachable: No broker answers.
        LookupError: There is no such topic.
        RegistryUnreachable: The registry does not answer.
        TailBroken: Reading cannot go on.
    """
    schemas = Registry(registry)
    reader = Reader(Codec(await asyncio.to_thread(schemas.ids)), schemas)
    meter = Meter(by)
    arrived: asyncio.Queue[list[Record]] = asyncio.Queue()
    broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    tail = Tail(
        kafka,
        [INFERENCE_RECORDED.name],
        since,
        arrived.put_nowait,
        "usage",
        fail=broken.set_exception,
        committed=False,
    )
    await tail.start()
    try:
        while True:
            await asyncio.wait([broken], timeout=REFRESH_S)
            if broken.done():
                broken.result()
            while not arrived.empty():
                await _count(meter, reader, arrived.get_nowait())
            yield meter
    finally:
        await tail.close()


async def _count(meter: Meter, reader: Reader, records: list[Record]) -> None:
    for record in records:
        try:
            meter.take(await reader.read(record.value, InferenceRecorded))
        # The recorder makes a dead letter of it.
        except (SchemaMissing, Unreadable):
            continue
