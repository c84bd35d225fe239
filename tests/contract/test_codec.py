"""The codec: what is encoded comes back, and nothing else gets through."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any

import fastavro
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from schemas.avro import whole
from schemas.codec import FRAME, Codec, SchemaUnlearned, SchemaUnregistered, Unencodable, Unreadable
from schemas.events import (
    EVENTS,
    Completion,
    Event,
    FinishReason,
    InferenceReplied,
    InferenceRequested,
    Message,
    Reason,
    Refusal,
    RequestCancelled,
    Role,
    Sampling,
    Usage,
)
from tests.unit.events import events

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
IDS = {name: number for number, name in enumerate(sorted(EVENTS), 100)}
CODEC = Codec(IDS)
FOREIGN_ID = 7

CANCELLED = RequestCancelled(
    request_id="r", tenant="acme", cancelled_at=NOON, deadline=NOON + timedelta(minutes=1)
)
REQUESTED = InferenceRequested(
    request_id="r",
    tenant="acme",
    endpoint="main.tests.echo",
    messages=(Message(role=Role.USER, content="hello"),),
    sampling=Sampling(),
    reply_to="reply.v1.acme",
    requested_at=NOON,
    deadline=NOON + timedelta(minutes=1),
)

# Said of the wide ones, whenever an example of them is shown.
pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")
kinds = pytest.mark.parametrize("name", sorted(EVENTS))
# Events are wide: what hypothesis calls large is their ordinary size.
few = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@kinds
@few
@given(data=st.data())
def test_what_is_encoded_is_decoded_as_it_was(name: str, data: st.DataObject) -> None:
    event: Event = data.draw(events(EVENTS[name]))
    value = CODEC.encode(event)
    assert CODEC.decode(value, EVENTS[name]) == event
    assert value[0] == 0
    assert FRAME.unpack_from(value)[1] == IDS[name]


@kinds
@few
@given(data=st.data())
def test_an_event_is_the_bytes_that_fastavro_makes_of_it(name: str, data: st.DataObject) -> None:
    event: Event = data.draw(events(EVENTS[name]))
    assert CODEC.encode(event) == value_of(whole(name), event.to_avro(), IDS[name])


@kinds
@settings(max_examples=100, deadline=None)
@given(body=st.binary(max_size=200))
@example(body=b"\x01")
@example(body=b"\xff" * 9 + b"\x01")
@example(body=b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01")
def test_a_body_of_any_bytes_is_read_or_refused(name: str, body: bytes) -> None:
    try:
        event = CODEC.decode(FRAME.pack(0, IDS[name]) + body, EVENTS[name])
    except Unreadable:
        return
    assert isinstance(event, EVENTS[name])


@settings(max_examples=500, deadline=None)
@given(value=st.binary(max_size=64))
@example(value=b"")
@example(value=b"\x00")
@example(value=b"\x00\x00\x00\x00")
@example(value=b'{"request_id": "r"}')
def test_a_value_of_any_bytes_is_unreadable_or_names_a_new_schema(value: bytes) -> None:
    try:
        CODEC.decode(value, RequestCancelled)
    except (Unreadable, SchemaUnlearned):
        return
    # Only a framed record gets here.
    assert value.startswith(FRAME.pack(0, IDS[RequestCancelled.SCHEMA]))


@few
@given(data=st.data(), flip=st.integers(0, 255))
def test_a_damaged_byte_is_read_or_refused(data: st.DataObject, flip: int) -> None:
    value = bytearray(CODEC.encode(data.draw(events(InferenceRequested))))
    place = data.draw(st.integers(FRAME.size, len(value) - 1))
    value[place] ^= flip
    try:
        event = CODEC.decode(bytes(value), InferenceRequested)
    except Unreadable:
        return
    assert isinstance(event, InferenceRequested)


def test_every_cut_of_a_value_is_refused() -> None:
    value = CODEC.encode(REQUESTED)
    for length in range(len(value)):
        with pytest.raises(Unreadable):
            CODEC.decode(value[:length], InferenceRequested)


def test_bytes_behind_the_record_are_refused() -> None:
    with pytest.raises(Unreadable, match="3 bytes follow"):
        CODEC.decode(CODEC.encode(CANCELLED) + b"abc", RequestCancelled)


@pytest.mark.parametrize("value", [None, b""])
def test_an_empty_value_is_refused(value: bytes | None) -> None:
    with pytest.raises(Unreadable, match="empty"):
        CODEC.decode(value, RequestCancelled)


def test_an_event_of_another_type_is_refused() -> None:
    with pytest.raises(Unreadable, match=r"RequestCancelled, the topic carries .*Requested"):
        CODEC.decode(CODEC.encode(CANCELLED), InferenceRequested)


def test_an_event_that_is_not_registered_is_not_encoded() -> None:
    codec = Codec({name: number for name, number in IDS.items() if name != CANCELLED.SCHEMA})
    with pytest.raises(SchemaUnregistered, match="run provisioning"):
        codec.encode(CANCELLED)
    assert codec.encode(REQUESTED)


def test_a_new_schema_id_is_asked_for_by_its_number() -> None:
    with pytest.raises(SchemaUnlearned) as unlearned:
        CODEC.decode(FRAME.pack(0, 4_000_000_000) + b"x", RequestCancelled)
    assert unlearned.value.schema_id == 4_000_000_000


def test_an_error_quotes_nothing_of_the_value() -> None:
    value = CODEC.encode(replace(REQUESTED, messages=(Message(role=Role.USER, content="s3cret"),)))
    for spoilt in (value[:-3], value + b"!", value.replace(b"s3cret", b"s3cre\xff")):
        with pytest.raises(Unreadable) as problem:
            CODEC.decode(spoilt, InferenceRequested)
        assert "s3cre" not in str(problem.value)
        assert problem.value.__cause__ is None


# How schemas grow: the writer is another version than the reader.


def fields_of(schema: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = schema["fields"]
    return found


def value_of(schema: dict[str, Any], record: object, schema_id: int = FOREIGN_ID) -> bytes:
    body = BytesIO(FRAME.pack(0, schema_id))
    body.seek(0, 2)
    fastavro.schemaless_writer(body, fastavro.parse_schema(copy.deepcopy(schema)), record)
    return body.getvalue()


def taught(schema: dict[str, Any]) -> Codec:
    codec = Codec(IDS)
    codec.learn(FOREIGN_ID, schema)
    return codec


def defaulted(name: str) -> Iterator[str]:
    yield from (field["name"] for field in fields_of(whole(name)) if "default" in field)


@kinds
@few
@given(data=st.data())
def test_what_an_older_writer_did_not_know_is_read_as_its_default(
    name: str, data: st.DataObject
) -> None:
    event = data.draw(events(EVENTS[name]))
    older = whole(name)
    missing = set(defaulted(name))
    older["fields"] = [each for each in fields_of(older) if each["name"] not in missing]
    # A named type that stood in a missing field must still be defined somewhere.
    older = _closed(older, name)
    kept = {each["name"] for each in fields_of(older)}
    record = {key: value for key, value in event.to_avro().items() if key in kept}
    decoded = taught(older).decode(value_of(older, record), EVENTS[name])
    for field in kept:
        assert getattr(decoded, field) == getattr(event, field)
    fresh = type(event)(**{key: getattr(event, key) for key in kept})
    assert decoded == fresh


def _closed(schema: dict[str, Any], name: str) -> dict[str, Any]:
    """Gives back fields until every type that is used is defined."""
    full = fields_of(whole(name))
    while True:
        try:
            fastavro.parse_schema(copy.deepcopy(schema))
        except fastavro.schema.UnknownType:
            kept = {each["name"] for each in fields_of(schema)}
            back = next(each["name"] for each in full if each["name"] not in kept)
            schema = {
                **schema,
                "fields": [each for each in full if each["name"] in kept | {back}],
            }
        else:
            return schema


@kinds
@few
@given(data=st.data())
def test_what_a_newer_writer_added_is_passed_over(name: str, data: st.DataObject) -> None:
    event = data.draw(events(EVENTS[name]))
    newer = whole(name)
    extra = {"name": "added", "type": {"type": "array", "items": "string"}, "default": []}
    newer["fields"] = [extra, *fields_of(newer), {**extra, "name": "added_last"}]
    record = {**event.to_avro(), "added": ["new"], "added_last": ["newer"]}
    assert taught(newer).decode(value_of(newer, record), EVENTS[name]) == event


def test_a_symbol_that_a_newer_writer_added_is_read_as_unknown() -> None:
    newer = whole(InferenceReplied.SCHEMA)

    def add(schema: Any) -> None:
        if isinstance(schema, list):
            for each in schema:
                add(each)
        elif isinstance(schema, dict):
            if schema["type"] == "enum":
                schema["symbols"] = ["BRAND_NEW", *schema["symbols"]]
            for field in schema.get("fields", ()):
                add(field["type"])
            add(schema.get("items"))
            add(schema["type"])

    add(newer)
    refused = InferenceReplied(
        request_id="r",
        refusal=Refusal(reason=Reason.RATE_LIMITED, message="slow down"),
        replied_at=NOON,
    )
    completed = InferenceReplied(
        request_id="r",
        completion=Completion(model="m", finish_reason=FinishReason.STOP, usage=Usage()),
        replied_at=NOON,
    )
    codec = taught(newer)
    record = refused.to_avro()
    assert codec.decode(value_of(newer, record), InferenceReplied) == refused
    record["refusal"]["reason"] = "BRAND_NEW"
    decoded = codec.decode(value_of(newer, record), InferenceReplied)
    assert decoded.refusal == Refusal(reason=Reason.UNKNOWN, message="slow down")
    record = completed.to_avro()
    record["completion"]["finish_reason"] = "BRAND_NEW"
    decoded = codec.decode(value_of(newer, record), InferenceReplied)
    assert decoded.completion is not None
    assert decoded.completion.finish_reason is FinishReason.UNKNOWN


def test_a_writer_that_lacks_a_required_field_is_refused() -> None:
    older = whole(RequestCancelled.SCHEMA)
    older["fields"] = [each for each in fields_of(older) if each["name"] != "tenant"]
    record = {key: value for key, value in CANCELLED.to_avro().items() if key != "tenant"}
    with pytest.raises(Unreadable, match="SchemaResolutionError"):
        taught(older).decode(value_of(older, record), RequestCancelled)


def test_a_learned_schema_of_another_event_is_refused() -> None:
    other = {"type": "record", "name": "elsewhere.Other", "fields": []}
    with pytest.raises(Unreadable, match=r"the value is a elsewhere\.Other"):
        taught(other).decode(value_of(other, {}), RequestCancelled)


NO_RECORDS: dict[str, dict[str, object]] = {
    "an unknown type": {
        "type": "record",
        "name": "a.R",
        "fields": [{"name": "field", "type": "a.Nowhere"}],
    },
    "no name": {"type": "record", "fields": []},
    "no schema": {},
    "no type": {"name": "a.R"},
    "plain": {"type": "string"},
}


@pytest.mark.parametrize("what", NO_RECORDS)
def test_what_is_no_record_schema_is_not_learned(what: str) -> None:
    with pytest.raises(Unreadable, match="schema 7 is no Avro record"):
        Codec(IDS).learn(FOREIGN_ID, NO_RECORDS[what])


def with_field(schema: object) -> dict[str, Any]:
    newer = whole(RequestCancelled.SCHEMA)
    newer["fields"] = [*fields_of(newer), {"name": "added", "type": schema}]
    return newer


EMPTY = {"type": "record", "name": "Empty", "fields": [{"name": "nothing", "type": "null"}]}

# The bytes of such a value say nothing of how much it takes to read it.
UNBOUNDED: dict[str, dict[str, Any]] = {
    "a list of empty records": with_field({"type": "array", "items": EMPTY}),
    "a list of nulls": with_field({"type": "array", "items": "null"}),
    "a record inside itself": with_field(["null", RequestCancelled.SCHEMA]),
    "a record inside itself by its short name": with_field(
        {"type": "map", "values": ["null", "RequestCancelled"]}
    ),
}


@pytest.mark.parametrize("what", UNBOUNDED)
def test_a_schema_whose_values_have_no_bound_is_not_learned(what: str) -> None:
    with pytest.raises(Unreadable, match="without bound"):
        Codec(IDS).learn(FOREIGN_ID, UNBOUNDED[what])


def test_a_failed_lesson_changes_nothing() -> None:
    codec = Codec(IDS)
    with pytest.raises(Unreadable):
        codec.learn(IDS[CANCELLED.SCHEMA], {"type": "string"})
    assert codec.decode(codec.encode(CANCELLED), RequestCancelled) == CANCELLED


@pytest.mark.parametrize(
    "wrong",
    [{"request_id": "half a pair: \ud83d"}, {"tenant": 7}, {"cancelled_at": "half past nine"}],
)
def test_what_no_schema_can_say_is_not_encoded_and_not_quoted(wrong: dict[str, Any]) -> None:
    with pytest.raises(Unencodable) as problem:
        Codec(IDS).encode(replace(CANCELLED, **wrong))
    assert CANCELLED.SCHEMA in str(problem.value)
    assert "half" not in str(problem.value)
