"""Processors that tests run as processes: each copies its topic to the one for effects, or fails.

The topics are the test's own. Their name, and what else a processor needs to know, comes through
variables of the environment.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from faust.transport.consumer import Consumer as FaustConsumer
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread

from infra.catalog import CatalogView
from schemas.events import RequestCancelled
from schemas.topics import REQUEST_CANCELLED, Outgoing, Topic
from streams.steps import Fail, Runtime, Step, Work, steps

TOPIC = "TESTS_TOPIC"
PLACED = "TESTS_PLACED"
BLOCKED = "TESTS_BLOCKED"
SOUGHT = "TESTS_SOUGHT"

FOR_EVER_S = 3600
LATE_S = 1.5


def cause(name: str, partitions: int = 1, *, placed: bool = False) -> Topic[RequestCancelled]:
    """Returns the topic that a processor consumes."""
    return replace(REQUEST_CANCELLED, name=name, partitions=partitions, placed=placed)


def effect(name: str) -> Topic[RequestCancelled]:
    """Returns the topic that it publishes to."""
    return replace(REQUEST_CANCELLED, name=f"{name}.effects")


def copy(event: RequestCancelled, view: CatalogView, now: datetime) -> Iterator[Outgoing]:
    """Says the same once more, and when."""
    yield Outgoing(effect(os.environ[TOPIC]), replace(event, cancelled_at=now))


class FailOnEven:
    """Raises on every event with an even number, so many times each."""

    def __init__(self, times: float) -> None:
        self._times = times
        self._failures: dict[str, int] = {}

    def __call__(
        self, event: RequestCancelled, view: CatalogView, now: datetime
    ) -> Iterator[Outgoing]:
        """Copies, or raises midway."""
        yield from copy(event, view, now)
        failures = self._failures.get(event.request_id, 0)
        if int(event.request_id) % 2 == 0 and failures < self._times:
            self._failures[event.request_id] = failures + 1
            raise ValueError(f"this text quotes {event.tenant}")


def block(event: RequestCancelled, view: CatalogView, now: datetime) -> Iterator[Outgoing]:
    """Copies; blocks for ever on the event that the environment names."""
    if event.request_id == os.environ.get(BLOCKED):
        time.sleep(FOR_EVER_S)
    yield from copy(event, view, now)


def go_astray(event: RequestCancelled, view: CatalogView, now: datetime) -> Iterator[Outgoing]:
    """Copies, the event named "astray" to a topic that does not exist."""
    name = os.environ[TOPIC]
    yield Outgoing(effect(f"{name}.absent" if event.request_id == "astray" else name), event)


def _one(step: Step, runtime: Runtime, fail: Fail) -> Mapping[Topic[Any], Work]:
    topic = cause(os.environ[TOPIC], placed=PLACED in os.environ)
    return steps({topic: step}, runtime, fail)


def open_copying(runtime: Runtime, fail: Fail) -> Mapping[Topic[Any], Work]:
    """Opens a processor that copies."""
    return _one(copy, runtime, fail)


def open_late(runtime: Runtime, fail: Fail) -> Mapping[Topic[Any], Work]:
    """Opens a processor that copies, and waits for records without end while it fetches; after a
    rebalance it says that it knows where to read on, and takes a while to do so.
    """
    perform_seek = FaustConsumer.perform_seek
    getmany = AIOKafkaConsumerThread.getmany

    async def get(self: AIOKafkaConsumerThread, active_partitions: Any, timeout: float) -> Any:
        return await getmany(self, active_partitions, FOR_EVER_S)

    async def perform(self: FaustConsumer) -> None:
        await perform_seek(self)
        Path(os.environ[SOUGHT]).touch()
        await asyncio.sleep(LATE_S)

    FaustConsumer.perform_seek = perform  # type: ignore[method-assign]
    AIOKafkaConsumerThread.getmany = get  # type: ignore[method-assign]
    return open_copying(runtime, fail)


def open_failing(runtime: Runtime, fail: Fail) -> Mapping[Topic[Any], Work]:
    """Opens a processor that always fails on even numbers."""
    return _one(FailOnEven(float("inf")), runtime, fail)


def open_failing_once(runtime: Runtime, fail: Fail) -> Mapping[Topic[Any], Work]:
    """Opens a processor that fails on even numbers the first time."""
    return _one(FailOnEven(1), runtime, fail)


def open_blocking(runtime: Runtime, fail: Fail) -> Mapping[Topic[Any], Work]:
    """Opens a processor that blocks."""
    return _one(block, runtime, fail)


def open_astray(runtime: Runtime, fail: Fail) -> Mapping[Topic[Any], Work]:
    """Opens a processor that publishes to where nothing is."""
    return _one(go_astray, runtime, fail)
