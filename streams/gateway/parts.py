"""Parts of answers that are looked at, or changed, before the caller sees them.

What is held back of a stream is with the process that had its first part. Another that goes on with
it shows nothing more of it: the final reply has the whole text, and the client puts it together.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from infra.telemetry import now
from schemas.events import InferencePart, Refusal
from schemas.topics import INFERENCE_PARTS, Outgoing
from streams.gateway.desk import Desk, policies_of
from streams.gateway.release import release_part
from streams.guards import PartGuard, holds_all
from streams.steps import Fail, Runtime, Steps, Taken

Key = tuple[str, str, int, int]

# Streams at one time; of more, the ones silent for longest show nothing more.
MOST_STREAMS = 10_000


@dataclass(slots=True)
class Stream:
    """One try at an answer, as far as it has come; no guard where nothing of it may be seen."""

    guard: PartGuard | None
    following: int = 0


class Parts(Steps):
    """Work that sends parts on, held to the policies."""

    def __init__(self, runtime: Runtime, fail: Fail, desk: Desk) -> None:
        super().__init__(INFERENCE_PARTS, release_part, runtime, fail)
        self._desk = desk
        self._streams: OrderedDict[Key, Stream] = OrderedDict()
        self._deadlines: list[tuple[datetime, Key]] = []

    # `Any`: None where there is nothing to decide.
    async def _given(self, taken: Taken) -> Any:
        part: InferencePart = taken.event  # type: ignore[assignment]
        return self._shown(part)

    def _outgoing(self, given: Any, instant: datetime) -> Iterable[Outgoing]:
        return () if given is None else super()._outgoing(given, instant)

    def _shown(self, part: InferencePart) -> InferencePart | None:
        """Returns a part as the caller may see it; None where it may not be seen, or was."""
        stream = self._stream(part)
        if stream is None or stream.guard is None or part.seq != stream.following:
            return None
        stream.following += 1
        delta = stream.guard.feed(part.delta)
        # What refuses now refuses the whole answer, too: the final reply says so.
        return None if isinstance(delta, Refusal) else replace(part, delta=delta, sealed=None)

    def _stream(self, part: InferencePart) -> Stream | None:
        self._drop(now())
        key = (part.tenant, part.request_id, part.attempt, part.epoch)
        if stream := self._streams.get(key):
            self._streams.move_to_end(key)
            return stream
        if part.seq:
            return None
        policies = policies_of(part.tenant, part.endpoint, self._runtime.view)
        guard = None
        if not isinstance(policies, Refusal) and not holds_all(policies):
            guard = PartGuard(
                policies,
                self._desk.seal,
                tenant=part.tenant,
                request_id=part.request_id,
                sealed=part.sealed,
            )
        self._streams[key] = stream = Stream(guard)
        heapq.heappush(self._deadlines, (part.deadline, key))
        if len(self._streams) > MOST_STREAMS:
            self._streams.popitem(last=False)
        return stream

    def _drop(self, instant: datetime) -> None:
        """Drops the streams for which nobody waits any more."""
        while self._deadlines and self._deadlines[0][0] <= instant:
            self._streams.pop(heapq.heappop(self._deadlines)[1], None)
