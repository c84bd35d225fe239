"""What a comparison with the source has found wanting is taken in once more, a time each."""

from __future__ import annotations

import asyncio
from datetime import datetime

import structlog

from infra.bus import BusUnreachable
from infra.vectors import Place
from schemas.events import IndexReconciled
from streams.index.keeping import Keeping
from streams.steps import Fail

log = structlog.get_logger()


class Mending:
    """Has the keepings of a process mend what is theirs.

    Args:
        fail: Told of a surprise, which ends the process.
    """

    def __init__(self, fail: Fail) -> None:
        self._fail = fail
        self._tasks: dict[Place, asyncio.Task[None]] = {}
        # Which comparison was followed last.
        self._followed: dict[Place, datetime] = {}

    def follow(self, place: Place, keeping: Keeping, found: IndexReconciled | None) -> None:
        """Follows a comparison, unless that was done, or another one is still being followed."""
        if found is None or found.generation != place.generation or not keeping.holds:
            return
        if place in self._tasks or self._followed.get(place) == found.reconciled_at:
            return
        self._followed[place] = found.reconciled_at
        self._tasks[place] = task = asyncio.create_task(self._mend(place, keeping, found))
        task.add_done_callback(lambda _: self._tasks.pop(place, None))

    def leave(self, place: Place) -> None:
        """Follows what a place's comparison found no further: it is not kept any more."""
        if (task := self._tasks.get(place)) is not None:
            task.cancel()
        self._followed.pop(place, None)

    async def close(self) -> None:
        """Follows nothing any more."""
        tasks = tuple(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _mend(self, place: Place, keeping: Keeping, found: IndexReconciled) -> None:
        try:
            many = await keeping.mend((each.partition, each.offset) for each in found.wanted)
            log.info("comparison followed", index=place.index, taken_in_again=many)
        # The next comparison finds what is left.
        except BusUnreachable as lack:
            log.warning("index not mended", index=place.index, reason=str(lack))
        # A surprise ends the process.
        except Exception as error:  # noqa: BLE001
            self._fail(error)
