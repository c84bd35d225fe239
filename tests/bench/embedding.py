"""Embedding: what gateway, worker and bus leave of the model's own speed.

python -m tests.bench embedding                 2,048 texts each way, three turns (minutes)
python -m tests.bench embedding 512 1           fewer texts, fewer turns

The bare model embeds all texts sorted by length, a batch on each core, in a process of its own
that does nothing else. Over the bus they go as an index sends them: 64 a request, four requests
under way. The ways take turns in one run, so that their ratio holds whatever else the machine does;
processor time a text says what the platform adds even where others take the cores.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import psutil

from infra.asker import Asker
from infra.bootstrap import ROOT, python_of
from infra.catalog import CatalogView
from infra.embedding import Embedder
from infra.models import CARRIED
from infra.registry import Registry
from infra.settings import ClientSettings, RedisSettings
from infra.stack import workers
from infra.stack.settings import StackSettings
from schemas.topics import REPLY
from tests.conftest import CATALOG
from tests.conftest import running as running_stack
from tests.harness import Bus, running
from tests.seed import LIMITS, changes, publish, seed

SENTENCES = "main.tests.sentences"
TENANT = "acme"
WORDS = (
    "a",
    "calm",
    "every",
    "its",
    "patient",
    "reader",
    "sea",
    "shore",
    "waits",
    "waves",
    "while",
)
# Words of a text: as of titles and of chunks.
SHORTEST, LONGEST = 5, 120
BARE = """
import json, sys, time
from concurrent.futures import ThreadPoolExecutor
from workers.providers.encoder import Engine, load
encoder = load(sys.argv[1], Engine())
cores = ThreadPoolExecutor(encoder.lanes)
print(flush=True)
for line in sys.stdin:
    texts = json.loads(line)
    began = time.perf_counter()
    tokens = sorted((each.ids for each in encoder.read(texts)), key=len)
    batches = [tokens[at : at + encoder.most] for at in range(0, len(tokens), encoder.most)]
    # The longest first, so that no core is left alone with it.
    list(cores.map(encoder.embed, reversed(batches)))
    print(json.dumps([time.perf_counter() - began, sum(map(len, tokens))]), flush=True)
"""


class Bare:
    """The model in a process of its own that does nothing else; use it as a context."""

    def __enter__(self) -> Self:
        service = workers.embedding(StackSettings())
        model = f"package:{CARRIED[workers.EMBEDDER]}"
        self._child = subprocess.Popen(
            [str(python_of("worker")), "-c", BARE, model],
            cwd=ROOT,
            env={**os.environ, **service.environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._child.pid
        self._read()
        return self

    def __exit__(self, *_: object) -> None:
        self._child.communicate()

    def embed(self, texts: Sequence[str]) -> tuple[float, int]:
        """Embeds texts in full batches; returns the seconds that took, and how many tokens."""
        assert self._child.stdin is not None
        self._child.stdin.write(f"{json.dumps(texts)}\n")
        self._child.stdin.flush()
        seconds, tokens = json.loads(self._read())
        return float(seconds), int(tokens)

    def rate(self, texts: Sequence[str]) -> float:
        """Embeds texts and returns how many in a second."""
        return len(texts) / self.embed(texts)[0]

    def _read(self) -> str:
        assert self._child.stdout is not None
        return self._child.stdout.readline()


def run(count: str = "2048", turns: str = "3") -> None:
    """Prints texts a second of both ways, and their ratio."""
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores", flush=True)
    drawn = random.Random(7)
    texts = [
        f"{number} {' '.join(drawn.choices(WORDS, k=drawn.randint(SHORTEST, LONGEST)))}"
        for number in range(int(count))
    ]
    with running_stack(["kafka", "registry"]) as stack, tempfile.TemporaryDirectory() as folder:
        stack.prepare(["embedding"])
        bus = Bus(stack)
        seed(bus, CATALOG)
        measure(bus, Path(folder), texts, int(turns))


def measure(bus: Bus, folder: Path, texts: Sequence[str], turns: int) -> None:
    """Lets both ways take turns."""
    route = {"name": "local", "pool": "embedding", "model": workers.EMBEDDER}
    publish(bus, *changes([{"kind": "endpoint", "name": SENTENCES, "spec": {"routes": [route]}}]))
    service = workers.embedding(StackSettings())
    python, *command = service.command
    environment = {**service.environment, **bus.environment}
    alone: list[float] = []
    together: list[float] = []
    with (
        Bare() as bare,
        running(bus, ["-m", "streams", "gateway"], folder) as gateway,
        running(bus, command, folder, python=python, start_s=300, **environment) as worker,
    ):
        watched = {
            "the bare model": psutil.Process(bare.pid),
            "worker": psutil.Process(worker.child.pid),
            "gateway": psutil.Process(gateway.child.pid),
        }
        spent = dict.fromkeys(watched, 0.0)
        for turn in range(turns + 1):
            before = {name: _cpu(process) for name, process in watched.items()}
            seconds, tokens = bare.embed(texts)
            over_the_bus = asyncio.run(embedded(bus, texts))
            # The first turn warms both.
            if turn:
                alone.append(len(texts) / seconds)
                together.append(len(texts) / over_the_bus)
                for name, process in watched.items():
                    spent[name] += _cpu(process) - before[name]
                print(f"turn {turn}: {alone[-1]:,.1f} and {together[-1]:,.1f} texts/s", flush=True)
    ratio = statistics.median(two / one for one, two in zip(alone, together, strict=True))
    print(f"{len(texts)} texts of {tokens / len(texts):.0f} tokens")
    print(f"the bare model: {statistics.median(alone):,.1f} texts/s")
    print(f"gateway and worker over the bus: {statistics.median(together):,.1f} texts/s")
    print(f"over the bus / bare: {ratio:.2f}")
    for name, seconds in spent.items():
        print(f"{name}: {1000 * seconds / len(texts) / turns:.2f} ms of processor time a text")
    share = spent["the bare model"] / (spent["worker"] + spent["gateway"])
    print(f"processor time, bare / worker and gateway: {share:.2f}")


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def embedded(bus: Bus, texts: Sequence[str]) -> float:
    """Returns in how many seconds all texts are embedded over the bus, without a cache."""
    client = ClientSettings(tenant=TENANT, principal="", key="")
    registry, topic = Registry(bus.registry_settings), REPLY.member(TENANT).name
    async with (
        Asker(bus.kafka, registry, TENANT, topic, None) as asker,
        Embedder(asker, client, CatalogView(LIMITS), RedisSettings(url="")) as embedder,
    ):
        began = time.perf_counter()
        await embedder.embed(SENTENCES, "", texts, dimensions=384)
        return time.perf_counter() - began
