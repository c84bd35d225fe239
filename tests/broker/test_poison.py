"""Records that could stop a consumer for good: each is answered or buried, and work goes on."""

from __future__ import annotations

import base64
import random

import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

from infra.settings import RegistrySettings
from schemas.codec import FRAME
from schemas.events import DeadLetterCause, Reason
from schemas.topics import INFERENCE_REQUESTED
from streams.client import Client, RequestRefused
from tests.broker.pools import Pools, pools
from tests.broker.speaking import TENANT, letters, producer, put, replies, request
from tests.harness import Bus, Process, eventually, unique
from tests.routed import routed

__all__ = ["pools"]

pytestmark = pytest.mark.stack

LARGE = 100_000_000


def test_garbage_that_unpacks_to_twenty_megabytes_is_a_dead_letter_and_the_gateway_lives(
    bus: Bus, gateway: Process
) -> None:
    garbage = b"\x01" * 20_000_000
    by = producer(bus, compression_type="zstd", message_max_bytes=str(LARGE))
    place = put(by, INFERENCE_REQUESTED.name, TENANT.encode(), garbage)
    [letter] = letters(bus, [place])
    assert letter.value == garbage
    assert gateway.child.poll() is None


def test_a_huge_request_without_a_key_is_refused_where_it_lies(bus: Bus, gateway: Process) -> None:
    # Smaller on its topic than it would be if it were moved: the broker takes it only once.
    text = base64.b64encode(random.Random(1).randbytes(7_300_000)).decode()
    asked = request(text)
    by = producer(bus, compression_type="zstd", message_max_bytes=str(LARGE))
    put(by, INFERENCE_REQUESTED.name, None, bus.codec.encode(asked))
    [replied] = replies(bus, asked)
    assert replied.refusal is not None
    assert replied.refusal.reason is Reason.REQUEST_TOO_LARGE
    assert gateway.child.poll() is None


def test_the_id_of_a_schema_that_is_no_avro_is_a_dead_letter(bus: Bus, gateway: Process) -> None:
    with SchemaRegistryClient({"url": bus.registry_settings.url}) as registry:
        schema = Schema('syntax = "proto3"; message Foreign { string name = 1; }', "PROTOBUF")
        foreign = registry.register_schema(unique("foreign") + "-value", schema)
    value = FRAME.pack(0, foreign) + b"{}"
    place = put(producer(bus), INFERENCE_REQUESTED.name, TENANT.encode(), value)
    [letter] = letters(bus, [place])
    assert letter.cause is DeadLetterCause.SCHEMA_UNKNOWN
    assert gateway.child.poll() is None


def test_headers_that_no_letter_could_hold_are_left_out_of_it(bus: Bus, gateway: Process) -> None:
    by = producer(bus, compression_type="zstd", message_max_bytes=str(LARGE))
    headers = [("padding", b"\0" * 70_000_000)]
    place = put(by, INFERENCE_REQUESTED.name, TENANT.encode(), b"nonsense", headers=headers)
    [letter] = letters(bus, [place])
    assert letter.value == b"nonsense"
    assert "without its 1 headers" in letter.message
    assert gateway.child.poll() is None


def test_an_answer_that_no_event_can_hold_is_a_refusal_and_the_worker_lives(pools: Pools) -> None:
    pool = pools(1)
    with pool.worker() as worker:
        # Half a surrogate pair, as a server makes it that cuts text by UTF-16.
        [broken] = pool.send(routed({"say": "secret \ud83d"}, stream=True))
        eventually(lambda: pool.reasons(broken), what="the refusal")
        assert pool.reasons(broken) == [Reason.PROVIDER_FAILED]
        pool.waits_for(pool.letters, "the dead letter")
        [letter] = pool.letters()
        assert letter.cause is DeadLetterCause.STEP_FAILED
        [next_one] = pool.send(routed({"words": 2}))
        eventually(lambda: pool.completed(next_one), what="the next one")
        assert "secret" not in worker.log()
        assert worker.stop() == 0


async def test_a_registrys_password_is_in_no_error() -> None:
    settings = RegistrySettings(url="http://ada:s3cret@127.0.0.1:9/apis/ccompat/v7")
    client = Client(tenant="client", registry=settings)
    with pytest.raises(RuntimeError, match="does not answer") as refused:
        await client.__aenter__()
    assert "s3cret" not in str(refused.value)
    assert not isinstance(refused.value, RequestRefused)
