"""Records that are small on their topic and large once unpacked."""

from __future__ import annotations

import pytest

from schemas.topics import INFERENCE_REQUESTED
from tests.broker.speaking import TENANT, letters, producer, put
from tests.harness import Bus, Process

pytestmark = pytest.mark.stack


def test_garbage_that_unpacks_to_twenty_megabytes_is_a_dead_letter_and_the_gateway_lives(
    bus: Bus, gateway: Process
) -> None:
    garbage = b"\x01" * 20_000_000
    by = producer(bus, compression_type="zstd", message_max_bytes=str(100_000_000))
    place = put(by, INFERENCE_REQUESTED.name, TENANT.encode(), garbage)
    [letter] = letters(bus, [place])
    assert letter.value == garbage
    assert gateway.child.poll() is None
