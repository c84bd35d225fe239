"""Which process of several acts: the one that has the one partition of a topic in a group."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from infra.bus import POLL_S, BusUnreachable, membership, partitions
from infra.settings import KafkaSettings

T = TypeVar("T")


class Lead:
    """Membership in a group of which one member acts. Made inside the running loop.

    Two may act for a moment when one of them has been silent for long: what they do must bear it.

    Args:
        kafka: Where the broker is.
        group: The group.
        client_id: This process's id in it.
        topic: A topic of one partition; its records do not matter.
        changed: Called in the loop with whether this process is the one.
        fail: Called in the loop with what ended the membership.
    """

    def __init__(  # noqa: PLR0917 - a group, and who hears of it
        self,
        kafka: KafkaSettings,
        group: str,
        client_id: str,
        topic: str,
        changed: Callable[[bool], None],
        fail: Callable[[BaseException], None],
    ) -> None:
        self._topic = topic
        self._changed = changed
        self._fail = fail
        self._loop = asyncio.get_running_loop()
        settings = membership(kafka, group, client_id)
        self._consumer = Consumer({**settings, "auto.offset.reset": "latest"})
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="lead", daemon=True)

    async def start(self) -> None:
        """Joins the group.

        Raises:
            BusUnreachable: No broker answers.
            LookupError: There is no such topic.
        """
        await asyncio.to_thread(partitions, self._consumer, self._topic)
        self._thread.start()

    async def close(self) -> None:
        """Leaves the group, so that another can act."""
        self._closing.set()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)

    def _poll(self) -> None:
        try:
            self._consumer.subscribe(
                [self._topic], on_assign=self._gained, on_revoke=self._lost, on_lost=self._lost
            )
            while not self._closing.is_set():
                message = self._consumer.poll(POLL_S)
                error = message.error() if message else None
                if error is not None and error.fatal():
                    raise KafkaException(error)
        except KafkaException as problem:
            error = problem.args[0]
            said = error.str() if isinstance(error, KafkaError) else str(problem)
            self._tell(self._fail, BusUnreachable(f"{self._topic}: {said}"))
        finally:
            self._consumer.close()

    def _gained(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        if places:
            self._tell(self._changed, True)

    def _lost(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        if places:
            self._tell(self._changed, False)

    def _tell(self, hear: Callable[[T], None], what: T) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(hear, what)
