"""Relays for tests: in a thread, or as a process that can be killed.

python -m tests.catalog.relaying
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from catalog.relay.relay import Relay
from catalog.store.store import Store
from infra.registry import Registry
from infra.settings import KafkaSettings, PostgresSettings, RegistrySettings
from infra.sql import connect
from schemas.codec import Codec
from schemas.topics import CATALOG_CHANGED, Topic
from tests.catalog.acting import folded
from tests.harness import Bus, eventually


class Running:
    """A relay in a thread, and how it ended."""

    def __init__(self, bus: Bus, store: Store) -> None:
        registry = Registry(bus.registry_settings)
        self.relay = Relay(store, bus.kafka, bus.codec, registry)
        self.stop = threading.Event()
        self.failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._thread.start()

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return not self._thread.is_alive()

    def ready(self, timeout: float = 120) -> None:
        """Returns when it is ready."""

        def is_ready() -> bool:
            assert self.failure is None, self.failure
            return self.relay.ready.is_set()

        eventually(is_ready, timeout, "readiness of the relay")

    def close(self) -> None:
        """Ends it."""
        self.stop.set()
        self._thread.join(60)
        assert self.over

    def _run(self) -> None:
        try:
            self.relay.run(self.stop)
        # The test asks for it.
        except Exception as problem:  # noqa: BLE001
            self.failure = problem


@contextmanager
def relaying(bus: Bus, store: Store) -> Iterator[Running]:
    """Runs a relay for a block; it is ready when the block begins."""
    running = Running(bus, store)
    try:
        running.ready()
        yield running
    finally:
        running.close()


def on_topic(bus: Bus) -> dict[tuple[str, str], tuple[int, str | None]]:
    """Returns what compaction would keep of the topic, without what is gone."""
    return folded(bus.events(CATALOG_CHANGED))


def anew(bus: Bus, *topics: Topic[Any]) -> None:
    """Deletes topics and makes them again, empty."""
    gone(bus, *topics)
    bus.make(*topics)


def gone(bus: Bus, *topics: Topic[Any]) -> None:
    """Deletes topics."""
    names = [topic.name for topic in topics]
    for deleted in bus.admin.delete_topics(names).values():
        deleted.result(30)
    eventually(
        lambda: not set(names) & set(bus.admin.list_topics(timeout=30).topics), 60, "no such topic"
    )


def main() -> None:
    """Runs a relay until it is killed."""
    registry = Registry(RegistrySettings())
    store = Store(connect(PostgresSettings()))
    Relay(store, KafkaSettings(), Codec(registry.ids()), registry).run(threading.Event())


if __name__ == "__main__":
    main()
