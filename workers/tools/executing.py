"""Running one call: begun in the journal, kept one's own while it runs, and ended there.

What stops a call early: its caller cancels it, its time is over, its lease is somebody else's, or
this process must end; how, says ``running.py``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import structlog

from infra.catalog import CatalogView
from infra.settings import ToolsSettings
from infra.telemetry import described, now
from schemas.events import CatalogChanged
from schemas.kinds import FunctionVersionSpec
from workers.tools import Call, Fault, Runner, ToolFailed
from workers.tools.calls import Reconciler, Wanted, called, failed, returned, version_of
from workers.tools.journal import Began, Entry, Journal, State
from workers.tools.running import Running, Stop, asked, in_time, unheld
from workers.tools.sessions import JournalUnreachable

log = structlog.get_logger()

# How long a call waits for a catalog that is as new as the one it was wanted by.
CATALOG_S = 30.0
# A lease is renewed so often before it would be over.
RENEWALS = 5
# What takes its executor with it each time must not take all of them for ever.
MOST_ATTEMPTS = 10
# Cancellations that are remembered before it is looked which of them are over.
ROOM = 1000


class Executing:
    """Runs calls. Made inside the running loop.

    Args:
        journal: Where they are begun and ended.
        view: The catalog; whoever runs this feeds it.
        runners: By language.
        settings: How long a lease is.
    """

    def __init__(
        self,
        journal: Journal,
        view: CatalogView,
        runners: Mapping[str, Runner],
        settings: ToolsSettings,
    ) -> None:
        self._journal = journal
        self._view = view
        self._runners = runners
        self._lease = timedelta(milliseconds=settings.lease_ms)
        self._moved = asyncio.Event()
        self._running: dict[str, Running] = {}
        self._cancelled: dict[str, datetime] = {}
        self._room = ROOM
        self._under_way: set[asyncio.Task[Any]] = set()
        self._drained = False

    def changed(self, change: CatalogChanged) -> None:
        """Hears of a change that the view has taken in."""
        self._moved.set()
        self._moved = asyncio.Event()

    def cancel(self, call_id: str, until: datetime) -> None:
        """Stops a call that nobody waits for any more, and does not begin it until then."""
        self._cancelled[call_id] = until
        if len(self._cancelled) > self._room:
            instant = now()
            self._cancelled = {each: at for each, at in self._cancelled.items() if at > instant}
            self._room = ROOM + 2 * len(self._cancelled)
        if call_id in self._running:
            self._running[call_id].stop(Stop.CANCELLED)

    async def perform(self, wanted: Wanted) -> None:
        """Runs a call to its end, if it is to begin here.

        Raises:
            JournalUnreachable: The journal was away for as long as anybody waited.
        """
        if self._drained or wanted.call_id in self._cancelled or now() >= wanted.deadline:
            return
        task = asyncio.current_task()
        assert task is not None
        self._under_way.add(task)
        try:
            await self._perform(wanted)
        finally:
            self._under_way.discard(task)

    async def drain(self, seconds: float) -> None:
        """Returns when no call is under way; those that take longer are given up to others."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=seconds)
        self._drained = True
        for running in self._running.values():
            running.stop(Stop.DRAINED)
        if self._under_way:
            await asyncio.wait(self._under_way)

    async def _perform(self, wanted: Wanted) -> None:
        try:
            call = called(wanted, await self._spec(wanted))
        except ToolFailed as failure:
            await self._refuse(wanted, failure)
            return
        held_from = time.monotonic()
        begun = await self._begun(wanted, call.spec.effect)
        if isinstance(begun, Began):
            await self._own(call, begun, held_from)
        else:
            log.info("call not begun again", call=wanted.call_id, state=begun.state)

    async def _begun(self, wanted: Wanted, effect: str) -> Began | Entry:
        holder = uuid4()
        return await asked(
            lambda: self._journal.begin(wanted, effect, self._lease, holder), wanted.deadline
        )

    async def _spec(self, wanted: Wanted) -> FunctionVersionSpec:
        """Returns the function of a call, when the catalog is as new as whoever wants it has it.

        Raises:
            ToolFailed: It has none.
        """
        try:
            async with asyncio.timeout(CATALOG_S):
                while self._view.position < wanted.position:
                    await self._moved.wait()
        except TimeoutError:
            log.warning("catalog is behind", position=self._view.position, wanted=wanted.position)
        return version_of(self._view, wanted.function, wanted.version)

    async def _refuse(self, wanted: Wanted, failure: ToolFailed) -> None:
        """Ends a call that has nothing to run; unless it was begun before, it had no effect."""
        begun = await self._begun(wanted, "pure")
        if not isinstance(begun, Began):
            return
        state = State.DONE
        if begun.doubtful:
            failure = _unsettled("it cannot be run any more")
            state = State.UNSETTLED
        await self._journal.finish(wanted.call_id, begun.attempt, failed(failure), state)

    async def _own(self, call: Call, begun: Began, held_from: float) -> None:
        """Runs a call that is one's own, and notes what it comes to."""
        running = Running(self._journal, call, begun)
        running.start(self._outcome(running, begun))
        self._running[call.call_id] = running
        if call.call_id in self._cancelled:
            running.stop(Stop.CANCELLED)
        elif self._drained:
            running.stop(Stop.DRAINED)
        keeping = asyncio.create_task(self._keep(call, begun.attempt, running, held_from))
        try:
            await asyncio.wait([running.task])
            if running.task.cancelled():
                await self._stopped(call, begun.attempt, running.stopped)
            else:
                outcome, state = running.task.result()
                await self._finish(call, begun.attempt, outcome, state)
        finally:
            keeping.cancel()
            running.task.cancel()
            # A redelivery may have begun it once more beside this one, which was lost.
            if self._running.get(call.call_id) is running:
                del self._running[call.call_id]

    async def _stopped(self, call: Call, attempt: int, why: Stop | None) -> None:
        log.info("call stopped", call=call.call_id, attempt=attempt, why=why)
        if why is Stop.LOST:
            return
        if why is Stop.DRAINED:
            await self._journal.release(call.call_id, attempt)
            return
        said = "the caller cancelled it" if why else "what runs it stopped it"
        failure = _unsure(call, ToolFailed(Fault.LIMIT, said))
        await self._finish(call, attempt, failed(failure), State.DONE)

    async def _outcome(self, running: Running, begun: Began) -> tuple[str, State]:
        """Returns what a call comes to, as JSON, and how that leaves it."""
        call = running.call
        try:
            return await self._run(running, begun), State.DONE
        except ToolFailed as failure:
            state = State.UNSETTLED if failure.fault is Fault.UNSETTLED else State.DONE
            return failed(_unsure(call, failure)), state
        # A runner is somebody's own, and what surprises it must not end the calls of others.
        except Exception as error:  # noqa: BLE001
            log.warning("runner failed", call=call.call_id, error=described(error))
            why = f"what runs it failed ({type(error).__name__}); the executor's log says where"
            if call.spec.effect == "reconcile":
                return failed(_unsettled(why)), State.UNSETTLED
            return failed(ToolFailed(Fault.RAISED, why)), State.DONE

    async def _run(self, running: Running, begun: Began) -> str:
        call = running.call
        runner = self._runners.get(call.spec.language)
        if runner is None:
            message = f"nothing runs functions in {call.spec.language} here"
            raise _unsettled(message) if begun.doubtful else ToolFailed(Fault.SOURCE, message)
        if begun.doubtful:
            said = await _reconciled(runner, call)
            if said["done"]:
                return returned(said.get("result"))
        if begun.attempt > MOST_ATTEMPTS:
            message = f"it was begun {MOST_ATTEMPTS} times and never ended"
            raise ToolFailed(Fault.LIMIT, message)
        # Where it was asked before, it may have saved since.
        return returned(await in_time(runner.run(running.call), call))

    async def _keep(self, call: Call, attempt: int, running: Running, held_from: float) -> None:
        """Renews the lease while a call runs; stops the call before it would be another's."""
        lease_s = self._lease.total_seconds()
        pause_s = lease_s / RENEWALS
        while True:
            await asyncio.sleep(pause_s)
            asked_at = time.monotonic()
            mine = await self._renewed(call, attempt, pause_s)
            if mine is None:
                mine = time.monotonic() + pause_s < held_from + lease_s
            else:
                held_from = asked_at
            if not mine:
                running.stop(Stop.LOST)
                return

    async def _renewed(self, call: Call, attempt: int, seconds: float) -> bool | None:
        """Returns whether a call is one's own still; None where the journal does not say."""
        try:
            return await unheld(self._journal.renew(call.call_id, attempt, self._lease), seconds)
        except (JournalUnreachable, TimeoutError):
            return None

    async def _finish(self, call: Call, attempt: int, outcome: str, state: State) -> None:
        # Whoever waits is told at the deadline; later it is for the next to find out.
        counted = await asked(
            lambda: self._journal.finish(call.call_id, attempt, outcome, state),
            call.deadline + self._lease,
        )
        log.info("call ended", call=call.call_id, attempt=attempt, state=state, counted=counted)


async def _reconciled(runner: Runner, call: Call) -> dict[str, Any]:
    """Returns what a function says of an attempt that may have had its effect.

    Raises:
        ToolFailed: It cannot say, so a person must.
    """
    if not isinstance(runner, Reconciler):
        raise _unsettled("it has no way to say")
    try:
        said = await in_time(runner.reconcile(call), call)
    except ToolFailed as failure:
        raise _unsettled(f"its reconcile failed ({failure.fault})") from None
    # Whatever keeps a function from saying it leaves it unsaid.
    except Exception as error:  # noqa: BLE001
        log.warning("runner failed", call=call.call_id, error=described(error))
        raise _unsettled("its reconcile failed") from None
    if said is None:
        raise _unsettled("it has no way to say")
    if not isinstance(said, dict) or not isinstance(said.get("done"), bool):
        raise _unsettled("its reconcile returned no object with done: true or false")
    return said


def _unsettled(why: str) -> ToolFailed:
    return ToolFailed(
        Fault.UNSETTLED,
        f"it was cut off in the middle and may have had its effect; {why}, so a person must look "
        "before it is called again",
    )


def _unsure(call: Call, failure: ToolFailed) -> ToolFailed:
    """Returns a failure that says, of a call that was cut off, that it may have had its effect."""
    if failure.fault is not Fault.LIMIT or call.spec.effect != "reconcile":
        return failure
    return ToolFailed(failure.fault, f"{failure.message}; it may have had its effect all the same")
