"""What broker tests are written with: our processes as real processes, and the log as lists.

Everything waits on a condition with a deadline.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from infra.bootstrap import ROOT
from infra.bus import Record, fetch, partitions
from infra.provision import make_topics
from infra.registry import Registry
from infra.settings import KafkaSettings, RegistrySettings
from infra.stack.local import LocalStack
from infra.stack.service import is_free
from schemas.codec import Codec, Unreadable
from schemas.events import Event
from schemas.topics import Topic

E = TypeVar("E", bound=Event)

POLL_S = 0.05
# These tell what takes long on a machine that others use, too, from what never comes.
PATIENCE_S = 120.0
READY_S = 240.0
# One of several tries.
TRY_S = 20.0
# Short, so that a killed member is missed soon.
SESSION_MS = 3000
# Of who is seldom killed: a member that its machine holds up for five seconds, a quarter of this
# after it was last heard of, does not count as dead.
CALM_SESSION_MS = 7000
# Below what the system gives to whoever asks for any port, and what stacks take. In slices, so that
# two processes of one run do not take the same, and those of two runs mostly not.
PORTS_FROM, PORTS_TO, SLICES = 10_000, 15_000, 12


def eventually(
    condition: Callable[[], object], timeout: float = PATIENCE_S, what: str = "the condition"
) -> None:
    """Returns when the condition holds; fails at the deadline."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not hold within {timeout:g} s"
        time.sleep(POLL_S)


async def soon(
    condition: Callable[[], Awaitable[object]],
    timeout: float = PATIENCE_S,
    what: str = "the condition",
) -> None:
    """Returns when the condition holds; fails at the deadline."""
    deadline = time.monotonic() + timeout
    while not await condition():
        assert time.monotonic() < deadline, f"{what} did not hold within {timeout:g} s"
        await asyncio.sleep(POLL_S)


def unique(name: str) -> str:
    """Returns a name that no other test uses."""
    return f"{name}-{uuid4().hex[:8]}"


class Process:
    """One of our processes, with its health endpoint.

    Args:
        command: What follows ``python``.
        environment: Variables on top of the test's own.
        log: Where it writes.
        python: The interpreter; the test's own when left out.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        python: str = sys.executable,
    ) -> None:
        self._command = [python, *command]
        self.port = free_port()
        self._environment = {**os.environ, **environment, "HEALTH_PORT": str(self.port)}
        self._log = log
        self.start()

    def start(self) -> None:
        """Starts it, again if it has ended."""
        with self._log.open("ab") as out:
            self.child = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env=self._environment,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def ask(self, path: str) -> tuple[int, dict[str, Any]]:
        """Returns status and body of the health endpoint; status 0 where nothing answers."""
        try:
            url = f"http://127.0.0.1:{self.port}{path}"
            with urllib.request.urlopen(url, timeout=30) as found:
                return found.status, json.load(found)
        except urllib.error.HTTPError as refused:
            return refused.code, _whole(refused)
        except (HTTPException, OSError, ValueError):
            return 0, {}

    def ready(self, timeout: float = READY_S) -> None:
        """Returns when it is ready."""

        def is_ready() -> bool:
            assert self.child.poll() is None, f"{self._command} ended: {self.log()}"
            return self.ask("/ready")[0] == 200

        eventually(is_ready, timeout, f"readiness of {self._command}")

    def kill(self) -> None:
        """Ends it as a crash would, if it has not ended."""
        # Who revives it may put another in its place meanwhile.
        child = self.child
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()

    def stop(self, timeout: float = PATIENCE_S) -> int:
        """Ends it in good order; returns its exit code."""
        if self.child.poll() is None:
            self.child.terminate()
        return self.child.wait(timeout)

    def revive(self) -> None:
        """Starts it again if it has ended, as a supervisor would."""
        if self.child.poll() is not None:
            self.start()

    def log(self, most: int = 4000) -> str:
        """Returns the end of its log, of so many characters at most."""
        return self._log.read_text(errors="replace")[-most:]


class Bus:
    """The log of a stack as a test sees it.

    Args:
        stack: Where it is.
        session_ms: When a silent member of a group of stream processors counts as gone.
    """

    def __init__(self, stack: LocalStack, session_ms: int = SESSION_MS) -> None:
        self.environment = {
            **stack.environment(),
            "GATEWAY_SEAL": "env:SEAL_SECRET",
            "KAFKA_SESSION_TIMEOUT_MS": str(session_ms),
            "SEAL_SECRET": unique("a secret that all gateways of the tests have"),
        }
        self.kafka = KafkaSettings(
            bootstrap_servers=self.environment["KAFKA_BOOTSTRAP_SERVERS"],
            session_timeout_ms=session_ms,
        )
        self.registry_settings = RegistrySettings(url=self.environment["REGISTRY_URL"])
        self.admin = AdminClient(
            {"bootstrap.servers": self.kafka.bootstrap_servers, "log_level": 0}
        )
        self.producer = Producer(
            {
                "bootstrap.servers": self.kafka.bootstrap_servers,
                "partitioner": "murmur2_random",
                "message.max.bytes": 16 * 1024 * 1024,
                "log_level": 0,
            }
        )
        self._codec: Codec | None = None

    @property
    def codec(self) -> Codec:
        """The codec under the registry's ids; provisioning must have run."""
        if self._codec is None:
            self._codec = Codec(Registry(self.registry_settings).ids())
        return self._codec

    def make(self, *topics: Topic[Any]) -> None:
        """Creates topics; returns when the broker serves them."""
        make_topics(self.admin, list(topics))

    def put(self, topic: str, key: bytes | None, value: bytes | None, **options: Any) -> None:
        """Produces one record; ``settle`` waits for it."""
        self.producer.produce(topic, value, key, **options)
        self.producer.poll(0)

    def send(self, topic: Topic[E], *events: E) -> None:
        """Produces events and waits until they lie on the log."""
        for event in events:
            self.put(topic.name, topic.key(event).encode(), self.codec.encode(event))
        self.settle()

    def transaction(self) -> Producer:
        """Returns a producer in a transaction, as the relay is."""
        servers = self.kafka.bootstrap_servers
        producer = Producer(
            {
                "bootstrap.servers": servers,
                "transactional.id": unique("relay"),
                "transaction.timeout.ms": 10 * 60 * 1000,
                "log_level": 0,
            }
        )
        producer.init_transactions(PATIENCE_S)
        producer.begin_transaction()
        return producer

    def settle(self) -> None:
        """Waits until what was produced lies on the log."""
        assert self.producer.flush(PATIENCE_S) == 0

    def records(self, topic: str) -> list[Record]:
        """Returns every record of a topic, by partition and offset."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.kafka.bootstrap_servers,
                "group.id": unique("reader"),
                "enable.auto.commit": False,
                "enable.partition.eof": False,
                "isolation.level": "read_committed",
            }
        )
        try:
            ends = {
                each: edges(consumer, TopicPartition(topic, each))
                for each in partitions(consumer, topic)
            }
            left = {each for each, (low, high) in ends.items() if high > low}
            consumer.assign([TopicPartition(topic, each, OFFSET_BEGINNING) for each in left])
            found: list[Record] = []
            deadline = time.monotonic() + PATIENCE_S
            while left:
                assert time.monotonic() < deadline, f"{topic} could not be read to its end"
                found += fetch(consumer, 1000, 0.2)
                at = {
                    each.partition: each.offset
                    for each in consumer.position([TopicPartition(topic, p) for p in left])
                }
                left = {each for each in left if at[each] < ends[each][1]}
            return sorted(found, key=lambda record: (record.partition, record.offset))
        finally:
            consumer.close()

    def events(self, topic: Topic[E], key: str | None = None) -> list[E]:
        """Returns every event of a topic, or of one key; passes over garbage of other tests."""
        found = []
        for record in self.records(topic.name):
            if key is None or record.key == key.encode():
                with suppress(Unreadable):
                    found.append(self.codec.decode(record.value, topic.event))
        return found

    def committed(self, group: str, topic: str) -> dict[int, int]:
        """Returns a group's committed offsets by partition; -1001 where there is none."""
        consumer = Consumer({"bootstrap.servers": self.kafka.bootstrap_servers, "group.id": group})
        try:
            wanted = [TopicPartition(topic, each) for each in partitions(consumer, topic)]
            return {each.partition: each.offset for each in consumer.committed(wanted, PATIENCE_S)}
        finally:
            consumer.close()

    def lag(self, group: str, topic: str) -> int:
        """Returns how many records of a topic a group has not committed yet."""
        consumer = Consumer({"bootstrap.servers": self.kafka.bootstrap_servers, "group.id": group})
        try:
            wanted = [TopicPartition(topic, each) for each in partitions(consumer, topic)]
            committed = consumer.committed(wanted, PATIENCE_S)
            ends = [edges(consumer, each) for each in committed]
            pairs = zip(committed, ends, strict=True)
            return sum(high - max(each.offset, low) for each, (low, high) in pairs)
        finally:
            consumer.close()


def edges(consumer: Consumer, place: TopicPartition) -> tuple[int, int]:
    """Returns where a partition begins and ends, once the broker serves it if it is new."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            # A client that looked too soon finds no leader ever after, unless it looks again.
            consumer.list_topics(place.topic, timeout=TRY_S)
            return consumer.get_watermark_offsets(place, TRY_S)
        except KafkaException:
            if time.monotonic() > deadline:
                raise
            time.sleep(POLL_S)


def _whole(refused: urllib.error.HTTPError) -> dict[str, Any]:
    """Returns the body of an answer; nothing where it was cut off."""
    try:
        return dict(json.load(refused))
    except (HTTPException, OSError, ValueError):
        return {}


@contextmanager
def running(
    bus: Bus,
    command: Sequence[str],
    folder: Path,
    *,
    python: str = sys.executable,
    start_s: float = READY_S,
    **extra: str,
) -> Iterator[Process]:
    """Runs one of our processes for a block; it is ready when the block begins."""
    environment = {**bus.environment, "LAKE_ROOT": str(folder / "lake"), **extra}
    process = Process(command, environment, folder / f"{unique('process')}.log", python)
    try:
        process.ready(start_s)
        yield process
    finally:
        if process.child.poll() is None:
            process.kill()


def free_port() -> int:
    """Returns a loopback port that is free now, another each time."""
    return next(port for port in _PORTS if is_free(port))


def _slice() -> int:
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    return (os.getppid() + int(worker[2:]) if worker else os.getpid()) % SLICES


def _ports() -> Iterator[int]:
    mine = range(PORTS_FROM + _slice(), PORTS_TO, SLICES)
    while True:
        yield from random.sample(mine, len(mine))


_PORTS = _ports()
