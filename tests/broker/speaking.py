"""Speaking to the bus as strangers do: other producers, other schemas, and nonsense."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from confluent_kafka import KafkaError, Message, Producer

from infra.bootstrap import ROOT
from infra.telemetry import now
from schemas.codec import Unreadable
from schemas.events import (
    CatalogChanged,
    InferenceReplied,
    InferenceRequested,
    Reason,
    RecordDeadLettered,
    Role,
    Sampling,
)
from schemas.events import Message as Turn
from schemas.topics import DEAD_LETTERS, INFERENCE_REQUESTED, REPLY
from tests.harness import Bus, eventually, unique
from tests.seed import changes, publish

TENANT = "contract"
REPLIES = REPLY.member(TENANT)
WAIT_S = 180.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record lies."""

    topic: str
    partition: int
    offset: int


def request(content: str = "hello there", **changes: Any) -> InferenceRequested:
    """Returns a request of this file's tenant to the echo."""
    instant = now()
    given: dict[str, Any] = {
        "request_id": str(uuid4()),
        "tenant": TENANT,
        "endpoint": "main.tests.echo",
        "messages": (Turn(role=Role.USER, content=content),),
        "sampling": Sampling(),
        "reply_to": REPLIES.name,
        "requested_at": instant,
        "deadline": instant + timedelta(minutes=10),
        **changes,
    }
    return InferenceRequested(**given)


def producer(bus: Bus, **settings: str) -> Producer:
    """Returns a producer as somebody else would set it up."""
    named = {name.replace("_", "."): value for name, value in settings.items()}
    return Producer({"bootstrap.servers": bus.kafka.bootstrap_servers, **named})


def put(by: Producer, topic: str, key: bytes | None, value: bytes | None, **options: Any) -> Place:
    """Produces one record and returns where it lies."""
    places: list[Place] = []

    def delivered(error: KafkaError | None, message: Message) -> None:
        assert error is None, error
        partition, offset = message.partition(), message.offset()
        assert partition is not None
        assert offset is not None
        places.append(Place(topic, partition, offset))

    by.produce(topic, value, key, on_delivery=delivered, **options)
    assert by.flush(WAIT_S) == 0
    return places[0]


# Only aiokafka's pure Python lets a header's name be other than text. All in one batch.
ODD_HEADERS = """
import asyncio, sys
from aiokafka import AIOKafkaProducer

class Odd(str):
    def encode(self, encoding="utf-8", errors="strict"):
        return b"odd\\xff\\xfe"

async def main(servers, topic, partition, key, *values):
    async with AIOKafkaProducer(bootstrap_servers=servers) as producer:
        batch = producer.create_batch()
        for number, value in enumerate(values):
            name = Odd() if number % 2 else "even"
            headers = [("blob", b"\\x00\\xff"), (name, b"x"), ("none", None)]
            batch.append(
                key=key.encode(), value=bytes.fromhex(value), timestamp=None, headers=headers
            )
        batch.close()
        sent = await producer.send_batch(batch, topic, partition=int(partition))
        print((await sent).offset)

asyncio.run(main(*sys.argv[1:]))
"""


def put_oddly(
    bus: Bus, topic: str, partition: int, key: bytes, values: Iterable[bytes]
) -> list[Place]:
    """Produces a batch in which every other record has a header whose name is not UTF-8."""
    written = [value.hex() for value in values]
    place = (bus.kafka.bootstrap_servers, topic, str(partition), key.decode())
    ran = run(bus.environment, "-c", ODD_HEADERS, *place, *written, AIOKAFKA_NO_EXTENSIONS="1")
    first = int(ran.stdout)
    return [Place(topic, partition, first + number) for number in range(len(written))]


def terminal(bus: Bus, request_id: str) -> list[InferenceReplied]:
    """Returns the terminal replies to a request so far."""
    found = []
    for record in bus.records(REPLIES.name):
        if record.key == request_id.encode():
            replied = bus.codec.decode(record.value, InferenceReplied)
            found += [replied] if replied.delta is None else []
    return found


def replies(bus: Bus, *requests: InferenceRequested) -> list[InferenceReplied]:
    """Waits until each request has its terminal reply; returns them in the requests' order."""
    found: dict[str, InferenceReplied] = {}

    def all_there() -> bool:
        for record in bus.records(REPLIES.name):
            replied = bus.codec.decode(record.value, InferenceReplied)
            if replied.delta is None:
                found[replied.request_id] = replied
        return all(each.request_id in found for each in requests)

    eventually(all_there, WAIT_S, "a terminal reply to each request")
    return [found[each.request_id] for each in requests]


def teach(bus: Bus, *made: CatalogChanged) -> None:
    """Publishes changes of the catalog; returns when the gateway, which is at work, knows them."""
    # It hears of changes in their order.
    last = f"main.tests.{unique('last')}"
    route = {"name": "local", "pool": "echo", "model": "echo"}
    publish(bus, *made, *changes([{"kind": "endpoint", "name": last, "spec": {"routes": [route]}}]))

    def is_known() -> bool:
        # Nothing is asked, so it is refused all the same.
        asked = request(endpoint=last, messages=())
        put(bus.producer, INFERENCE_REQUESTED.name, TENANT.encode(), bus.codec.encode(asked))
        [replied] = replies(bus, asked)
        assert replied.refusal is not None
        return replied.refusal.reason is not Reason.ENDPOINT_UNKNOWN

    eventually(is_known, 2 * WAIT_S, "that the gateway knows the last change")


def letters(bus: Bus, places: Iterable[Place]) -> list[RecordDeadLettered]:
    """Waits until a dead letter tells of each record; returns them in the records' order."""
    places = list(places)
    found: dict[Place, RecordDeadLettered] = {}

    def all_there() -> bool:
        for letter in bus.events(DEAD_LETTERS):
            found[Place(letter.topic, letter.partition, letter.offset)] = letter
        return all(place in found for place in places)

    eventually(all_there, WAIT_S, "a dead letter for each record")
    return [found[place] for place in places]


def requests_with(bus: Bus, topic: str, tag: str) -> list[InferenceRequested]:
    """Returns the requests on a topic that carry a tag, whatever else lies there."""
    found = []
    for record in bus.records(topic):
        try:
            event = bus.codec.decode(record.value, InferenceRequested)
        except (LookupError, Unreadable):
            continue
        found += [event] if tag in event.tags else []
    return found


class Newer:
    """The product with a contract one step ahead: cancellations have one more, defaulted, field."""

    def __init__(self, bus: Bus, folder: Path) -> None:
        self._bus = bus
        self._folder = folder
        shutil.copytree(ROOT / "schemas", folder / "schemas")
        schema = folder / "schemas" / "avsc" / "request_cancelled_v1.avsc"
        form = json.loads(schema.read_text())
        form["fields"].append({"name": "note", "type": "string", "default": "", "doc": "Why."})
        schema.write_text(json.dumps(form))
        self.run("-m", "schemas.generate")

    def run(
        self, *command: str, status: int = 0, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Runs ``python`` with the newer contract; fails on another exit status."""
        return run(
            self._bus.environment,
            *command,
            cwd=self._folder,
            status=status,
            PYTHONPATH=f"{self._folder}:{ROOT}",
            **variables,
        )


def run(
    environment: Mapping[str, str],
    *command: str,
    cwd: Path = ROOT,
    status: int = 0,
    **variables: str,
) -> subprocess.CompletedProcess[str]:
    """Runs ``python`` to its end; fails on another exit status."""
    ran = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env={**os.environ, **environment, **variables},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert ran.returncode == status, ran.stderr
    return ran
