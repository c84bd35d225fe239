"""With no broker nothing is dropped in silence: whoever asks hears of it, and a metric shows it."""

from __future__ import annotations

import time

import pytest
from prometheus_client import REGISTRY

from infra import health
from infra.bus import Encoded, Publisher, PublishFailed
from infra.health import Health, Member
from infra.settings import HealthSettings, KafkaSettings
from infra.telemetry import BROKER
from schemas.codec import Codec
from schemas.topics import INFERENCE_REQUESTED
from tests.harness import eventually, free_port

TOPIC = INFERENCE_REQUESTED.name


@pytest.fixture
def nowhere() -> KafkaSettings:
    """Where nobody listens."""
    return KafkaSettings(bootstrap_servers=f"127.0.0.1:{free_port()}", delivery_timeout_ms=500)


async def test_what_no_broker_takes_fails_in_its_time_and_names_where_it_was_to_go(
    nowhere: KafkaSettings,
) -> None:
    publisher = Publisher(nowhere, Codec({}), "caller")
    asked = [Encoded(TOPIC, b"acme", f"{number}".encode()) for number in range(3)]
    settled: list[PublishFailed | None] = []
    publisher.post(asked, (), settled.append)
    began = time.monotonic()
    with pytest.raises(PublishFailed, match=TOPIC):
        await publisher.publish(asked)
    assert 0.4 < time.monotonic() - began < 60
    # What was sent before is told of as well, once.
    assert [type(each) for each in settled] == [PublishFailed]
    await publisher.close()


def test_a_metric_shows_that_no_broker_answers(
    nowhere: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "ASK_EVERY_S", 0.01)
    monkeypatch.setattr(health, "TRANSFER_S", 0.5)
    watching = Health(HealthSettings(), nowhere, Member("group", "member", (TOPIC,)))
    BROKER.set(1)
    watching.start()
    try:
        eventually(
            lambda: REGISTRY.get_sample_value("tessera_broker_answers") == 0, 60, "the metric"
        )
        assert watching.ready()[1]["broker_answers"] is False
        assert watching.live()[0]
    finally:
        watching.close()
