"""The catalog's view: how soon it is ready, what a decision costs, how soon a revocation counts.

python -m tests.bench catalog         10,000 objects and 100,000 grants (about a minute)
"""

from __future__ import annotations

import asyncio
import os
import platform
import random
import resource
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

from infra.catalog import CatalogView
from infra.follow import follow
from infra.provision import provision
from infra.registry import Reader, Registry
from schemas.events import CatalogChanged
from schemas.kinds import Grant, Privilege
from schemas.topics import CATALOG_CHANGED
from tests.conftest import running as running_stack
from tests.harness import Bus
from tests.seed import LIMITS, changed, changes

OBJECTS = 10_000
GRANTS = 100_000
USERS, GROUPS, TENANTS = 2_000, 200, 20
QUESTIONS = 20_000
REVOCATIONS = 500

QUERY = Privilege.QUERY


def run() -> None:
    """Prints the figures."""
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores", flush=True)
    with running_stack(["kafka", "registry"]) as stack:
        bus = Bus(stack)
        provision(bus.kafka, bus.registry_settings)
        made = [*changes(documents()), *grants()]
        fill(bus, made)
        asyncio.run(measure(bus, len(made)))


def documents() -> Iterator[dict[str, Any]]:
    """Yields ten catalogs of ten schemas each, with endpoints and tables in them, and people."""
    for number in range(TENANTS):
        yield {"kind": "tenant", "name": f"t{number}"}
    for number in range(USERS):
        spec = {"tenant": f"t{number % TENANTS}"}
        yield {"kind": "user", "name": f"u{number}", "spec": spec}
    for number in range(GROUPS):
        members = [f"u{each}" for each in range(number, USERS, GROUPS)]
        if number % 5:
            members.append(f"g{number - 1}")
        yield {"kind": "group", "name": f"g{number}", "spec": {"members": members}}
    for catalog in range(10):
        yield {"kind": "catalog", "name": f"c{catalog}", "grants": {"everyone": ["USE"]}}
        for schema in range(10):
            name = f"c{catalog}.s{schema}"
            yield {"kind": "schema", "name": name, "grants": {"everyone": ["USE"]}}
    route = {"name": "only", "pool": "pool", "model": "model"}
    for number in range(OBJECTS):
        if number % 2:
            yield {"kind": "table", "name": thing(number), "spec": {"location": "lake:t"}}
        else:
            yield {"kind": "endpoint", "name": thing(number), "spec": {"routes": [route]}}


def thing(number: int) -> str:
    """Returns the name of an object."""
    return f"c{number % 10}.s{number // 10 % 10}.o{number}"


def grants() -> Iterator[CatalogChanged]:
    """Yields what users and groups are granted, object by object."""
    body = Grant(allow=(QUERY,))
    each = GRANTS // OBJECTS
    for number in range(GRANTS):
        at = number * 7919
        to = f"u{at % USERS}" if number % 2 else f"g{at % GROUPS}"
        yield changed("grant", f"{thing(number // each)}/{to}", body)


def fill(bus: Bus, made: Sequence[CatalogChanged]) -> None:
    """Puts changes on the topic."""
    for change in made:
        while len(bus.producer) > 50_000:
            bus.producer.poll(0.1)
        key = CATALOG_CHANGED.key(change).encode()
        bus.put(CATALOG_CHANGED.name, key, bus.codec.encode(change))
    bus.settle()


async def measure(bus: Bus, records: int) -> None:
    """Follows the topic, asks, and revokes."""
    view, applied = CatalogView(LIMITS), asyncio.Queue[int]()

    def hear(change: CatalogChanged) -> None:
        applied.put_nowait(change.position)

    def fail(error: BaseException) -> None:
        raise error

    reader = Reader(bus.codec, Registry(bus.registry_settings))
    before, began = _resident(), time.perf_counter()
    following = await follow(bus.kafka, reader, view, "bench", fail, hear)
    seconds = time.perf_counter() - began
    print(
        f"view ready: {seconds:.2f} s for {records:,} records, "
        f"{records / seconds:,.0f} records/s, {_resident() - before:.0f} MiB"
    )
    while not applied.empty():
        applied.get_nowait()
    ask(view)
    times = [await revoke(bus, applied, number) for number in range(REVOCATIONS)]
    cuts = statistics.quantiles(times, n=100)
    print(f"revocation, produce to applied: p50 {cuts[49]:.1f} ms, p99 {cuts[98]:.1f} ms")
    await following.close()


def ask(view: CatalogView) -> None:
    """Asks what users may do, the first time and again."""
    chance = random.Random(1)
    asked = [
        (f"u{chance.randrange(USERS)}", thing(chance.randrange(OBJECTS))) for _ in range(QUESTIONS)
    ]
    for what in ("cold", "warm"):
        began = time.perf_counter()
        for user, name in asked:
            view.access.may(user, QUERY, name)
        each = (time.perf_counter() - began) / QUESTIONS
        print(f"may, {what}: {each * 1e6:.1f} µs")


async def revoke(bus: Bus, applied: asyncio.Queue[int], number: int) -> float:
    """Revokes a grant; returns the milliseconds until the view has it."""
    revoked = changed("grant", f"{thing(number)}/u{number}", None)
    value = bus.codec.encode(revoked)
    began = time.perf_counter()
    bus.put(CATALOG_CHANGED.name, CATALOG_CHANGED.key(revoked).encode(), value)
    while await applied.get() != revoked.position:
        pass
    return (time.perf_counter() - began) * 1000


def _resident() -> float:
    """Returns the most MiB that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
