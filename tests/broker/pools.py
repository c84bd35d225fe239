"""What tests of worker and processor loops share: a follower of the log, and pools of workers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Generic, TypeVar
from urllib.request import urlopen

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from infra.bus import fetch, partitions
from schemas.codec import Unreadable
from schemas.events import Event, InferenceCompleted, InferenceRouted, Reason, RecordDeadLettered
from schemas.topics import DEAD_LETTERS, INFERENCE_COMPLETED, INFERENCE_ROUTED, Topic
from tests.harness import CALM_SESSION_MS, Bus, Process, eventually, running, unique

E = TypeVar("E", bound=Event)

# Other tests share the processor.
PATIENCE_S = 240.0


class Follower(Generic[E]):
    """All events of a topic; what other tests put there that is none is passed over."""

    def __init__(self, bus: Bus, topic: Topic[E]) -> None:
        self._bus = bus
        self._topic = topic
        self._events: list[E] = []
        # What was just made, the broker tells of a moment later.
        eventually(lambda: topic.name in bus.admin.list_topics(timeout=PATIENCE_S).topics)
        self._consumer = Consumer(
            {
                "bootstrap.servers": bus.kafka.bootstrap_servers,
                "group.id": unique("follower"),
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
            }
        )
        self._consumer.assign(
            [
                TopicPartition(topic.name, each, OFFSET_BEGINNING)
                for each in partitions(self._consumer, topic.name)
            ]
        )

    def seen(self) -> list[E]:
        """Returns them, in the order of their partitions."""
        while records := fetch(self._consumer, 1000, 0.02):
            for record in records:
                with suppress(Unreadable):
                    self._events.append(self._bus.codec.decode(record.value, self._topic.event))
        return self._events

    def close(self) -> None:
        """Stops following."""
        self._consumer.close()


@contextmanager
def following(bus: Bus, topic: Topic[E]) -> Iterator[Follower[E]]:
    """Follows a topic for a block."""
    follower = Follower(bus, topic)
    try:
        yield follower
    finally:
        follower.close()


def in_flight(process: Process) -> float:
    """Returns how many records a process has taken up and not acknowledged."""
    with urlopen(f"http://127.0.0.1:{process.port}/metrics", timeout=30) as metrics:
        found = re.search(rb"^tessera_in_flight ([0-9.e+-]+)$", metrics.read(), re.M)
    assert found
    return float(found[1])


class Pool:
    """A topic of routed requests, with the workers that serve it and what came of them."""

    def __init__(
        self,
        bus: Bus,
        folder: Path,
        completed: Follower[InferenceCompleted],
        letters: Follower[RecordDeadLettered],
        partitions: int,
    ) -> None:
        self.bus = bus
        self.name = unique("pool")
        self.group = f"inference-{self.name}"
        self.topic = replace(INFERENCE_ROUTED.member(self.name), partitions=partitions)
        self._folder = folder
        self._completed = completed
        self._letters = letters
        self._journal = folder / f"{self.name}.journal"
        self._journal.touch()
        bus.make(self.topic)
        self._miss_the_dead_soon()

    def worker(self, journal: str = "", **extra: str) -> AbstractContextManager[Process]:
        """Runs a worker for a block.

        Args:
            journal: Name of a journal of its own, where the pool's is not wanted.
            extra: Settings.
        """
        script = ["--provider", "tests.scripted:open_scripted", "--pool", self.name]
        path = self._folder / f"{self.name}.{journal}" if journal else self._journal
        path.touch()
        return running(
            self.bus,
            ["-m", "workers", "inference", *script, "--model", str(path)],
            self._folder,
            start_s=PATIENCE_S,
            **extra,
        )

    def send(self, *events: InferenceRouted) -> list[str]:
        """Produces routed requests; returns their ids."""
        self.bus.send(self.topic, *events)
        return [event.request.request_id for event in events]

    def completed(self, request_id: str) -> list[InferenceCompleted]:
        """Returns what concluded a request so far; more than one where it was delivered again."""
        return [
            event
            for event in self._completed.seen()
            if event.routed.request.request_id == request_id
        ]

    def letters(self) -> list[RecordDeadLettered]:
        """Returns the dead letters of this pool's topic."""
        return [letter for letter in self._letters.seen() if letter.topic == self.topic.name]

    def reasons(self, request_id: str) -> list[Reason]:
        """Returns the refusals that concluded a request."""
        return [each.refusal.reason for each in self.completed(request_id) if each.refusal]

    def journal(self, what: str, journal: str = "") -> list[str]:
        """Returns the requests to which something happened: start, end or cancelled."""
        lines = [line.split() for line in self._lines(journal)]
        return [request_id for each, request_id in lines if each == what]

    def most_in_flight(self, journal: str = "") -> int:
        """Returns how many requests were under way at most at a time."""
        most = under_way = 0
        for line in self._lines(journal):
            under_way += 1 if line.startswith("start") else -1
            most = max(most, under_way)
        return most

    def committed(self) -> dict[int, int]:
        """Returns the group's committed offsets; -1001 where there is none."""
        return self.bus.committed(self.group, self.topic.name)

    def waits_for(self, condition: Callable[[], object], what: str) -> None:
        """Returns when something holds."""
        eventually(condition, PATIENCE_S, what)

    def concludes(self, *request_ids: str) -> None:
        """Returns when all these requests are concluded."""

        def concluded() -> bool:
            seen = {event.routed.request.request_id for event in self._completed.seen()}
            return seen.issuperset(request_ids)

        self.waits_for(concluded, f"the conclusion of {len(request_ids)} requests")

    def commits_all(self) -> None:
        """Returns when the group has committed everything."""
        self.waits_for(lambda: self.bus.lag(self.group, self.topic.name) == 0, "the last commit")

    def _miss_the_dead_soon(self) -> None:
        """Gives the group a session; in the ``consumer`` protocol the broker has it."""
        group = ConfigResource(ResourceType.GROUP, self.group)
        for name, milliseconds in {
            "consumer.session.timeout.ms": CALM_SESSION_MS,
            "consumer.heartbeat.interval.ms": CALM_SESSION_MS // 12,
        }.items():
            group.add_incremental_config(
                ConfigEntry(name, str(milliseconds), incremental_operation=AlterConfigOpType.SET)
            )
        self.bus.admin.incremental_alter_configs([group])[group].result(PATIENCE_S)

    def _lines(self, journal: str) -> list[str]:
        path = self._folder / f"{self.name}.{journal}" if journal else self._journal
        return path.read_text().splitlines()


Pools = Callable[[int], Pool]


@pytest.fixture(scope="module")
def pools(bus: Bus, folder: Path) -> Iterator[Pools]:
    """Makes pools, given the number of partitions."""
    with ExitStack() as followers:
        completed = followers.enter_context(following(bus, INFERENCE_COMPLETED))
        letters = followers.enter_context(following(bus, DEAD_LETTERS))
        yield lambda partitions: Pool(bus, folder, completed, letters, partitions)
