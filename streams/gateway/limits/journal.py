"""Work that decides with counters: what limits are asked for is journalled first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

from infra.bus import Encoded
from infra.telemetry import Headers
from schemas.events import UsageCounted
from schemas.topics import USAGE_COUNTED, Outgoing, Topic
from streams.gateway.limits.counters import DECISIONS, Counters
from streams.gateway.limits.ledger import Ledger, Page
from streams.steps import Fail, Runtime, Step, Steps, Taken


class Journalled(Steps):
    """Work whose step may decide on limits; where it does not, all is as without them.

    Args:
        topic: Where records come from.
        step: Decides.
        runtime: What the process has at hand.
        fail: Ends the process.
        ledger: Keeps the counters.
        shared: Whether it decides on what tenants share.
    """

    def __init__(
        self,
        topic: Topic[Any],
        step: Step,
        runtime: Runtime,
        fail: Fail,
        ledger: Ledger,
        *,
        shared: bool,
    ) -> None:
        super().__init__(topic, step, runtime, fail)
        self._ledger = ledger
        self._shared = shared
        # Of the record in hand: its page, its offset, and what was decided with them.
        self._page: Page | None = None
        self._place = -1
        self._decision: UsageCounted | None = None

    async def close(self) -> None:
        """Sums up what is counted."""
        await self._ledger.close()

    async def _opened(self, taken: Taken) -> Counters:
        """Returns the counters that a record is decided with."""
        record = taken.record
        page = await self._ledger.page(record, taken.generation, shared=self._shared)
        self._page, self._place = page, record.offset
        return page.counters

    # `Any`: what a step decides on is between it and its topic.
    def _outgoing(self, given: Any, instant: datetime) -> Iterable[Outgoing]:
        outgoing = list(super()._outgoing(given, instant))
        self._decision = None
        for number, (topic, event) in enumerate(outgoing):
            if self._page and isinstance(event, UsageCounted) and event.entry in DECISIONS:
                stamped = replace(event, fence=self._page.fence, place=self._place)
                self._decision = stamped
                rest = [*outgoing[:number], *outgoing[number + 1 :]]
                return [Outgoing(topic, stamped), *rest]
        return outgoing

    def _put(self, taken: Taken, decided: list[Encoded], headers: Headers) -> None:
        page, decision = self._page, self._decision
        self._page = self._decision = None
        # A step that failed after all leaves a dead letter, and decides nothing.
        if page is None or decision is None or decided[0].topic != USAGE_COUNTED.name:
            self._post(taken, decided, headers)
            return
        first, *rest = decided
        then = partial(self._post, taken, rest, headers)
        self._ledger.journal(page, decision, first, headers, then)
