"""Parts of answers on their way through the gateway."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from infra.bus import Encoded, Publisher, Record
from infra.registry import Registry
from infra.settings import HealthSettings, KafkaSettings, LakeSettings, RegistrySettings
from infra.telemetry import Headers, now
from schemas.codec import Codec
from schemas.events import Delta, InferencePart
from schemas.topics import Outgoing
from streams.gateway.desk import Desk
from streams.gateway.parts import Parts
from streams.steps import Runtime, Taken
from tests.unit.holding import ENDPOINT, catalog

WORDS = {"name": "words", "type": "keywords", "words": ["forbidden"]}
JUDGED = {"name": "judged", "type": "judge", "endpoint": "main.tests.judge", "on": ["output"]}


class Posted:
    """Stands where the publisher does, and keeps what is published."""

    def __init__(self) -> None:
        self.outgoing: list[Encoded] = []

    async def room(self) -> None:
        """Has room."""

    def encode(self, outgoing: Iterable[Outgoing]) -> list[Encoded]:
        """Encodes nothing of an event."""
        return [Encoded(topic.name, b"key", b"value") for topic, _ in outgoing]

    def post(self, outgoing: Sequence[Encoded], headers: Headers, done: object) -> None:
        """Keeps what is published."""
        self.outgoing += outgoing


def gate(*rules: dict[str, Any]) -> tuple[Parts, Posted]:
    posted = Posted()
    runtime = Runtime(
        name="gateway",
        kafka=KafkaSettings(),
        health=HealthSettings(),
        lake=LakeSettings(root=Path()),
        registry=Registry(RegistrySettings()),
        codec=Codec({}),
        view=catalog(*rules),
        publisher=cast(Publisher, posted),
    )
    return Parts(runtime, lambda error: None, Desk()), posted


async def fed(parts: Parts, seq: int, left: timedelta) -> None:
    part = InferencePart(
        request_id="request",
        tenant="acme",
        reply_to="reply.v1.acme2",
        seq=seq,
        delta=Delta(content="so it is said "),
        deadline=now() + left,
        endpoint=ENDPOINT,
    )
    await parts.take(Taken(Record("topic", 0, 0, b"key", b"value", []), part, [], lambda: None))


@pytest.mark.parametrize(("rules", "shown"), [((WORDS,), 2), ((WORDS, JUDGED), 0)])
async def test_parts_are_seen_unless_others_judge_the_whole(
    rules: tuple[dict[str, Any], ...], shown: int
) -> None:
    parts, posted = gate(*rules)
    for seq in range(2):
        await fed(parts, seq, timedelta(minutes=1))
    assert len(posted.outgoing) == shown


async def test_a_stream_past_its_deadline_is_forgotten() -> None:
    parts, posted = gate(WORDS)
    await fed(parts, 0, timedelta(0))
    await fed(parts, 0, timedelta(minutes=1))
    await fed(parts, 1, timedelta(minutes=1))
    assert len(posted.outgoing) == 2
