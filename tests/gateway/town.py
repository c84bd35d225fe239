"""What tests of this folder share: two gateways, a worker for outside providers, and documents.

Documents are those of ``tests/seed.py``, made here so that a test file says what it asks.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any
from urllib.request import urlopen
from uuid import uuid4

from aiokafka.partitioner import murmur2

from infra.asker import Asker, RequestRefused
from infra.registry import Registry
from infra.telemetry import now
from schemas.events import (
    Attempt,
    Completion,
    InferenceAttempted,
    InferenceRecorded,
    InferenceRefused,
    InferenceRequested,
    Message,
    Outcome,
    Reason,
    Refusal,
    Role,
    Sampling,
)
from schemas.topics import INFERENCE_REQUESTED, REPLY
from streams.client import Part, Reply, Stitch
from tests.broker.pools import Follower
from tests.broker.test_spans import Collector
from tests.gateway.upstreams import Upstreams
from tests.harness import Bus, Process, eventually
from tests.seed import Document, changes, publish

IN = "main.tests"
KEYS = {"KEY_FIRST": "sk-first-9f3a61c07d", "KEY_SECOND": "sk-second-51be8824aa"}
# Long enough for a busy machine: who waits for what does not come says so in its route.
PATIENCE = timedelta(minutes=3)
_numbers = count(1)


def one_for_each_partition(name: str) -> tuple[str, ...]:
    """Returns names of tenants, one for each partition, so that each gateway has some of them."""
    found: dict[int, str] = {}
    for each in (f"{name}{number}" for number in range(1000)):
        found.setdefault(
            (murmur2(each.encode()) & 0x7FFFFFFF) % INFERENCE_REQUESTED.partitions, each
        )
    return tuple(found.values())


SCOUTS = one_for_each_partition("scout")


def connection(name: str, upstreams: Upstreams, **spec: Any) -> Document:
    """Returns a connection to the upstream of that name."""
    spec = {"type": "openai", "url": f"{upstreams.url}/{name}/v1", "private": True, **spec}
    return {"kind": "connection", "name": f"{IN}.{name}", "spec": spec}


def way(name: str, connected: str, model: str, **spec: Any) -> dict[str, Any]:
    """Returns a route over a connection."""
    return {
        "name": name,
        "pool": "outside",
        "model": model,
        "connection": f"{IN}.{connected}",
        **spec,
    }


def endpoint(name: str, *ways: dict[str, Any], **spec: Any) -> Document:
    """Returns an endpoint."""
    return {"kind": "endpoint", "name": f"{IN}.{name}", "spec": {"routes": ways, **spec}}


def policy(name: str, *rules: dict[str, Any]) -> Document:
    """Returns a policy."""
    return {"kind": "policy", "name": f"{IN}.{name}", "spec": {"rules": rules}}


def tenant(name: str, **spec: Any) -> Document:
    """Returns a tenant that needs no key."""
    return {"kind": "tenant", "name": name, "spec": {"accept_unsigned": True, **spec}}


def masks(*entities: str, deal: str = "restore", **more: Any) -> dict[str, Any]:
    """Returns a rule that deals with personal data."""
    dealt = dict.fromkeys(entities, deal)
    return {"type": "pii", "name": "personal", "entities": dealt, **more}


@dataclass(slots=True)
class Heard:
    """What a caller heard of a request.

    Attributes:
        request: What was asked.
        parts: What a client would have shown, piece by piece, with the rest of the whole last.
        times: When, by the monotonic clock; of parts only.
        whole: The answer.
        refusal: Why there is none.
        tried: Routes that failed before.
    """

    request: InferenceRequested
    parts: list[Part] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    whole: Completion | None = None
    refusal: Refusal | None = None
    tried: Sequence[Attempt] = ()

    @property
    def text(self) -> str:
        """The answer, which there must be."""
        assert self.whole, self.refusal
        return self.whole.content

    @property
    def shown(self) -> str:
        """The parts put together."""
        assert not any(part.restarted for part in self.parts)
        return "".join(part.content for part in self.parts)

    @property
    def reason(self) -> Reason | None:
        """Why there is no answer."""
        return self.refusal.reason if self.refusal else None

    @property
    def routes(self) -> list[tuple[str, Reason]]:
        """The routes that failed before, and how."""
        return [(each.route.name, each.refusal.reason) for each in self.tried]


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who asks for a tenant, and hears the answers.

    Attributes:
        asker: Asks over the bus.
        tenant: Who pays.
    """

    asker: Asker
    tenant: str
    _under_way: dict[str, Heard] = field(default_factory=dict)

    def heard_of(self, request_id: str) -> int:
        """Returns how many parts of an answer have come so far."""
        under_way = self._under_way.get(request_id)
        return len(under_way.parts) if under_way else 0

    async def ask(self, name: str, *said: str, **changes: Any) -> Heard:
        """Asks an endpoint of the tests' schema; returns what was heard until the end."""
        return await self.send(request(self.tenant, f"{IN}.{name}", *said, **changes))

    async def stream(self, name: str, *said: str, **changes: Any) -> Heard:
        """Asks for an answer in parts."""
        return await self.ask(name, *said, stream=True, **changes)

    async def send(self, asked: InferenceRequested) -> Heard:
        """Sends a request; returns what was heard until the end."""
        heard, stitch = Heard(asked), Stitch()
        self._under_way[asked.request_id] = heard
        replies = self.asker.replies(INFERENCE_REQUESTED, asked, asked.request_id, asked.deadline)
        try:
            async with aclosing(replies):
                async for replied in replies:
                    if replied.completion:
                        heard.whole, heard.tried = replied.completion, replied.tried
                        reply = Reply(request_id=asked.request_id, completion=replied.completion)
                        heard.parts.append(stitch.end(reply))
                    elif part := stitch.add(replied):
                        heard.parts.append(part)
                        heard.times.append(time.monotonic())
        except RequestRefused as refused:
            heard.refusal, heard.tried = refused.refusal, refused.tried
        return heard


@dataclass(frozen=True, slots=True)
class Town:
    """The processes of the folder, and what they say.

    Attributes:
        bus: The log.
        upstreams: Where requests go.
        gateways: Both of them.
        worker: Asks outside providers.
        folder: Where all processes keep logs and tables.
        recorded: Rows of requests.
        attempted: Rows of tries.
        refused: Refusals before any route was tried.
        spans: What the second gateway tells of its work, which also logs all it can.
    """

    bus: Bus
    upstreams: Upstreams
    gateways: tuple[Process, Process]
    worker: Process
    folder: Path
    recorded: Follower[InferenceRecorded]
    attempted: Follower[InferenceAttempted]
    refused: Follower[InferenceRefused]
    spans: Collector = field(default_factory=Collector)

    def define(self, *documents: Document) -> None:
        """Publishes documents; returns when the gateways and the worker know them."""
        number = next(_numbers)
        gate = endpoint(f"gate-{number}", way("a", "any", "m"), policies=[f"{IN}.nowhere"])
        last = connection(f"last-{number}", self.upstreams)
        through = endpoint(f"last-{number}", way("a", f"last-{number}", "echo"))
        publish(self.bus, *changes([*documents, gate, through, last]))
        hear = set(SCOUTS)

        def all_know() -> bool:
            for scout in hear:
                asked = request(scout, gate["name"], reply_to=REPLY.member("scouts").name)
                self.bus.send(INFERENCE_REQUESTED, asked)
            hear.difference_update(
                each.request.tenant
                for each in self.refused.seen()
                if each.request.endpoint == gate["name"]
                and each.refusal.reason is Reason.POLICY_FAILED
            )
            return not hear

        def ask() -> str:
            asked = request(SCOUTS[0], through["name"], reply_to=REPLY.member("scouts").name)
            self.bus.send(INFERENCE_REQUESTED, asked)
            return asked.request_id

        eventually(all_know, 120, "that both gateways know the documents")
        latest = ask()

        def worker_knows() -> bool:
            nonlocal latest
            outcomes = {each.request_id: each.outcome for each in self.recorded.seen()}
            if outcomes.get(latest, Outcome.COMPLETED) is not Outcome.COMPLETED:
                latest = ask()
            return latest in outcomes

        eventually(worker_knows, 120, "that the worker knows the connections")

    @asynccontextmanager
    async def caller(self, tenant: str) -> AsyncIterator[Caller]:
        """Opens somebody who asks for a tenant."""
        registry = Registry(self.bus.registry_settings)
        topic = REPLY.member(tenant).name
        async with Asker(self.bus.kafka, registry, tenant, topic, None) as asker:
            yield Caller(asker, tenant)

    def row(self, request_id: str) -> InferenceRecorded:
        """Returns the one row of a request."""
        row: InferenceRecorded
        [row] = self._of(self.recorded, request_id, 1)
        return row

    def attempts(self, request_id: str, number: int) -> list[InferenceAttempted]:
        """Returns the rows of so many tries, in order."""
        return sorted(self._of(self.attempted, request_id, number), key=lambda row: row.attempt)

    def logs(self) -> bytes:
        """Returns all that all processes have logged."""
        return b"\n".join(path.read_bytes() for path in self.folder.glob("*.log"))

    def stored(self) -> dict[str, bytes]:
        """Returns the files of the lake by their names; not those that are gone when it looks."""
        found: dict[str, bytes] = {}
        for path in (self.folder / "lake").rglob("*"):
            # The recorder goes on: what it writes has another name until it is whole.
            with suppress(FileNotFoundError):
                if path.is_file():
                    found[str(path)] = path.read_bytes()
        return found

    def cpu_s(self) -> float:
        """Returns how long the worker has kept a processor busy, in seconds."""
        return metric(self.worker, "process_cpu_seconds_total")

    def _of(self, follower: Follower[Any], request_id: str, number: int) -> list[Any]:
        def found() -> list[Any]:
            return [each for each in follower.seen() if each.request_id == request_id]

        eventually(lambda: len(found()) >= number, 90, f"{number} rows of {request_id}")
        rows = found()
        assert len(rows) == number
        return rows


def metric(process: Process, name: str) -> float:
    """Returns what a process says of itself under a name."""
    with urlopen(f"http://127.0.0.1:{process.port}/metrics", timeout=30) as metrics:
        found = re.search(rf"^{name} ([0-9.e+-]+)$".encode(), metrics.read(), re.M)
    assert found
    return float(found[1])


def request(tenant: str, name: str, *said: str, **changes: Any) -> InferenceRequested:
    """Returns a request as a client would send it; its deadline is minutes from now."""
    instant = now()
    return InferenceRequested(
        **{
            "request_id": str(uuid4()),
            "tenant": tenant,
            "endpoint": name,
            "messages": tuple(Message(role=Role.USER, content=each) for each in said or ("hi",)),
            "sampling": Sampling(),
            "reply_to": f"reply.v1.{tenant}",
            "requested_at": instant,
            "deadline": instant + PATIENCE,
            **changes,
        }
    )
