"""Indexes: how fresh they are, how fast they fill, how fast they answer, what they embed anew.

python -m tests.bench index                              all of it (about 12 minutes on 2 cores)
python -m tests.bench index --only freshness --rates 50  a part
python -m tests.bench index --help                       the sizes

``freshness``  PostgreSQL, Debezium, the index processor, Weaviate: from the return of the commit
               that changes a row's text until a search by vector returns the row as it then is.
               Searches go one after the other; what is told is at most one of them too long.
``load``       rows a second of an index that is built, against the model that embeds the same
               texts in a process of its own while nothing else runs, before and after.
``query``      searches one after the other, of the store and as whole requests on the bus.
``rewrite``    how many texts are embedded after an UPDATE of all rows that changes 1 % of them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from infra.stack import workers
from infra.stack.local import LocalStack
from infra.stack.settings import StackSettings
from infra.vectors import Place, Vectors
from schemas.indexes import IndexSpec
from streams.client import Client, RequestRefused
from tests.bench import searching
from tests.bench.embedding import LONGEST, SENTENCES, Bare
from tests.bench.syncing import Followed
from tests.broker.capturing import Town
from tests.broker.storing import settings_of
from tests.conftest import running as running_stack
from tests.harness import Bus, running, soon, unique
from tests.seed import changes, publish, seed

PARTS = ("load", "freshness", "rewrite", "query")
TENANT = "index"
CATALOG: list[dict[str, Any]] = [
    {"kind": "catalog", "name": "main", "grants": {"everyone": ["USE"]}},
    {"kind": "schema", "name": "main.tests", "grants": {"everyone": ["USE", "QUERY", "MODIFY"]}},
    {
        "kind": "endpoint",
        "name": SENTENCES,
        "spec": {"routes": [{"name": "local", "pool": "embedding", "model": workers.EMBEDDER}]},
    },
    {"kind": "tenant", "name": TENANT, "spec": {"accept_unsigned": True}},
]
ASKS = {"CLIENT_KEY": "", "CLIENT_PRINCIPAL": "", "CLIENT_TENANT": TENANT}
FOUND = {**searching.SPEC, "endpoint": SENTENCES}
START_S = 300.0
OURS = {
    "gateway": ["-m", "streams", "gateway"],
    "index": ["-m", "streams", "index"],
    "search": ["-m", "workers", "inference", "--provider", "search", "--pool", "search"],
    "sources": ["-m", "workers", "sources"],
}


def run(*arguments: str) -> None:
    """Prints the figures."""
    asked = _parser().parse_args(arguments)
    parts = [part for part in PARTS if part in asked.only]
    synced = set(parts) - {"query"}
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores", flush=True)
    services = ["kafka", "redis", "registry", "weaviate"]
    if synced:
        services += ["connect", "postgres"]
    with running_stack(services) as stack, tempfile.TemporaryDirectory() as folder:
        stack.prepare(["embedding"])
        bus = Bus(stack)
        seed(bus, CATALOG)
        if synced:
            with _started(bus, Path(folder), {"gateway", "index", "sources"}) as ours:
                pids = {name: pid for name in services if (pid := stack.pid(name))}
                town = Town(stack, bus, Path(folder))
                asyncio.run(_sync(town, asked, parts, {**pids, **ours}))
        if "query" in parts:
            index = f"main.tests.{unique('found')}"
            # The topic of those who search comes with it.
            publish(bus, *changes([{"kind": "index", "name": index, "spec": FOUND}]))
            with _started(bus, Path(folder), {"gateway", "search"}):
                asyncio.run(_query(stack, bus, index, asked))


def _parser() -> argparse.ArgumentParser:
    def numbers(said: str) -> list[int]:
        return [int(each) for each in said.split(",")]

    parser = argparse.ArgumentParser(prog="python -m tests.bench index")
    parser.add_argument("--only", type=lambda said: said.split(","), default=PARTS)
    parser.add_argument("--rows", type=int, default=2000, help="of the table")
    parser.add_argument("--longest", type=int, default=LONGEST, help="text of it, in words")
    parser.add_argument("--turns", type=int, default=2, help="of loading it")
    parser.add_argument("--rates", type=numbers, default=[1, 50, 200], help="changes a second")
    parser.add_argument("--seconds", type=int, default=20, help="of changes at each rate")
    parser.add_argument("--chunks", type=numbers, default=[20_000, 100_000], help="to search")
    parser.add_argument("--queries", type=int, default=400, help="of each kind")
    return parser


@contextmanager
def _started(bus: Bus, folder: Path, names: set[str]) -> Iterator[dict[str, int]]:
    """Runs processes of ours and the one that embeds, for a block; yields their ids."""
    service = workers.embedding(StackSettings())
    worker, *embeds = service.command
    commands = {"model": (worker, embeds), **{name: (sys.executable, OURS[name]) for name in names}}
    environment = {**service.environment, **bus.environment, **ASKS}
    with ExitStack() as opened:
        started = {
            name: opened.enter_context(
                running(bus, command, folder, python=python, start_s=START_S, **environment)
            )
            for name, (python, command) in commands.items()
        }
        yield {name: process.child.pid for name, process in started.items()}


async def _sync(
    town: Town, asked: argparse.Namespace, parts: list[str], pids: dict[str, int]
) -> None:
    async with Vectors.open(settings_of(town.stack)) as vectors:
        followed = Followed(town, vectors, asked.rows, asked.longest, pids)
        await asyncio.to_thread(followed.capture)
        if "load" in parts:
            with Bare() as bare:
                await followed.load(bare, asked.turns)
        else:
            await followed.follow()
        if "freshness" in parts:
            await followed.freshness(asked.rates, asked.seconds)
        if "rewrite" in parts:
            await followed.rewrite()


async def _query(stack: LocalStack, bus: Bus, index: str, asked: argparse.Namespace) -> None:
    spec, made = IndexSpec.model_validate(FOUND), searching.Made(Place(index, 1))
    first, *_ = asked.chunks
    async with (
        Vectors.open(settings_of(stack)) as vectors,
        Client(
            tenant=TENANT,
            principal="",
            key="",
            kafka=bus.kafka,
            registry=bus.registry_settings,
        ) as client,
    ):
        for size in asked.chunks:
            await searching.fill(vectors, spec, made, size)
            await searching.store(vectors, spec, made, asked.queries)
            if size == first:
                await soon(lambda: _answers(client, index), 60, "an index that answers")
                await searching.over_the_bus(client, made, asked.queries)


async def _answers(client: Client, index: str) -> bool:
    with suppress(RequestRefused):
        return bool((await client.search(index, "word1")).hits)
    return False
