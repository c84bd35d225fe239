"""What strangers put on our topics: every compression and partitioner works, no nonsense harms."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka.partitioner import murmur2

from infra.telemetry import now
from schemas.codec import FRAME
from schemas.events import (
    Completion,
    DeadLetterCause,
    FinishReason,
    InferenceReplied,
    InferenceRequested,
    InferenceRouted,
    Reason,
    Route,
    Usage,
)
from schemas.topics import INFERENCE_REQUESTED, INFERENCE_ROUTED, REPLY
from streams.client import Client
from tests.broker.speaking import (
    REPLIES,
    TENANT,
    Place,
    letters,
    producer,
    put,
    put_oddly,
    replies,
    request,
    requests_with,
    terminal,
)
from tests.harness import Bus, Process, eventually, soon, unique

pytestmark = pytest.mark.stack

CODECS = ["gzip", "lz4", "snappy", "zstd"]
KEY = TENANT.encode()
# Worth compressing.
LONG = "the same words again and again " * 200
ROUTED = INFERENCE_ROUTED.member("echo")


def on_route(asked: InferenceRequested) -> InferenceRouted:
    route = Route(name="local", pool="echo", model="echo")
    return InferenceRouted(request=asked, route=route, routed_at=now())


def content(replied: InferenceReplied) -> str:
    assert replied.completion is not None, replied.refusal
    return replied.completion.content


def test_gateway_and_worker_read_every_compression(
    bus: Bus, gateway: Process, echo: Process
) -> None:
    asked = [request(f"{LONG}{codec}") for codec in CODECS]
    on_the_way = [on_route(request(f"{LONG}{codec} routed")) for codec in CODECS]
    for codec, event, onward in zip(CODECS, asked, on_the_way, strict=True):
        by = producer(bus, compression_type=codec)
        put(by, INFERENCE_REQUESTED.name, KEY, bus.codec.encode(event))
        put(by, ROUTED.name, onward.request.request_id.encode(), bus.codec.encode(onward))
    answers = replies(bus, *asked, *(each.request for each in on_the_way))
    assert [content(each) for each in answers] == [
        *(f"{LONG}{codec}" for codec in CODECS),
        *(f"{LONG}{codec} routed" for codec in CODECS),
    ]


async def test_a_client_reads_every_compression(bus: Bus) -> None:
    # Nobody serves this endpoint here: the answers are ours.
    async with Client(tenant=TENANT, kafka=bus.kafka, registry=bus.registry_settings) as client:
        tags = {codec: unique(codec) for codec in CODECS}
        asking = {
            codec: asyncio.create_task(
                client.chat("main.tests.vllm", codec, tags={tag: ""}, timeout=900)
            )
            for codec, tag in tags.items()
        }
        for codec, tag in tags.items():
            arrived = await soon_requested(bus, tag)
            answer = InferenceReplied(
                request_id=arrived,
                completion=Completion(
                    model="m",
                    content=f"{LONG}{codec}",
                    finish_reason=FinishReason.STOP,
                    usage=Usage(),
                ),
                replied_at=now(),
            )
            by = producer(bus, compression_type=codec)
            value = bus.codec.encode(answer)
            await asyncio.to_thread(put, by, REPLIES.name, arrived.encode(), value)
        for codec, task in asking.items():
            assert (await task).content == f"{LONG}{codec}"


async def soon_requested(bus: Bus, tag: str) -> str:
    async def arrived() -> bool:
        return bool(await asyncio.to_thread(requests_with, bus, INFERENCE_REQUESTED.name, tag))

    await soon(arrived)
    [found] = await asyncio.to_thread(requests_with, bus, INFERENCE_REQUESTED.name, tag)
    return found.request_id


def test_a_record_of_five_megabytes_is_refused_with_a_reply(bus: Bus, gateway: Process) -> None:
    large = request("x" * 5 * 1024 * 1024)
    put(bus.producer, INFERENCE_REQUESTED.name, KEY, bus.codec.encode(large))
    [replied] = replies(bus, large)
    assert replied.refusal is not None
    assert replied.refusal.reason is Reason.REQUEST_TOO_LARGE
    assert "1048576" in replied.refusal.message


def test_a_record_that_unpacks_to_far_more_than_it_weighs_harms_nobody(
    bus: Bus, gateway: Process
) -> None:
    large = request("\x00" * 7 * 1024 * 1024, endpoint="main.tests.nowhere")
    by = producer(bus, compression_type="zstd", message_max_bytes=str(16 * 1024 * 1024))
    put(by, INFERENCE_REQUESTED.name, KEY, bus.codec.encode(large))
    [replied] = replies(bus, large)
    assert replied.refusal is not None
    assert replied.refusal.reason is Reason.REQUEST_TOO_LARGE


# Values that are no event, and what is said of each.
NONSENSE: dict[str, tuple[bytes | None, DeadLetterCause]] = {
    "empty": (b"", DeadLetterCause.UNREADABLE),
    "json": (b'{"request_id": "r"}', DeadLetterCause.UNREADABLE),
    "nothing": (None, DeadLetterCause.UNREADABLE),
    "unknown schema": (FRAME.pack(0, 987654321) + b"abc", DeadLetterCause.SCHEMA_UNKNOWN),
}
HEADERS: Any = [("traceparent", b"\xff\xfe"), ("blob", b"\x00\xff"), ("none", None)]


def home(bus: Bus, topic: str, key: bytes) -> int:
    """Returns the partition where a key belongs."""
    count = len(bus.admin.list_topics(topic, timeout=30).topics[topic].partitions)
    return int((murmur2(key) & 0x7FFFFFFF) % count)


@pytest.mark.parametrize("topic", [INFERENCE_REQUESTED.name, ROUTED.name])
def test_nonsense_is_kept_as_a_dead_letter_and_the_partition_flows_on(
    bus: Bus, gateway: Process, echo: Process, topic: str
) -> None:
    partition = home(bus, topic, KEY)
    by = producer(bus)

    def lay(value: bytes | None, key: bytes | None = KEY) -> Place:
        return put(by, topic, key, value, partition=partition, headers=HEADERS)

    def lay_good(text: str, key: bytes | None = KEY) -> InferenceRequested:
        event = request(text)
        lay(bus.codec.encode(event if topic == INFERENCE_REQUESTED.name else on_route(event)), key)
        return event

    good = [lay_good("before")]
    places = [lay(value) for value, _ in NONSENSE.values()]
    good += [lay_good("without a key", None), lay_good("after")]
    cut = bus.codec.encode(request("cut"))[:-5]
    places.append(lay(cut))
    foreign = bus.codec.encode(letters(bus, places[:1])[0])
    places.append(lay(foreign))
    good.append(lay_good("last"))

    found = letters(bus, places)
    values = [*(value for value, _ in NONSENSE.values()), cut, foreign]
    causes = [*(cause for _, cause in NONSENSE.values()), *[DeadLetterCause.UNREADABLE] * 2]
    assert [letter.value or None for letter in found] == [value or None for value in values]
    assert [letter.cause for letter in found] == causes
    for letter in found:
        assert letter.key == KEY
        assert [(header.key, header.value) for header in letter.headers] == HEADERS
        assert letter.message
    texts = [content(replied) for replied in replies(bus, *good)]
    assert texts == ["before", "without a key", "after", "last"]
    group = "gateway" if topic == INFERENCE_REQUESTED.name else "inference-echo"
    eventually(lambda: bus.lag(group, topic) == 0, what=f"{group} at the end of {topic}")
    assert [len(terminal(bus, each.request_id)) for each in good] == [1] * len(good)


@pytest.mark.parametrize("topic", [INFERENCE_REQUESTED.name, ROUTED.name])
def test_a_header_whose_name_is_no_text_stops_neither_its_record_nor_others(
    bus: Bus, gateway: Process, echo: Process, topic: str
) -> None:
    words = ["plain", "odd", "plain again", "odd again", "after them"]
    asked = [request(each) for each in words]
    events = asked if topic == INFERENCE_REQUESTED.name else [on_route(each) for each in asked]
    *batch, after = [bus.codec.encode(event) for event in events]
    nonsense = b"nonsense"
    partition = home(bus, topic, KEY)
    places = put_oddly(bus, topic, partition, KEY, [*batch, nonsense, nonsense])
    put(producer(bus), topic, KEY, after, partition=partition)

    assert [content(each) for each in replies(bus, *asked)] == words
    even, odd = letters(bus, places[-2:])
    assert (even.key, even.value, odd.key, odd.value) == (KEY, nonsense) * 2
    headers = [("blob", b"\x00\xff"), ("even", b"x"), ("none", None)]
    assert [(each.key, each.value) for each in even.headers] == headers
    # What a worker reads with gives none of such a record's headers.
    names = ["blob", r"odd\xff\xfe", "none"] if topic == INFERENCE_REQUESTED.name else []
    assert [each.key for each in odd.headers] == names
    group = "gateway" if topic == INFERENCE_REQUESTED.name else "inference-echo"
    eventually(lambda: bus.lag(group, topic) == 0, what=f"{group} at the end of {topic}")
    assert [len(terminal(bus, each.request_id)) for each in asked] == [1] * len(asked)


def test_what_workers_and_clients_read_with_survives_any_number_of_such_headers(bus: Bus) -> None:
    topic = REPLY.member(unique("odd"))
    bus.make(topic)
    # Many, because CPython calls differently what it has often called.
    values = [b"%d" % number for number in range(200)]
    put_oddly(bus, topic.name, 0, KEY, values)
    found = [record for record in bus.records(topic.name) if record.partition == 0]
    assert [record.value for record in found] == values
    headers = (("blob", b"\x00\xff"), ("even", b"x"), ("none", None))
    assert [record.headers for record in found] == [headers, ()] * 100


@pytest.mark.parametrize(
    "partitioner", ["consistent", "consistent_random", "fnv1a", "murmur2_random", "random"]
)
def test_a_request_is_answered_once_whichever_partition_it_was_put_on(
    bus: Bus, gateway: Process, echo: Process, partitioner: str
) -> None:
    by = producer(bus, partitioner=partitioner)
    asked = [request(f"{partitioner} {number}") for number in range(5)]
    for each in asked:
        put(by, INFERENCE_REQUESTED.name, KEY, bus.codec.encode(each))
    assert [content(each) for each in replies(bus, *asked)] == [
        f"{partitioner} {number}" for number in range(5)
    ]
    eventually(lambda: bus.lag("gateway", INFERENCE_REQUESTED.name) == 0)
    assert [len(terminal(bus, each.request_id)) for each in asked] == [1] * 5


def test_a_request_under_another_tenants_key_is_moved_to_where_it_belongs(
    bus: Bus, gateway: Process, echo: Process
) -> None:
    tag = unique("moved")
    asked = request("under a foreign key", tags={tag: ""})
    wrong = (home(bus, INFERENCE_REQUESTED.name, KEY) + 1) % INFERENCE_REQUESTED.partitions
    value = bus.codec.encode(asked)
    put(producer(bus), INFERENCE_REQUESTED.name, b"somebody else", value, partition=wrong)
    assert content(replies(bus, asked)[0]) == "under a foreign key"
    lain = [
        (record.partition, record.key)
        for record in bus.records(INFERENCE_REQUESTED.name)
        if record.value == value
    ]
    here = home(bus, INFERENCE_REQUESTED.name, KEY)
    assert sorted(lain) == sorted([(wrong, b"somebody else"), (here, KEY)])
