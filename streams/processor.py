"""The stream processor: the process around the groups that it is a member of.

What is once a process stands here: signals, health, garbage, and what ends it. Steps and sinks run
in one group that bears the process's name; others join and leave groups as they go.
"""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import structlog

from infra.bus import Record
from infra.health import Health
from infra.registry import Reader
from infra.telemetry import IN_FLIGHT, described
from schemas.topics import Topic
from streams.group import Feed, Group
from streams.steps import Fail, Runtime, Work

log = structlog.get_logger()

# Objects made, and collections of the younger, before garbage is looked for: records make many that
# go by themselves, and with Python's own figures a twelfth of the time went into looking.
COLLECT_AFTER = (50_000, 20, 20)

# Makes the work of each topic.
Works = Callable[[Runtime, Fail], Mapping[Topic[Any], Work]]


class Crew(Protocol):
    """What decides which groups a process is a member of."""

    async def start(self, processor: Processor) -> None:
        """Joins what there is to join; may go on joining and leaving in a task of its own."""

    async def close(self) -> None:
        """Joins nothing more."""


class Processor:
    """A process of stream processing.

    Args:
        runtime: What the process has at hand.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._groups: dict[str, Group] = {}
        self._health = Health(runtime.health, runtime.kafka)
        IN_FLIGHT.set_function(self._in_flight)

    async def run(self, crew: Crew) -> None:
        """Works until SIGTERM or SIGINT.

        Raises:
            Exception: What ended the work early; the process must end non-zero.
        """
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        self._health.start()
        await crew.start(self)
        self._health.begin()
        # What is there by now stays.
        gc.freeze()
        gc.set_threshold(*COLLECT_AFTER)
        log.info("processor started", groups=list(self._groups))
        stopped: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
        await asyncio.wait([stopped, self._failed], return_when=asyncio.FIRST_COMPLETED)
        self._health.drain()
        if not self._failed.done():
            await crew.close()
            for group in tuple(self._groups.values()):
                await group.stop()
        self._health.close()
        stopped.cancel()
        for group in self._groups.values():
            group.cancel()
        if self._failed.done():
            self._failed.result()

    async def join(self, group: Group) -> None:
        """Starts a group's member and watches over it."""
        self._groups[group.member.group] = group
        await group.start()
        self._health.join(group.member)

    async def leave(self, group: Group) -> None:
        """Stops a group's member."""
        self._health.leave(group.member)
        await group.stop()
        del self._groups[group.member.group]

    def fail(self, error: BaseException) -> None:
        """Ends the process: what is unsettled will be delivered to another."""
        if not self._failed.done():
            log.error("processor failed", error=described(error), reason=type(error).__name__)
            self._failed.set_exception(error)

    def _in_flight(self) -> int:
        """Returns how many records are taken up; asked from another thread."""
        return sum(group.in_flight for group in tuple(self._groups.values()))


class Fixed:
    """One group for as long as the process lives, named as the process is.

    Args:
        runtime: What the process has at hand.
        works: Makes the work of each topic.
    """

    def __init__(self, runtime: Runtime, works: Works) -> None:
        self._runtime = runtime
        self._works = works

    async def start(self, processor: Processor) -> None:
        """Joins the group."""
        runtime = self._runtime
        reader = Reader(runtime.codec, runtime.registry)
        feeds = {
            topic.name: Feed(partial(_read, reader, topic), work)
            for topic, work in self._works(runtime, processor.fail).items()
        }
        await processor.join(Group(runtime, runtime.name, feeds, processor.fail))

    async def close(self) -> None:
        """Leaves the group to the processor."""


async def _read(reader: Reader, topic: Topic[Any], record: Record) -> object:
    return await reader.read(record.value, topic.event)
