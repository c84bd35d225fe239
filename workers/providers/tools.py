"""Functions of the catalog, called as tools.

Whoever may call one was asked by the gateway. Here a call is checked and sent to those who run it,
and its journal is watched; what came of it is the same however often its request is delivered. That
a call failed is an answer, too: the model reads it, and the person behind it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator

import structlog

from infra.catalog import CatalogView
from infra.secrets import SecretUnavailable
from infra.settings import InferenceSettings, PostgresSettings, ToolsSettings
from schemas.agents import run_id
from schemas.events import (
    CatalogChanged,
    Completion,
    Delta,
    FinishReason,
    InferenceRequested,
    Reason,
    Refusal,
    Route,
    Task,
    Usage,
)
from workers.providers import ProviderBroken, ProviderRefused
from workers.tools import Call, ToolFailed
from workers.tools.arguments import read_arguments
from workers.tools.calls import Wanted, failed, version_of, wanted
from workers.tools.journal import Entry, Journal, State, open_journal
from workers.tools.queue import Queue, QueueUnreachable
from workers.tools.sessions import JournalUnreachable
from workers.tools.watch import Watch, WatchLost

log = structlog.get_logger()

# Of an id, in characters: it is a key of the journal.
MOST_ID = 500
ENDED = frozenset({State.DONE, State.UNSETTLED})


class Tools:
    """A provider that has functions called.

    Args:
        journal: What came of calls.
        queue: Where they are sent.
        settings: How often what.

    Attributes:
        view: The catalog; whoever runs this feeds it.
    """

    def __init__(self, journal: Journal, queue: Queue, settings: ToolsSettings) -> None:
        self.view = CatalogView()
        self._journal = journal
        self._queue = queue
        self._again_s = settings.lease_ms / 1000
        self._watch = Watch(journal, settings.look_ms / 1000)
        self._watch.start()

    def changed(self, change: CatalogChanged) -> None:
        """Hears of a change that the view has taken in."""

    async def complete(
        self, request: InferenceRequested, route: Route
    ) -> AsyncGenerator[Delta | Completion, None]:
        """Yields the Completion, whose content is what the call came to, as JSON.

        Raises:
            ProviderBroken: It can answer nobody any more.
            ProviderRefused: It is no call of a tool, or of another than its id was used for.
        """
        function, number = _called(request, route)
        try:
            call = await self._call(request, function, number)
            outcome = await self._came_to(wanted(call, self.view.position))
        except ToolFailed as failure:
            outcome = failed(failure)
        except WatchLost as lost:
            raise ProviderBroken(str(lost)) from lost
        yield Completion(
            model=route.entity,
            content=outcome,
            finish_reason=FinishReason.STOP,
            usage=Usage(),
        )

    async def close(self) -> None:
        """Closes queue and journal; calls that run go on."""
        await self._watch.close()
        self._queue.close()
        await self._journal.close()

    async def _call(self, request: InferenceRequested, function: str, number: int) -> Call:
        """Returns a call that may be made.

        Raises:
            ToolFailed: There is no such version, or the arguments do not fit it.
        """
        spec = version_of(self.view, function, number)
        arguments = await asyncio.to_thread(read_arguments, request.inputs, spec.parameters)
        return Call(
            # Tenants choose ids of their own, and may choose the same.
            call_id=run_id(request.request_id, request.tenant),
            function=function,
            version=number,
            spec=spec,
            arguments=arguments,
            tenant=request.tenant,
            principal=request.principal or request.tenant,
            deadline=request.deadline,
        )

    async def _came_to(self, wanted: Wanted) -> str:
        """Returns what a call came to, which is sent to whoever runs it as often as it takes."""
        sending = Sending(self._again_s)
        async with self._watch.over(wanted.call_id) as standing:
            while True:
                entry = await standing.next()
                if entry is not None and entry.digest != wanted.digest:
                    raise _refused("its id was used for another call: choose a new one")
                if entry is not None and entry.state in ENDED:
                    return entry.outcome or ""
                if sending.due(entry, time.monotonic()):
                    await self._send(wanted, sending.attempt)

    async def _send(self, wanted: Wanted, attempt: int) -> None:
        try:
            await self._queue.send(wanted, attempt)
        except QueueUnreachable as problem:
            # It may have the call all the same: to refuse now could be wrong, to go on is not.
            log.warning("call not sent", call=wanted.call_id, error=str(problem))


class Sending:
    """When a call is sent, and sent again.

    Args:
        again_s: How long the first sending may take to lead to something; each further one of the
            same attempt may take twice as long as the one before.

    Attributes:
        attempt: Which attempt is hoped for.
    """

    def __init__(self, again_s: float) -> None:
        self.attempt = 0
        self._first_s = again_s
        self._pause_s = again_s
        self._next = 0.0

    def due(self, entry: Entry | None, now: float) -> bool:
        """Returns whether a call is to be sent; then it counts as sent.

        Args:
            entry: How it stands; None where nobody has begun it.
            now: Seconds of a monotonic clock.
        """
        if entry is not None and entry.state is State.STARTED and not entry.over:
            return False
        attempt = entry.attempt + 1 if entry else 1
        if attempt == self.attempt and now < self._next:
            return False
        self._pause_s = 2 * self._pause_s if attempt == self.attempt else self._first_s
        self.attempt = attempt
        self._next = now + self._pause_s
        return True


async def open_tools(settings: InferenceSettings) -> Tools:
    """Opens the journal and the queue.

    Raises:
        ValueError: The journal cannot be opened.
    """
    tools = ToolsSettings()
    try:
        journal = await open_journal(PostgresSettings(), tools.database)
    except (JournalUnreachable, SecretUnavailable) as problem:
        raise ValueError(str(problem)) from None
    return Tools(journal, Queue(tools), tools)


def _called(request: InferenceRequested, route: Route) -> tuple[str, int]:
    """Returns the version of a function that a request calls.

    Raises:
        ProviderRefused: It calls none.
    """
    function, _, number = route.entity.partition("@")
    if request.task is not Task.TOOL or not number.isdecimal():
        message = "this pool calls functions alone"
        raise ProviderRefused(Refusal(reason=Reason.ROUTE_UNFIT, message=message, field="task"))
    if "\0" in request.request_id or len(request.request_id) > MOST_ID:
        raise _refused(f"the id of a call has at most {MOST_ID} characters, none of them NUL")
    return function, int(number)


def _refused(message: str) -> ProviderRefused:
    return ProviderRefused(
        Refusal(reason=Reason.REQUEST_INVALID, message=message, field="request_id")
    )
