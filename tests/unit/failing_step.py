"""A step that fails with all that must not be said in its error; run by a test as a process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import cast

from infra.bus import Publisher, Record
from infra.catalog import CatalogView
from infra.registry import Registry
from infra.settings import HealthSettings, KafkaSettings, LakeSettings, RegistrySettings
from infra.telemetry import Headers
from schemas.codec import Codec
from schemas.events import InferenceRefused, Message, Reason, RecordDeadLettered, Refusal, Role
from schemas.topics import INFERENCE_REFUSED, Outgoing
from streams.steps import Runtime, Steps, Taken
from tests.unit.asking import NOON, VIEW, ask


class Posted:
    """Stands where the publisher does, and keeps what is published."""

    def __init__(self) -> None:
        self.outgoing: list[Outgoing] = []

    async def room(self) -> None:
        """Has room."""

    def encode(self, outgoing: Iterable[Outgoing]) -> list[Outgoing]:
        """Leaves events as they are."""
        return list(outgoing)

    def post(self, outgoing: Sequence[Outgoing], headers: Headers, done: object) -> None:
        """Keeps what is published."""
        self.outgoing += outgoing


def run(prompt: str, credential: str) -> None:
    """Lets a step fail on a request that carries both."""
    asyncio.run(_run(prompt, credential))


async def _run(prompt: str, credential: str) -> None:
    def fail(event: InferenceRefused, view: CatalogView, now: datetime) -> list[Outgoing]:
        raise ValueError(f"{event.request.messages} {credential}")

    posted = Posted()
    runtime = Runtime(
        name="failing",
        kafka=KafkaSettings(),
        health=HealthSettings(),
        lake=LakeSettings(root=Path()),
        registry=Registry(RegistrySettings()),
        codec=Codec({}),
        view=VIEW,
        publisher=cast(Publisher, posted),
    )
    steps = Steps(INFERENCE_REFUSED, fail, runtime, lambda error: None)
    request = ask(messages=(Message(role=Role.USER, content=prompt),))
    refusal = Refusal(reason=Reason.REQUEST_INVALID, message="no")
    event = InferenceRefused(request=request, refusal=refusal, refused_at=NOON)
    headers: Headers = [("authorization", credential.encode())]
    record = Record("topic", 0, 0, b"key", b"value", headers)
    await steps.take(Taken(record, event, headers, lambda: None))
    [(_, letter)] = posted.outgoing
    assert isinstance(letter, RecordDeadLettered)
    assert letter.value == b"value"
    assert prompt not in letter.message
    assert credential not in letter.message
