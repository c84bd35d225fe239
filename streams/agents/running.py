"""Running agents: each record that comes for a run becomes an entry of its journal, and then acts.

The order is what makes it hold: first the entry stands on the log, then what it leads to goes out,
then the record counts as done. A record that is read again finds its entry there, and what that led
to goes out again, the same to the byte: all of it counts once by its id.

Records of one run wait for each other, and those of different runs for nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from weakref import WeakValueDictionary

import structlog

from infra.bus import RecordTooLarge
from infra.registry import Reader
from infra.signing import Signer
from infra.telemetry import Headers, now
from schemas.agents import Definition, run_id, run_of
from schemas.events import (
    AgentJournaled,
    Event,
    InferenceCompleted,
    InferenceReplied,
    InferenceRouted,
    Reason,
    Refusal,
    Task,
)
from schemas.topics import (
    BEHIND,
    INFERENCE_COMPLETED,
    INFERENCE_ROUTED,
    Outgoing,
)
from streams.agents.causes import Begun, Cause, caused
from streams.agents.conversation import Conversation
from streams.agents.definition import resolve
from streams.agents.folding import (
    WITHOUT_RECORD,
    Folded,
    Taken,
    begin_run,
    begun_by,
    definition_of,
    fold,
    given_up,
    go_on,
)
from streams.agents.journal import Journal, JournalLost
from streams.agents.kept import Kept
from streams.agents.lying import Requests
from streams.agents.memory import Memory
from streams.agents.saying import Ready, Saying, claiming, is_meant, lost, renewed, said_before
from streams.steps import Fail, Runtime, unpublishable

log = structlog.get_logger()


class Agents:
    """All runs that this process goes on with.

    Args:
        runtime: What the process has at hand.
        fail: Ends the process.
        signer: Signs what runs ask for.
        reply_to: Topic that runs are answered on.
        memory: What runs leave, and what they go on with.

    Attributes:
        journal: Keeps what came for runs.
    """

    def __init__(
        self, runtime: Runtime, fail: Fail, signer: Signer, reply_to: str, memory: Memory
    ) -> None:
        self.journal = Journal(runtime, fail, self._forget)
        self._runtime = runtime
        self._reader = Reader(runtime.codec, runtime.registry)
        self._saying = Saying(runtime.publisher, signer)
        self._requests = Requests(runtime.kafka, runtime.publisher, runtime.name)
        self._reply_to = reply_to
        self._memory = memory
        self._folded: dict[str, Folded] = {}
        # Each lasts as long as somebody holds it, or waits for it.
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def begin(
        self, routed: InferenceRouted, value: bytes, place: str, headers: Headers
    ) -> None:
        """Begins the run of a request, unless it cannot run."""
        request = routed.request
        run = run_id(request.request_id, request.tenant)
        async with self._turn(run):
            kept = self.journal.kept(run)
            if await self._said_again(run, kept, place, headers):
                return
            if unasked := _unasked(routed):
                await self._say([_refused(routed, unasked)], headers)
                return
            if kept.causes:
                # The gateway may have made its decision again.
                if not await self._is_of(routed, run):
                    await self._say([_refused(routed, _taken_before())], headers)
                return
            # What is read from here on is not kept of whoever is forgotten from here on.
            instant = now()
            definition = self._resolved(routed)
            earlier = await self._memory.earlier(request, self._under_way)
            refusal = next(
                (each for each in (definition, earlier) if isinstance(each, Refusal)), None
            )
            entry = AgentJournaled(
                run_id=run,
                tenant=request.tenant,
                agent=request.endpoint,
                seq=0,
                cause_id=place,
                cause_topic=INFERENCE_ROUTED.member(routed.route.pool).name,
                cause=value,
                definition=None
                if isinstance(definition, Refusal)
                else definition.model_dump_json(),
                refusal=refusal,
                reply_to=self._reply_to,
                earlier=earlier.to_json() if isinstance(earlier, Conversation) else None,
                at=instant,
            )
            # As whoever takes the entry in has it.
            taken = begin_run(begun_by(routed, entry), refusal or definition_of(entry), entry)
            entry = replace(entry, until=taken.folded.run.deadline)
            await self._act(entry, taken, headers)

    async def hear(
        self, replied: InferenceReplied, value: bytes, place: str, headers: Headers
    ) -> None:
        """Goes on with the run that a reply is for; what is for none is passed over."""
        called = run_of(replied.request_id)
        run, _, without_record = replied.request_id.rpartition(BEHIND)
        cause = _told(replied, without_record) if called is None else caused(replied)
        if cause is None or not self.journal.kept(run).causes:
            return
        async with self._turn(run):
            kept = self.journal.kept(run)
            if await self._said_again(run, kept, place, headers) or kept.ended:
                return
            if not is_meant(kept, replied, cause):
                log.warning("reply to another record passed over", request_id=replied.request_id)
                return
            folded = await self._fold(run, kept)
            entry = AgentJournaled(
                run_id=run,
                tenant=folded.began.tenant,
                agent=folded.began.agent,
                seq=folded.entries,
                cause_id=place,
                cause_topic="" if called is None else self._reply_to,
                cause=without_record.encode() if called is None else value,
                at=now(),
            )
            taken = go_on(folded, cause, entry)
            if taken.changes(folded):
                await self._act(entry, taken, headers)

    async def give_up(self, event: Event, place: str) -> None:
        """Ends the run of a record on which no step could be made."""
        if isinstance(event, InferenceRouted):
            run = run_id(event.request.request_id, event.request.tenant)
        elif isinstance(event, InferenceReplied):
            run = event.request_id.rpartition(BEHIND)[0]
        else:
            return
        async with self._turn(run):
            kept = self.journal.kept(run)
            if kept.ended:
                return
            if not kept.goes_on:
                if isinstance(event, InferenceRouted):
                    await self._say([_refused(event, _STUCK)], ())
                return
            first = kept.entries[0]
            entry = AgentJournaled(
                run_id=run,
                tenant=first.tenant,
                agent=first.agent,
                seq=len(kept.entries),
                cause_id=f"{place}{GIVEN_UP}",
                cause=b"",
                refusal=_STUCK,
                at=now(),
            )
            ready = await self._stand(entry, await self._last(first, entry), (), ended=True)
            await self._saying.publish(ready, ())
            self._forget(run)

    @asynccontextmanager
    async def _turn(self, run: str) -> AsyncIterator[None]:
        """Lets one record of a run be decided on at a time, in their order."""
        turn = self._turns.get(run) or asyncio.Lock()
        self._turns[run] = turn
        async with turn:
            yield

    async def _is_of(self, routed: InferenceRouted, run: str) -> bool:
        """Returns whether a run was begun by the same decision."""
        [first] = await self.journal.entries(run, 1)
        begun = await self._reader.read(first.cause, InferenceRouted)
        return begun.decision_id == routed.decision_id

    def _resolved(self, routed: InferenceRouted) -> Definition | Refusal:
        view, name = self._runtime.view, routed.route.model
        spec = view.agents.get(name)
        if spec is None:
            return Refusal(reason=Reason.NOT_FOUND, message=f"there is no agent {name} any more")
        return resolve(name, spec, view)

    async def _under_way(self, run: str, principal: str) -> bool:
        """Returns whether a run that this principal asked for goes on."""
        kept = self.journal.kept(run)
        if not kept.entries or kept.ended:
            return False
        begun = await self._reader.read(kept.entries[0].cause, InferenceRouted)
        return begun.request.principal == principal

    async def _act(self, entry: AgentJournaled, taken: Taken, headers: Headers) -> None:
        """Writes an entry, and sends what it leads to once it stands; errors are ``_stand``'s."""
        ready = await self._stand(entry, taken.outgoing, headers, ended=taken.ended)
        async with self._memory.keeping(taken, entry.at):
            await self._saying.publish(ready, headers)
        self._keep(entry.run_id, taken)

    async def _stand(
        self,
        entry: AgentJournaled,
        outgoing: Sequence[Outgoing],
        headers: Headers,
        *,
        ended: bool,
    ) -> list[Ready]:
        """Writes an entry; returns what it leads to, to be sent now that it stands.

        Raises:
            JournalLost: Another process has gone on with the run.
            RecordTooLarge: The entry, or what it leads to.
        """
        ready = self._saying.ready(outgoing)
        if large := unpublishable(each.sent for each in ready):
            raise RecordTooLarge(large)
        await self._append(replace(claiming(entry, ready), ended=ended), headers)
        return ready

    async def _append(self, entry: AgentJournaled, headers: Headers) -> None:
        try:
            await self.journal.append(entry, headers)
        except JournalLost:
            self._forget(entry.run_id)
            raise

    async def _said_again(self, run: str, kept: Kept, place: str, headers: Headers) -> bool:
        """Sends what a record led to that was taken in before; returns whether it was.

        A crash may have kept that from the log.
        """
        names = (f"{place}{GIVEN_UP}", place)
        name = next((each for each in names if each in kept.causes), None)
        if name is None:
            return False
        number = [*kept.causes].index(name)
        *before, entry = await self.journal.entries(run, number + 1)
        if entry.refusal is not None and before:
            await self._say(await self._last(before[0], entry), headers)
            return True
        folded: Folded | None = None
        for each in (*before, entry):
            taken = await fold(folded, each, self._reader)
            folded = taken.folded
        async with self._memory.keeping(taken, entry.at):
            ready = await self._lost(kept, entry, taken.outgoing, headers)
            await self._saying.publish(ready, headers)
        return True

    async def _lost(
        self, kept: Kept, entry: AgentJournaled, outgoing: Sequence[Outgoing], headers: Headers
    ) -> list[Ready]:
        """Returns what of that which an entry led to is to be said again.

        Under another release, or with another key, a request becomes another record than it was:
        then it is said only if the run still waits for its answer and the log has none of it, and
        only once the journal has what that answer will claim.
        """
        ready = said_before(self._saying.ready(outgoing), entry, kept)
        changed = [each for each in ready if each.changed]
        if not changed:
            return ready
        awaited = await self._awaited(entry.run_id, kept)
        wanted = [each for each in changed if each.request_id in awaited]
        lying = await self._requests.lying(
            [(each.sent.topic, each.sent.key or b"") for each in wanted],
            [claim for each in wanted for claim in each.before],
            entry.at,
        )
        again = lost(ready, awaited, lying)
        if new := renewed(entry, ready, again, len(kept.causes), now()):
            await self._append(new, headers)
        return again

    async def _awaited(self, run: str, kept: Kept) -> set[str]:
        """Returns ids of the requests that a run waits for."""
        if not kept.goes_on:
            return set()
        stands = (await self._fold(run, kept)).run
        return {stands.call_id(call) for call in stands.calls if call.state == "asked"}

    async def _say(self, outgoing: Iterable[Outgoing], headers: Headers) -> None:
        await self._saying.publish(self._saying.ready(outgoing), headers)

    async def _last(self, first: AgentJournaled, entry: AgentJournaled) -> tuple[Outgoing, ...]:
        """Returns what the entry leads to with which a run is given up."""
        routed = await self._reader.read(first.cause, InferenceRouted)
        begun = Begun(routed=routed, reply_to_agents=first.reply_to or "")
        return given_up(begun, first, entry)

    async def _fold(self, run: str, kept: Kept) -> Folded:
        """Returns a run as its journal has it."""
        folded = self._folded.get(run)
        for entry in kept.entries[folded.entries if folded else 0 :]:
            taken = await fold(folded, entry, self._reader)
            self._keep(run, taken)
            folded = taken.folded
        assert folded is not None, "a run has a first entry"
        return folded

    def _keep(self, run: str, taken: Taken) -> None:
        if taken.ended:
            self._forget(run)
        else:
            self._folded[run] = taken.folded

    def _forget(self, run: str) -> None:
        self._folded.pop(run, None)


# Behind the place of a record: the entry with which a run was given up on it.
GIVEN_UP = "/given up"
_STUCK = Refusal(
    reason=Reason.PROVIDER_FAILED,
    message="the run cannot go on; the operators find why among the dead letters",
)


def _told(replied: InferenceReplied, what: str) -> Cause | None:
    """Returns what comes for a run without a record of its own; None for any other reply."""
    own = replied.result is not None and replied.refusal is None and replied.claim is None
    return WITHOUT_RECORD.get(what) if own else None


def _unasked(routed: InferenceRouted) -> Refusal | None:
    """Returns why what was routed here runs no agent: who may ask for one is asked by its name."""
    request = routed.request
    if request.task is Task.AGENT and request.endpoint == routed.route.model:
        return None
    return Refusal(
        reason=Reason.ROUTE_UNFIT,
        message="this pool runs agents alone, each under its own name",
        field="endpoint",
    )


def _taken_before() -> Refusal:
    return Refusal(
        reason=Reason.CONFLICT,
        message="a run was begun under this id before: give each request an id of its own",
        field="request_id",
    )


def _refused(routed: InferenceRouted, refusal: Refusal) -> Outgoing:
    instant = now()
    completed = InferenceCompleted(
        routed=routed, refusal=refusal, started_at=instant, completed_at=instant
    )
    return Outgoing(INFERENCE_COMPLETED, completed)
