"""The local stack, for real."""

from __future__ import annotations

import uuid

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

from infra.stack.local import LocalStack

pytestmark = pytest.mark.stack


def test_what_is_produced_is_consumed(stack: LocalStack) -> None:
    servers: dict[str, str | int | float | bool] = {
        "bootstrap.servers": stack.environment()["KAFKA_BOOTSTRAP_SERVERS"]
    }
    topic = f"test.{uuid.uuid4().hex}"
    admin = AdminClient(servers)
    [made] = admin.create_topics([NewTopic(topic, 1, 1)]).values()
    made.result(30)
    producer = Producer(servers)
    producer.produce(topic, b"hello")
    assert producer.flush(30) == 0
    consumer = Consumer({**servers, "group.id": topic, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    message = consumer.poll(30)
    consumer.close()
    assert message is not None
    assert message.value() == b"hello"


def test_a_registered_schema_is_found_by_its_id(stack: LocalStack) -> None:
    text = '{"type": "record", "name": "Ping", "fields": []}'
    with SchemaRegistryClient({"url": stack.environment()["REGISTRY_URL"]}) as registry:
        number = registry.register_schema(f"{uuid.uuid4().hex}-value", Schema(text, "AVRO"))
        assert "Ping" in registry.get_schema(number).schema_str
