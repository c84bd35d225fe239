"""Lanes: the records of each topic on their way to its work, in order and never too many.

A lane takes whole batches and gives one record after another. Where its work waits, it fills; what
feeds it must look whether it is full. It knows nothing of Kafka but records in their order.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")

# A lane with so many is given no more batches.
FULL = 256
# Records after which other lanes have their turn, and what else the loop has to do.
TURN = 16


class Lane(Generic[T]):
    """What waits for the work of one topic.

    Args:
        take: Takes one record up, of the generation of the group in which it was read. It may wait:
            meanwhile nothing else of this lane is taken.
    """

    def __init__(self, take: Callable[[T, int], Awaitable[None]]) -> None:
        self._take = take
        self._waiting: deque[tuple[T, int]] = deque()
        self._some = asyncio.Event()

    @property
    def full(self) -> bool:
        """Whether no more should be put in."""
        return len(self._waiting) >= FULL

    def put(self, records: Iterable[T], generation: int) -> None:
        """Puts a batch behind what waits."""
        self._waiting.extend((record, generation) for record in records)
        self._some.set()

    def clear(self) -> None:
        """Forgets what waits; the record in hand is not interrupted."""
        self._waiting.clear()

    async def run(self) -> None:
        """Hands on what comes, for ever.

        Raises:
            Exception: What ``take`` raised.
        """
        while True:
            await self._some.wait()
            for _ in range(TURN):
                if not self._waiting:
                    self._some.clear()
                    break
                await self._take(*self._waiting.popleft())
            else:
                await asyncio.sleep(0)
