"""A flow: a topic of its own, a processor of ``steps_for_tests``, and the topic of its effects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from datetime import timedelta
from pathlib import Path

import pytest

from infra.telemetry import now
from schemas.events import RecordDeadLettered, RequestCancelled
from schemas.topics import DEAD_LETTERS
from tests.broker.pools import PATIENCE_S, Follower, following
from tests.broker.steps_for_tests import TOPIC, cause, effect
from tests.harness import Bus, Process, eventually, running, unique


def event(number: object) -> RequestCancelled:
    """Returns an event with a number, or any other id."""
    instant = now()
    return RequestCancelled(
        request_id=str(number),
        tenant="a secret",
        cancelled_at=instant,
        deadline=instant + timedelta(hours=1),
    )


class Flow:
    """What one test sends through a processor."""

    def __init__(
        self, bus: Bus, folder: Path, partitions: int, letters: Follower[RecordDeadLettered]
    ) -> None:
        self.bus = bus
        self.name = unique("tests.flow")
        self.group = self.name
        self.topic = cause(self.name, partitions)
        effects = effect(self.name)
        self.effect_topic = effects.name
        bus.make(self.topic, effects)
        self.folder = folder
        self._letters = letters
        self._effects = Follower(bus, effects)

    def processor(self, opener: str, **extra: str) -> AbstractContextManager[Process]:
        """Runs a processor for a block."""
        return running(
            self.bus,
            self.command(opener),
            self.folder,
            start_s=PATIENCE_S,
            **{TOPIC: self.name, **extra},
        )

    def command(self, opener: str) -> list[str]:
        """Returns the command line of a processor."""
        path = f"tests.broker.steps_for_tests:{opener}"
        return ["-m", "streams", path, "--name", self.group]

    def send(self, *numbers: object) -> list[str]:
        """Produces events by their keys; returns their ids."""
        self.bus.send(self.topic, *(event(number) for number in numbers))
        return [str(number) for number in numbers]

    def put(self, number: object, partition: int) -> None:
        """Produces an event to a partition."""
        value = self.bus.codec.encode(event(number))
        self.bus.put(self.name, str(number).encode(), value, partition=partition)

    def effects(self) -> list[RequestCancelled]:
        """Returns what the processor published."""
        return self._effects.seen()

    def counts(self) -> Counter[str]:
        """Returns how often each id was published."""
        return Counter(each.request_id for each in self.effects())

    def letters(self) -> list[RecordDeadLettered]:
        """Returns the dead letters of this topic."""
        return [letter for letter in self._letters.seen() if letter.topic == self.name]

    def committed(self) -> dict[int, int]:
        """Returns the group's committed offsets; -1001 where there is none."""
        return self.bus.committed(self.group, self.name)

    def lag(self) -> int:
        """Returns how many records are not committed."""
        return self.bus.lag(self.group, self.name)

    def waits_for(self, condition: Callable[[], object], what: str) -> None:
        """Returns when something holds."""
        eventually(condition, PATIENCE_S, what)

    def processes(self, *ids: str) -> None:
        """Returns when the effects of all these are there."""
        self.waits_for(lambda: set(ids) <= set(self.counts()), f"{len(ids)} effects")

    def commits_all(self) -> None:
        """Returns when the group has committed everything."""
        self.waits_for(lambda: self.lag() == 0, "the last commit")

    def close(self) -> None:
        """Stops following."""
        self._effects.close()


Flows = Callable[[int], Flow]


@pytest.fixture(scope="module")
def flows(bus: Bus, folder: Path) -> Iterator[Flows]:
    """Makes flows, given the number of partitions."""
    with ExitStack() as closing:
        letters = closing.enter_context(following(bus, DEAD_LETTERS))

        def make(partitions: int) -> Flow:
            flow = Flow(bus, folder, partitions, letters)
            closing.callback(flow.close)
            return flow

        yield make
