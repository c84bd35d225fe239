"""The catalog's store and relay: from the commit to the topic, and very many entries at once.

python -m tests.bench store
"""

from __future__ import annotations

import threading
import time
from statistics import median

from confluent_kafka import Consumer, TopicPartition

from catalog.store.store import Store
from infra.registry import Registry
from infra.sql import connect
from infra.stack.local import LocalStack
from schemas.events import CatalogChanged
from schemas.kinds import Privilege
from schemas.topics import CATALOG_CHANGED, TOPICS
from tests.catalog.acting import ACTOR, begun, live, route
from tests.catalog.conftest import place
from tests.catalog.relaying import on_topic, relaying
from tests.conftest import running
from tests.harness import Bus, eventually, unique

CHANGES = 500
PAUSE_S = 0.02
OBJECTS, GRANTS, USERS = 10_000, 100_000, 100


def run() -> None:
    """Prints the figures."""
    with running(["kafka", "postgres", "registry"]) as stack:
        bus = Bus(stack)
        bus.make(*(topic for topic in TOPICS if not topic.family))
        for topic in TOPICS:
            Registry(bus.registry_settings).register(topic)
        store = _store(stack)
        with relaying(bus, store):
            _latency(bus, store)
            _throughput(store)
        _bulk(store)
        _fill(bus, store)


def _store(stack: LocalStack) -> Store:
    store = Store(connect(place(stack, unique("bench"))))
    store.migrate()
    return begun(store)


def _latency(bus: Bus, store: Store) -> None:
    seen: dict[int, float] = {}
    listening, done = threading.Event(), threading.Event()

    def listen() -> None:
        consumer = Consumer(
            {
                "bootstrap.servers": bus.kafka.bootstrap_servers,
                "group.id": unique("bench"),
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": 10,
            }
        )
        here = TopicPartition(CATALOG_CHANGED.name, 0)
        here.offset = consumer.get_watermark_offsets(here, 10)[1]
        consumer.assign([here])
        listening.set()
        while not done.is_set():
            message = consumer.poll(0.1)
            if message is not None and message.error() is None:
                arrived = time.perf_counter()
                changed = bus.codec.decode(message.value(), CatalogChanged)
                seen[changed.position] = arrived
        consumer.close()

    reader = threading.Thread(target=listen)
    reader.start()
    listening.wait()
    taken, committed = [], {}
    for number in range(CHANGES):
        began = time.perf_counter()
        with store.change(ACTOR) as change:
            change.update("catalog", "main", comment=f"number {number}")
        position = change.changes[-1].position
        committed[position] = time.perf_counter()
        taken.append(committed[position] - began)
        time.sleep(PAUSE_S)
    eventually(lambda: set(committed) <= set(seen), what="all changes on the topic")
    done.set()
    reader.join()
    _say("one change, begun to committed", taken)
    _say("committed to read from the topic", [seen[each] - committed[each] for each in committed])


def _throughput(store: Store) -> None:
    began = time.perf_counter()
    for number in range(CHANGES):
        with store.change(ACTOR) as change:
            change.update("catalog", "main", comment=f"again {number}")
    committed = time.perf_counter() - began
    eventually(lambda: not store.waiting(), what="an empty outbox")
    told = time.perf_counter() - began
    print(
        f"one after the other: {CHANGES / committed:.0f}/s committed, {CHANGES / told:.0f}/s told"
    )


def _bulk(store: Store) -> None:
    began = time.perf_counter()
    with store.change(ACTOR) as change:
        for number in range(USERS):
            change.create("user", f"u{number}", owner="root", spec={"tenant": "demo"})
        for number in range(OBJECTS):
            change.create("endpoint", f"main.default.e{number}", owner="root", spec=route())
        made = time.perf_counter()
        for number in range(GRANTS):
            user = number % 10 + number // 10 % 9 * 10
            change.grant(f"main.default.e{number // 10}", f"u{user}", [Privilege.QUERY], [])
    committed = time.perf_counter()
    entries = sum(1 for _ in store.entries())
    read = time.perf_counter()
    print(
        f"in one change: {OBJECTS} objects {made - began:.1f} s, {GRANTS} grants and the commit "
        f"{committed - made:.1f} s; {entries} entries read in {read - committed:.1f} s"
    )


def _fill(bus: Bus, store: Store) -> None:
    began = time.perf_counter()
    with relaying(bus, store):
        told = time.perf_counter() - began
    print(f"all of it published and compared in {told:.1f} s: {on_topic(bus) == live(store)}")


def _say(what: str, seconds: list[float]) -> None:
    ranked = sorted(seconds)
    p99 = ranked[int(len(ranked) * 0.99)]
    print(f"{what}: p50 {median(ranked) * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms")
