"""Streams that go on at the same time, and how long each of them stands still.

Tokens are joined to parts by the worker's own coalescer, at the worker's pace; first, to compare,
at one that keeps to its shortest window, as if each stream were alone. What the first seconds bring
is not measured: broker and gateway are cold then.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import pairwise

import psutil

from infra.bus import Record
from infra.settings import InferenceSettings
from infra.telemetry import now
from schemas.events import Delta, InferencePart, InferenceReplied
from schemas.topics import INFERENCE_PARTS, REPLY
from tests.bench.asking import ECHO, REPLIES, TENANTS, TEXT, WAYS, Bench, Way, has_names, hearing
from tests.harness import eventually
from workers.inference import Coalescer, Pace

STREAMS = 128
# Streams that go straight to the caller: what they suffer is not the gateway's doing.
DIRECT = 8
EVERYONE = STREAMS + DIRECT
TOKEN_S = 0.02
COLD_S, MEASURED_S = 5, 15
# Tokens that are due are given to their streams so often.
STEP_S = 0.005
STALL_MS = 200
WORDS = [f"{word} " for word in TEXT.split()]
SETTINGS = InferenceSettings()
SHORTEST_S = SETTINGS.coalesce_ms / 1000

# When something came of a stream, by topic and by its name; what shows no text under another name.
Heard = Mapping[tuple[str, bytes], Sequence[float]]


@dataclass(frozen=True)
class Manner:
    """What parts are held to, and how many a second a worker lets its streams send."""

    way: Way
    parts_per_s: float = SETTINGS.parts_per_s


MANNERS: dict[str, Manner] = {
    "each as if alone": Manner(Way(), parts_per_s=1e9),
    "policies off": Manner(Way()),
    "masked": Manner(WAYS["governed"]),
}


def streams(bench: Bench) -> None:
    """The longest silence in each of many streams whose parts pass through release."""
    for name, manner in MANNERS.items():
        said = _Said(bench, Pace(SHORTEST_S, manner.parts_per_s))
        with (
            bench.gateway(manner.way) as gateway,
            hearing(bench.bus, REPLIES, partial(_name, bench)) as heard,
        ):
            if manner.way.policies:
                eventually(partial(has_names, gateway), 60, "the names of people")
            process = psutil.Process(gateway.child.pid)
            before, since = _cpu(process), time.perf_counter() + COLD_S
            asyncio.run(said.all())
            eventually(partial(_has, heard, said.parts), 60, "all parts")
            spent = (_cpu(process) - before) / said.through
        print(
            f"{STREAMS} streams, a token each {TOKEN_S * 1000:.0f} ms, {name}: "
            f"{said.parts / (COLD_S + MEASURED_S):,.0f} parts/s, a part takes the gateway "
            f"{spent * 1e6:.0f} CPU us; {_told(heard, since)}; load {os.getloadavg()[0]:.1f}",
            flush=True,
        )


class _Said:
    """What many streams say at the same time."""

    def __init__(self, bench: Bench, pace: Pace) -> None:
        self._bench = bench
        self._deadline = now() + timedelta(minutes=10)
        self._seqs = [0] * EVERYONE
        self._coalescers = [
            Coalescer(pace, partial(self._send, stream)) for stream in range(EVERYONE)
        ]

    @property
    def parts(self) -> int:
        """How many parts there were."""
        return sum(self._seqs)

    @property
    def through(self) -> int:
        """How many of them went through the gateway."""
        return sum(self._seqs[:STREAMS])

    async def all(self) -> None:
        """Says a token of each stream at its time, until the end."""
        began, done = time.perf_counter(), 0
        count = int((COLD_S + MEASURED_S) / TOKEN_S) * EVERYONE
        while done < count:
            await asyncio.sleep(STEP_S)
            due = int((time.perf_counter() - began) / TOKEN_S * EVERYONE)
            for number in range(done, min(due, count)):
                token, stream = divmod(number, EVERYONE)
                self._coalescers[stream].add(Delta(content=WORDS[token % len(WORDS)]))
            done = due
        for each in self._coalescers:
            each.flush()
            each.close()

    def _send(self, stream: int, delta: Delta) -> None:
        bus, tenant = self._bench.bus, TENANTS[stream % len(TENANTS)]
        part = InferencePart(
            request_id=f"{'through' if stream < STREAMS else 'direct'}-{stream:03}",
            tenant=tenant,
            reply_to=REPLY.member(tenant).name,
            epoch=1,
            seq=self._seqs[stream],
            delta=delta,
            deadline=self._deadline,
            endpoint=ECHO,
        )
        self._seqs[stream] += 1
        target = INFERENCE_PARTS.name if stream < STREAMS else part.reply_to
        bus.put(target, part.request_id.encode(), bus.codec.encode(part))


def _name(bench: Bench, record: Record) -> bytes:
    """Returns the name of a record's stream, another where the part shows no text."""
    key = record.key or b""
    if not key.startswith(b"through"):
        return key
    delta = bench.bus.codec.decode(record.value, InferenceReplied).delta
    return key if delta and delta.content else b"held-" + key


def _told(heard: Heard, since: float) -> str:
    """Says how long streams stood still after a moment."""
    texts: dict[bytes, list[float]] = {}
    parts: dict[bytes, list[float]] = {}
    for (_, name), moments in heard.items():
        key = name.removeprefix(b"held-")
        parts.setdefault(key, []).extend(moments)
        if key == name:
            texts.setdefault(key, []).extend(moments)
    ours = _longest(parts, b"through", since)
    shown = _longest(texts, b"through", since)
    direct = _longest(parts, b"direct", since)
    return (
        f"a stream's longest silence is {statistics.median(ours):.0f} ms at the median, "
        f"{max(ours):.0f} at most (past the gateway {max(direct):.0f}), "
        f"{sum(each > STALL_MS for each in ours)} stalled for over {STALL_MS} ms; without text "
        f"{statistics.median(shown):.0f} at the median, {max(shown):.0f} at most"
    )


def _longest(moments: Mapping[bytes, list[float]], kind: bytes, since: float) -> list[float]:
    """Returns the longest silence of each stream of a kind, in ms."""
    return [
        max(later - earlier for earlier, later in pairwise(sorted(at)) if earlier > since) * 1000
        for name, at in moments.items()
        if name.startswith(kind)
    ]


def _has(heard: Heard, count: int) -> bool:
    return sum(map(len, tuple(heard.values()))) >= count


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
