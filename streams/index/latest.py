"""What was told last of each thing: a compacted topic, followed by every process by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

import structlog

from infra.bus import Record
from infra.registry import Reader, SchemaMissing
from infra.settings import KafkaSettings
from infra.tail import BEGINNING, Tail
from schemas.codec import Unreadable
from schemas.events import Event
from schemas.topics import Topic
from streams.steps import Fail

E = TypeVar("E", bound=Event)

log = structlog.get_logger()


class Latest(Generic[E]):
    """The last event of each key.

    Args:
        kafka: Where the broker is.
        reader: Decodes the records.
        topic: What is followed.
        name: Client id.
        fail: Told what ended the following.
    """

    def __init__(
        self, kafka: KafkaSettings, reader: Reader, topic: Topic[E], name: str, fail: Fail
    ) -> None:
        self._reader = reader
        self._topic = topic
        self._known: dict[str, E] = {}
        self._arrived: asyncio.Queue[list[Record] | None] = asyncio.Queue()
        self._complete = asyncio.Event()
        self._tail = Tail(
            kafka,
            [topic.name],
            BEGINNING,
            self._arrived.put_nowait,
            f"{name}-{topic.name}",
            fail=fail,
            caught_up=lambda: self._arrived.put_nowait(None),
        )
        self._fail: Callable[[BaseException], None] = fail
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns when all is known that lay on the topic at the time of the call.

        Raises:
            BusUnreachable: No broker answers.
            LookupError: There is no such topic.
        """
        await self._tail.start()
        self._task = asyncio.create_task(self._apply())
        await self._complete.wait()

    async def close(self) -> None:
        """Follows no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._tail.close()

    def get(self, key: str) -> E | None:
        """Returns what was told last of something; None where nothing was."""
        return self._known.get(key)

    def put(self, event: E) -> None:
        """Takes in what this process itself has told, before it comes back."""
        self._known[self._topic.key(event)] = event

    async def _apply(self) -> None:
        try:
            while True:
                lot = await self._arrived.get()
                if lot is None:
                    self._complete.set()
                for record in lot or ():
                    await self._take(record)
        # Whatever it is: what is followed no more must not be gone by.
        except Exception as error:  # noqa: BLE001
            self._fail(error)

    async def _take(self, record: Record) -> None:
        if record.value is None:
            self._known.pop((record.key or b"").decode(errors="backslashreplace"), None)
            return
        try:
            self.put(await self._reader.read(record.value, self._topic.event))
        except (SchemaMissing, Unreadable):
            log.warning("report unreadable", topic=record.topic, offset=record.offset)
