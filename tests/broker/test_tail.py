"""What reads without a group: all that lies there, and a word when something may be missing."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from infra.bus import Record
from infra.tail import BEGINNING, Tail, TailBroken
from schemas.topics import REPLY, REQUEST_CANCELLED, Topic
from streams.client import Client, RepliesLost
from tests.harness import PATIENCE_S, Bus, eventually, soon, unique
from tests.seed import changes, publish

pytestmark = pytest.mark.stack


def made_anew(bus: Bus, topic: Topic[Any]) -> None:
    """Deletes a topic and makes an empty one of its name."""
    bus.admin.delete_topics([topic.name])[topic.name].result(30)
    eventually(lambda: topic.name not in bus.admin.list_topics(timeout=30).topics)
    bus.make(topic)


async def test_a_tail_from_the_beginning_tells_when_it_has_all_and_when_it_missed_some(
    bus: Bus,
) -> None:
    topic = replace(REQUEST_CANCELLED, name=unique("tail"))
    bus.make(topic)
    for _ in range(10):
        bus.put(topic.name, b"key", b"value")
    bus.settle()
    heard: list[Record] = []
    errors: list[BaseException] = []
    complete = asyncio.Event()
    tail = Tail(
        bus.kafka,
        [topic.name],
        BEGINNING,
        heard.extend,
        unique("tail"),
        fail=errors.append,
        caught_up=complete.set,
    )
    await tail.start()
    await asyncio.wait_for(complete.wait(), PATIENCE_S)
    assert [each.offset for each in heard] == list(range(10))

    async def broken() -> object:
        return errors

    await asyncio.to_thread(made_anew, bus, topic)
    await soon(broken, what="the end of the tail")
    with pytest.raises(TailBroken):
        await tail.reached()
    await tail.close()
    [error] = errors
    assert isinstance(error, TailBroken)
    assert topic.name in str(error)


async def test_a_tail_starts_where_it_is_told_to_on_some_partitions(bus: Bus) -> None:
    topic = replace(REQUEST_CANCELLED, name=unique("tail"), partitions=2)
    bus.make(topic)
    for partition in (0, 1):
        for _ in range(5):
            bus.put(topic.name, b"key", b"value", partition=partition)
    bus.settle()
    heard: list[Record] = []
    errors: list[BaseException] = []
    tail = Tail(bus.kafka, [topic.name], None, heard.extend, unique("tail"), fail=errors.append)
    await tail.start({(topic.name, 1): 3})
    await tail.reached()
    assert [(each.partition, each.offset) for each in heard] == [(1, 3), (1, 4)]
    await tail.close()
    assert not errors


async def test_a_tail_of_one_partition_tells_when_it_has_all_that_lies_there_by_now(
    bus: Bus,
) -> None:
    topic = replace(REQUEST_CANCELLED, name=unique("tail"), partitions=3)
    bus.make(topic)

    def lay() -> None:
        for partition in range(3):
            bus.put(topic.name, b"key", b"value", partition=partition)
        bus.settle()

    lay()
    heard: list[Record] = []
    errors: list[BaseException] = []
    tail = Tail(
        bus.kafka,
        [topic.name],
        None,
        heard.extend,
        unique("tail"),
        fail=errors.append,
        home=lambda count: count - 1,
    )
    await tail.start()
    await tail.reached()
    assert heard == []
    lay()
    await tail.reached()
    assert [each.partition for each in heard] == [2]
    await tail.close()
    assert not errors


@pytest.mark.parametrize("committed", [True, False])
async def test_a_transaction_left_open_holds_up_only_a_tail_of_what_is_committed(
    bus: Bus, committed: bool
) -> None:
    topic = replace(REQUEST_CANCELLED, name=unique("tail"))
    bus.make(topic)
    stranger = bus.transaction()
    stranger.produce(topic.name, b"open", b"key")
    assert stranger.flush(PATIENCE_S) == 0
    bus.put(topic.name, b"key", b"behind")
    bus.settle()
    heard: list[Record] = []
    errors: list[BaseException] = []
    tail = Tail(
        bus.kafka,
        [topic.name],
        BEGINNING,
        heard.extend,
        unique("tail"),
        fail=errors.append,
        committed=committed,
    )
    await tail.start()

    async def behind() -> object:
        return [each for each in heard if each.value == b"behind"]

    if committed:
        stranger.abort_transaction(PATIENCE_S)
    await soon(behind, what="what lies behind the transaction")
    await tail.close()
    assert [each.value for each in heard] == ([] if committed else [b"open"]) + [b"behind"]
    assert not errors


async def test_a_client_that_can_hear_no_more_replies_says_so(bus: Bus) -> None:
    tenant = unique("deaf")
    topic, silent = REPLY.member(tenant), f"main.tests.{tenant}"
    # Nobody serves this pool, so nothing is answered even where a gateway is at work.
    route = {"name": "local", "pool": tenant, "model": "none"}
    publish(
        bus,
        *changes(
            [
                # Before the tenant: whom a gateway does not know, it does not answer.
                {"kind": "endpoint", "name": silent, "spec": {"routes": [route]}},
                {"kind": "tenant", "name": tenant, "spec": {"accept_unsigned": True}},
            ]
        ),
    )
    for number in range(50):
        bus.put(topic.name, str(number).encode(), b"earlier")
    bus.settle()
    async with Client(tenant=tenant, kafka=bus.kafka, registry=bus.registry_settings) as client:
        asked = asyncio.create_task(client.chat(silent, "hello", timeout=900))
        await asyncio.to_thread(made_anew, bus, topic)
        with pytest.raises(RepliesLost, match=tenant):
            await asked
        with pytest.raises(RepliesLost):
            await client.chat(silent, "hello")
