"""What was told last of each thing, kept up to date: a compacted topic, followed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Generic, TypeVar

from infra.registry import Reader
from infra.settings import KafkaSettings
from infra.told import told
from schemas.events import Event
from schemas.topics import Topic

E = TypeVar("E", bound=Event)


class Latest(Generic[E]):
    """The last event of each key.

    Args:
        kafka: Where the broker is.
        reader: Decodes the records.
        topic: What is followed.
        name: Client id.
        fail: Told what ended the following later.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        reader: Reader,
        topic: Topic[E],
        name: str,
        fail: Callable[[BaseException], None],
    ) -> None:
        self._topic = topic
        self._fail = fail
        self._known: dict[str, E] = {}
        self._events: AsyncGenerator[E | None, None] = told(
            kafka, reader, topic, f"{name}-{topic.name}"
        )
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns when all is known that lay on the topic at the time of the call.

        Raises:
            BusUnreachable: No broker answers.
            LookupError: There is no such topic.
            TailBroken: It cannot be read to its end.
        """
        async for event in self._events:
            if event is None:
                break
            self._keep(event)
        self._task = asyncio.create_task(self._follow())

    async def close(self) -> None:
        """Follows no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._events.aclose()

    def get(self, key: str) -> E | None:
        """Returns what was told last of something; None where nothing was."""
        return self._known.get(key)

    async def _follow(self) -> None:
        try:
            async for event in self._events:
                if event is not None:
                    self._keep(event)
        # Whatever it is: what is followed no more must not be gone by.
        except Exception as error:  # noqa: BLE001
            self._fail(error)

    def _keep(self, event: E) -> None:
        self._known[self._topic.key(event)] = event
