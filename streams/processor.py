"""The stream processor: the one loop that runs steps and sinks, on Faust.

Faust brings membership, assignment and flow control; decoding, publishing and the decision when a
record counts as done are ours. A record is acknowledged when all that came of it lies on the log,
and never before a record that precedes it. Nothing leaves an agent as an exception.
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Any

import faust
import structlog

from infra.bus import Record
from infra.deadletters import bury
from infra.health import Health
from infra.prefix import Prefix
from infra.registry import Reader, SchemaMissing
from infra.settings import KafkaSettings
from infra.telemetry import IN_FLIGHT, SECONDS, described
from schemas.codec import Unreadable
from schemas.events import DeadLetterCause
from schemas.topics import Topic
from streams.lenient import read_leniently
from streams.steps import Fail, Runtime, Taken, Work, too_large

log = structlog.get_logger()

STOP_S = 20.0


class SettingRefused(ValueError):
    """A setting asks for something that does not hold."""


class Processor:
    """A consumer group member that takes up records of several topics.

    Args:
        runtime: What the process has at hand.
        works: Makes the work of each topic.
    """

    def __init__(
        self,
        runtime: Runtime,
        works: Callable[[Runtime, Fail], Mapping[Topic[Any], Work]],
    ) -> None:
        self._name = name = runtime.name
        self._runtime = runtime
        self._reader = Reader(runtime.codec, runtime.registry)
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._works = works(runtime, self.fail)
        self._client_id = f"{name}-{os.uname().nodename}-{os.getpid()}"
        self._prefixes: dict[tuple[str, int], tuple[int, Prefix[Any]]] = {}
        self._app = _app(name, self._client_id, runtime.kafka)
        for topic, work in self._works.items():
            channel = self._app.topic(topic.name, key_serializer="raw", value_serializer="raw")
            body = partial(self._consume, topic, work)
            self._app.agent(channel, name=f"{name}.{topic.name}", concurrency=1)(body)
        # Faust acknowledges what it skips during a rebalance, as if it had been processed: so its
        # own acknowledgements are switched off and only ours reach the consumer.
        self._acknowledge = self._app.consumer.ack
        self._app.consumer.ack = lambda message: False  # type: ignore[method-assign]

    async def run(self) -> None:
        """Works until SIGTERM or SIGINT.

        Raises:
            Exception: What ended the work early; the process must end non-zero.
        """
        health = Health(
            self._runtime.health,
            self._runtime.kafka,
            self._name,
            self._client_id,
            [topic.name for topic in self._works],
        )
        health.start()
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await self._app.start()
        log.info("processor started", topics=[topic.name for topic in self._works])
        ended: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(stop.wait()),
            asyncio.ensure_future(self._crashed()),
        ]
        await asyncio.wait([*ended, self._failed], return_when=asyncio.FIRST_COMPLETED)
        health.drain()
        if not self._failed.done():
            for work in self._works.values():
                await work.close()
            await asyncio.wait_for(self._app.stop(), STOP_S)
        health.close()
        for each in ended:
            each.cancel()
        if self._failed.done():
            self._failed.result()

    def fail(self, error: BaseException) -> None:
        """Ends the process: what is unsettled will be delivered to another."""
        if not self._failed.done():
            log.error("processor failed", error=described(error), reason=type(error).__name__)
            self._failed.set_exception(error)

    async def _crashed(self) -> None:
        """Returns when Faust itself has crashed, having noted it."""
        try:
            await self._app.wait_until_stopped()
        except Exception as error:  # noqa: BLE001 - Faust raises here whatever crashed it.
            self.fail(error)
        if self._app.crash_reason is not None:
            self.fail(self._app.crash_reason)

    async def _consume(self, topic: Topic[Any], work: Work, stream: AsyncIterator[Any]) -> None:
        # `Any`: Faust's stream and its events are untyped.
        async for event in stream.noack().events():  # type: ignore[attr-defined]
            try:
                await self._take(topic, work, event.message)
            # A surprise ends the process. As an exception it would only restart the agent.
            except Exception as error:  # noqa: BLE001
                self.fail(error)
                return

    async def _take(self, topic: Topic[Any], work: Work, message: Any) -> None:
        record = Record(
            message.topic,
            message.partition,
            message.offset,
            message.key,
            message.value,
            tuple(message.headers or ()),
        )
        prefix = self._prefix(message)
        prefix.begin(message.offset, message)
        IN_FLIGHT.inc()
        settle = partial(self._settle, prefix, message, time.monotonic())
        if problem := too_large(record):
            await self._bury(record, DeadLetterCause.UNREADABLE, problem, settle)
            return
        try:
            event = await self._reader.read(record.value, topic.event)
        except Unreadable as error:
            await self._bury(record, DeadLetterCause.UNREADABLE, str(error), settle)
        except SchemaMissing as error:
            await self._bury(record, DeadLetterCause.SCHEMA_UNKNOWN, str(error), settle)
        else:
            generation = message.generation_id
            await work.take(Taken(record, event, record.headers, settle, generation))

    async def _bury(
        self, record: Record, cause: DeadLetterCause, message: str, settle: Callable[[], None]
    ) -> None:
        letter = bury(record, self._name, cause, message)
        publisher = self._runtime.publisher
        await publisher.publish(publisher.encode([letter]))
        settle()

    def _prefix(self, message: Any) -> Prefix[Any]:
        key = (message.topic, message.partition)
        generation, prefix = self._prefixes.get(key, (None, None))
        if prefix is None or generation != message.generation_id:
            # After a rebalance Faust reads on from the committed offset: what was under way
            # before counts no more.
            prefix = Prefix()
            self._prefixes[key] = (message.generation_id, prefix)
        return prefix

    def _settle(self, prefix: Prefix[Any], message: Any, taken_at: float) -> None:
        IN_FLIGHT.dec()
        SECONDS.observe(time.monotonic() - taken_at)
        for done in prefix.finish(message.offset):
            if done.generation_id == self._app.consumer_generation_id:
                self._acknowledge(done)


def _app(name: str, client_id: str, kafka: KafkaSettings) -> faust.App:
    if kafka.processing_guarantee != "at_least_once":
        raise SettingRefused(
            f"KAFKA_PROCESSING_GUARANTEE={kafka.processing_guarantee} is refused: Faust's "
            "exactly_once loses no record but doubles some when a process is killed. Use "
            "at_least_once: every effect here is keyed by id, so a record read twice counts once"
        )
    read_leniently()
    return faust.App(
        id=name,
        broker=f"kafka://{kafka.bootstrap_servers.replace(',', ';')}",
        broker_client_id=client_id,
        broker_commit_interval=1.0,
        broker_heartbeat_interval=kafka.session_timeout_ms / 1000 / 4,
        broker_max_poll_records=500,
        broker_session_timeout=kafka.session_timeout_ms / 1000,
        consumer_auto_offset_reset="earliest",
        datadir=tempfile.gettempdir(),
        loop=asyncio.get_running_loop(),
        processing_guarantee="at_least_once",
        producer_request_timeout=60.0,
        store="memory://",
        stream_buffer_maxsize=256,
        stream_wait_empty=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
    )
