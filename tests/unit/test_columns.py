"""Each event has columns, and each Avro type its own."""

from __future__ import annotations

import pyarrow as pa
import pytest

from infra import columns
from infra.columns import arrow_schema
from schemas.avro import SchemaInvalid
from schemas.events import (
    EVENTS,
    Event,
    InferenceCompleted,
    InferenceRecorded,
)


def test_columns_follow_the_avro_schema() -> None:
    schema = arrow_schema(InferenceRecorded)
    assert schema.field("request_id") == pa.field("request_id", pa.string(), nullable=False)
    assert schema.field("outcome").type == pa.string()
    assert schema.field("requested_at").type == pa.timestamp("us", "UTC")
    assert schema.field("attempts").type == pa.int32()
    assert schema.field("tags").type == pa.map_(pa.string(), pa.string())


def test_a_column_may_be_null_where_the_field_has_a_default() -> None:
    schema = arrow_schema(InferenceRecorded)
    assert {field.name for field in schema if not field.nullable} == {
        "request_id", "tenant", "endpoint", "outcome", "request", "requested_at",
    }  # fmt: skip


def test_a_record_that_is_used_twice_is_the_same_struct_twice() -> None:
    routed = arrow_schema(InferenceCompleted).field("routed").type
    assert routed.field("route").type == routed.field("fallbacks").type.value_type


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS)
def test_every_event_has_columns(event: type[Event]) -> None:
    assert len(arrow_schema(event)) > 0


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ({"type": "array", "items": "Odd"}, "contains itself"),
        (["null", "string", "long"], "union"),
        ({"type": "string", "logicalType": "uuid"}, "logical type uuid"),
        ({"type": "map", "values": {"type": "array", "items": "long"}}, "a map of records"),
    ],
)
def test_a_type_without_a_column_is_named(
    kind: object, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    avro = {
        "type": "record",
        "name": "Odd",
        "namespace": "t",
        "fields": [{"name": "f", "type": kind}],
    }
    monkeypatch.setattr(columns, "whole", lambda name: avro)
    with pytest.raises(SchemaInvalid, match=message):
        arrow_schema(InferenceRecorded)
