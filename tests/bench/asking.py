"""What benches of the gateway ask: tenants with keys, ways of asking, an ear for replies."""

from __future__ import annotations

import base64
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from infra.bus import Record, fetch, partitions
from infra.signing import Signer, generate
from infra.telemetry import now
from schemas.events import (
    Completion,
    FinishReason,
    InferenceCompleted,
    InferenceRequested,
    InferenceRouted,
    Message,
    Role,
    Route,
    Sampling,
    Usage,
)
from schemas.kinds import Key
from schemas.topics import (
    INFERENCE_COMPLETED,
    INFERENCE_REQUESTED,
    INFERENCE_ROUTED,
    REPLY,
)
from tests.harness import Bus, Process, running, unique
from tests.seed import SEEDED, changed, changes, publish

ECHO = "main.tests.echo"
SERVED = {"name": "local", "pool": "echo", "model": "echo"}
ROUTE = Route(name="local", pool="echo", model="echo")
TEXT = "The quick brown fox jumps over the lazy dog while a patient reader waits for it all. " * 10
# So many that every partition has its share.
TENANTS = tuple(f"bench{number}" for number in range(24))
ROUTED = INFERENCE_ROUTED.member("echo").name
REPLIES = [REPLY.member(tenant).name for tenant in TENANTS]
MOST_UNSENT = 10_000


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way of asking: whether requests are signed, and what the endpoint holds them to."""

    signed: bool = True
    documents: tuple[Mapping[str, Any], ...] = ()
    policies: tuple[str, ...] = ()


GOVERNED = "main.tests.governed"
RULES: tuple[dict[str, object], ...] = (
    {"type": "limit", "unit": "requests", "most": 10**9, "window": "1m"},
    {"type": "limit", "unit": "total_tokens", "most": 10**12, "window": "1h"},
    {"type": "limit", "unit": "cost", "most": 10**9, "window": "1d", "unpriced": "0.001"},
    {"type": "pii", "entities": dict.fromkeys(("CREDIT_CARD", "EMAIL_ADDRESS", "PERSON"), "mask")},
)
POLICY = {
    "kind": "policy",
    "name": GOVERNED,
    "spec": {
        "rules": [
            {"name": f"rule{number}", **rule}
            | ({"per": "tenant"} if rule["type"] == "limit" else {})
            for number, rule in enumerate(RULES)
        ]
    },
}

# From the cheapest to the dearest.
WAYS: dict[str, Way] = dict(
    unsigned=Way(signed=False),
    signed=Way(),
    governed=Way(documents=(POLICY,), policies=(GOVERNED,)),
)


class Bench:
    """A provisioned bus with tenants and their keys, and a folder for logs."""

    def __init__(self, bus: Bus, folder: Path, requests: int) -> None:
        self.bus = bus
        self.folder = folder
        self.requests = requests
        self.signers = {tenant: Signer(generate()) for tenant in TENANTS}
        made = changes(
            {"kind": "tenant", "name": tenant, "spec": {"accept_unsigned": True}}
            for tenant in TENANTS
        )
        for tenant, signer in self.signers.items():
            public_key = base64.b64encode(signer.public_key).decode()
            key = Key(principal=tenant, public_key=public_key, not_before=SEEDED)
            made.append(changed("key", signer.key_id, key))
        publish(bus, *made)
        self._group = Consumer(
            {"bootstrap.servers": bus.kafka.bootstrap_servers, "group.id": "gateway"}
        )
        self._places = [
            TopicPartition(topic.name, each)
            for topic in (INFERENCE_REQUESTED, INFERENCE_COMPLETED)
            for each in partitions(self._group, topic.name)
        ]

    @contextmanager
    def gateway(self, way: Way) -> Iterator[Process]:
        """Runs a gateway over an endpoint that asks for what this way does."""
        spec = {"routes": [SERVED], "policies": way.policies}
        endpoint = {"kind": "endpoint", "name": ECHO, "spec": spec}
        publish(self.bus, *changes([*way.documents, endpoint]))
        with running(self.bus, ["-m", "streams", "gateway"], self.folder) as process:
            yield process

    def left(self) -> int:
        """Returns how many records the gateway has not acknowledged."""
        return sum(
            self._group.get_watermark_offsets(each, 30)[1] - max(each.offset, 0)
            for each in self._group.committed(self._places, 30)
        )

    def ask(self, number: int, *, signed: bool) -> InferenceRequested:
        """Puts a request on the log."""
        tenant = TENANTS[number % len(TENANTS)]
        asked = request(f"bench-{number}", tenant)
        key, value = tenant.encode(), self.bus.codec.encode(asked)
        name, deadline = INFERENCE_REQUESTED.name, asked.deadline
        headers = self.signers[tenant].headers(name, key, deadline, value) if signed else ()
        self.bus.put(name, key, value, headers=list(headers))
        self._wait()
        return asked

    @contextmanager
    def admitted(self) -> Iterator[Iterator[InferenceRouted]]:
        """Reads from now on what the gateway admits."""
        consumer = listening(self.bus, [ROUTED])

        def read() -> Iterator[InferenceRouted]:
            while True:
                for record in fetch(consumer, 500, 1.0):
                    yield self.bus.codec.decode(record.value, InferenceRouted)

        try:
            yield read()
        finally:
            consumer.close()

    def answer(self, answer: InferenceCompleted) -> None:
        """Puts an answer on the log."""
        key = answer.routed.request.tenant.encode()
        self.bus.put(INFERENCE_COMPLETED.name, key, self.bus.codec.encode(answer))
        self._wait()

    def _wait(self) -> None:
        while len(self.bus.producer) > MOST_UNSENT:
            self.bus.producer.poll(0.1)


def listening(bus: Bus, topics: Sequence[str]) -> Consumer:
    """Returns a consumer of some topics from their ends."""
    consumer = Consumer(
        {
            "bootstrap.servers": bus.kafka.bootstrap_servers,
            "group.id": unique("ear"),
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 10,
        }
    )
    places = [
        TopicPartition(topic, each) for topic in topics for each in partitions(consumer, topic)
    ]
    for place in places:
        place.offset = consumer.get_watermark_offsets(place, 30)[1]
    consumer.assign(places)
    return consumer


@contextmanager
def hearing(
    bus: Bus, topics: Sequence[str], name: Callable[[Record], bytes] = lambda it: it.key or b""
) -> Iterator[dict[tuple[str, bytes], list[float]]]:
    """Hears the records of some topics for a block: when those of each topic and name came."""
    heard: dict[tuple[str, bytes], list[float]] = defaultdict(list)
    consumer = listening(bus, topics)
    closing = threading.Event()

    def listen() -> None:
        while not closing.is_set():
            for record in fetch(consumer, 500, 0.1):
                heard[record.topic, name(record)].append(time.perf_counter())

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield heard
    finally:
        closing.set()
        thread.join()
        consumer.close()


def has_names(gateway: Process) -> bool:
    """Returns whether a gateway has loaded what finds personal data."""
    return "finders of personal data loaded" in gateway.log()


def request(request_id: str, tenant: str) -> InferenceRequested:
    """Returns a request of a tenant."""
    instant = now()
    return InferenceRequested(
        request_id=request_id,
        tenant=tenant,
        endpoint=ECHO,
        messages=(Message(role=Role.USER, content=TEXT),),
        sampling=Sampling(temperature=0.5, max_tokens=64),
        reply_to=REPLY.member(tenant).name,
        requested_at=instant,
        deadline=instant + timedelta(minutes=10),
    )


def routed(request: InferenceRequested) -> InferenceRouted:
    """Returns a request on its route, as it is without policies."""
    return InferenceRouted(request=request, route=ROUTE, routed_at=now())


def completed(routed: InferenceRouted) -> InferenceCompleted:
    """Returns the answer to a request on its route."""
    instant = now()
    return InferenceCompleted(
        routed=routed,
        completion=Completion(
            model="echo",
            content=TEXT,
            finish_reason=FinishReason.STOP,
            usage=Usage(prompt_tokens=100, completion_tokens=100),
        ),
        started_at=instant,
        completed_at=instant,
    )
