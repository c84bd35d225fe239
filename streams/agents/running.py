"""Running agents: each record that comes for a run becomes an entry of its journal, and then acts.

The order is what makes it hold: first the entry stands on the log, then what it leads to goes out,
then the record counts as done. A record that is read again finds its entry there, and what that led
to goes out again, the same to the byte: all of it counts once by its id.

Records of one run wait for each other, and those of different runs for nothing.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from weakref import WeakValueDictionary

import structlog

from infra.bus import Encoded
from infra.registry import Reader
from infra.signing import Signer, claim, claimed
from infra.telemetry import Headers, now
from schemas.agents import Definition, run_id, run_of
from schemas.events import (
    AgentJournaled,
    InferenceCompleted,
    InferenceReplied,
    InferenceRequested,
    InferenceRouted,
    Reason,
    Refusal,
    Task,
)
from schemas.topics import (
    BEHIND,
    INFERENCE_COMPLETED,
    INFERENCE_REQUESTED,
    INFERENCE_ROUTED,
    Outgoing,
)
from streams.agents.causes import Answered, Begun, Cause, caused
from streams.agents.definition import resolve
from streams.agents.folding import (
    WITHOUT_RECORD,
    Folded,
    Taken,
    begin_run,
    definition_of,
    emitted,
    fold,
    go_on,
)
from streams.agents.journal import Journal, JournalLost
from streams.steps import Runtime

log = structlog.get_logger()


class Agents:
    """All runs that this process goes on with.

    Args:
        runtime: What the process has at hand.
        journal: Keeps what came for runs.
        signer: Signs what runs ask for.
        reply_to: Topic that runs are answered on.
    """

    def __init__(self, runtime: Runtime, journal: Journal, signer: Signer, reply_to: str) -> None:
        self._runtime = runtime
        self._reader = Reader(runtime.codec, runtime.registry)
        self._journal = journal
        self._signer = signer
        self._reply_to = reply_to
        self._folded: dict[str, Folded] = {}
        # By run: what proves that a reply is to what the run asked, by the id of that.
        self._claims: defaultdict[str, dict[str, str]] = defaultdict(dict)
        # Each lasts as long as somebody holds it, or waits for it.
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def begin(
        self, routed: InferenceRouted, value: bytes, place: str, headers: Headers
    ) -> None:
        """Begins the run of a request, unless it cannot run."""
        request = routed.request
        run = run_id(request.request_id, request.tenant)
        async with self._turn(run):
            kept = self._journal.kept(run)
            if place in kept.causes:
                await self._say_again(run, kept.causes[place], headers)
                return
            if unasked := _unasked(routed):
                await self._send(run, [_refused(routed, unasked)], headers)
                return
            if kept.entries and await self._is_of(routed, kept.entries[0]):
                return
            definition = _taken_before() if kept.entries else self._resolved(routed)
            if isinstance(definition, Refusal):
                await self._send(run, [_refused(routed, definition)], headers)
                return
            entry = AgentJournaled(
                run_id=run,
                tenant=request.tenant,
                agent=definition.agent,
                seq=0,
                cause_id=place,
                cause_topic=INFERENCE_ROUTED.member(routed.route.pool).name,
                cause=value,
                definition=definition.model_dump_json(),
                reply_to=self._reply_to,
                at=now(),
            )
            begun = Begun(routed=routed, reply_to_agents=self._reply_to)
            # As whoever takes the entry in has it.
            taken = begin_run(begun, definition_of(entry), entry)
            await self._stand(replace(entry, until=taken.folded.run.deadline), taken, headers)

    async def hear(
        self, replied: InferenceReplied, value: bytes, place: str, headers: Headers
    ) -> None:
        """Goes on with the run that a reply is for; what is for none is passed over."""
        called = run_of(replied.request_id)
        run, _, without_record = replied.request_id.rpartition(BEHIND)
        cause = _told(replied, without_record) if called is None else caused(replied)
        if cause is None or not self._journal.kept(run).entries:
            return
        async with self._turn(run):
            kept = self._journal.kept(run)
            if place in kept.causes:
                await self._say_again(run, kept.causes[place], headers)
                return
            if kept.ended:
                return
            folded = await self._fold(run)
            if not self._meant(run, replied, cause):
                log.warning("reply to another record passed over", request_id=replied.request_id)
                return
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
                await self._stand(entry, taken, headers)

    @asynccontextmanager
    async def _turn(self, run: str) -> AsyncIterator[None]:
        """Lets one record of a run be decided on at a time, in their order."""
        turn = self._turns.get(run) or asyncio.Lock()
        self._turns[run] = turn
        async with turn:
            yield

    async def _is_of(self, routed: InferenceRouted, first: AgentJournaled) -> bool:
        """Returns whether a run was begun by the same decision, which the gateway made again."""
        begun = await self._reader.read(first.cause, InferenceRouted)
        return begun.decision_id == routed.decision_id

    def _resolved(self, routed: InferenceRouted) -> Definition | Refusal:
        view, name = self._runtime.view, routed.route.model
        spec = view.agents.get(name)
        if spec is None:
            return Refusal(reason=Reason.NOT_FOUND, message=f"there is no agent {name} any more")
        return resolve(name, spec, view)

    async def _stand(self, entry: AgentJournaled, taken: Taken, headers: Headers) -> None:
        """Writes an entry, and sends what it leads to once it stands."""
        whole = replace(entry, emitted=emitted(taken.outgoing), ended=taken.ended)
        try:
            await self._journal.append(whole, headers)
        except JournalLost:
            self._folded.pop(entry.run_id, None)
            self._claims.pop(entry.run_id, None)
            raise
        self._keep(entry.run_id, taken)
        await self._send(entry.run_id, taken.outgoing, headers)

    async def _say_again(self, run: str, seq: int, headers: Headers) -> None:
        """Sends what an entry led to, as a crash may have kept it from the log."""
        folded: Folded | None = None
        for entry in self._journal.kept(run).entries[: seq + 1]:
            taken = await fold(folded, entry, self._reader)
            folded = taken.folded
        await self._send(run, taken.outgoing, headers)

    async def _fold(self, run: str) -> Folded:
        """Returns a run as its journal has it."""
        folded = self._folded.get(run)
        for entry in self._journal.kept(run).entries[folded.entries if folded else 0 :]:
            taken = await fold(folded, entry, self._reader)
            self._keep(run, taken)
            folded = taken.folded
        assert folded is not None, "a run has a first entry"
        return folded

    def _keep(self, run: str, taken: Taken) -> None:
        if taken.ended:
            self._folded.pop(run, None)
            self._claims.pop(run, None)
            return
        self._folded[run] = taken.folded
        for _, event in taken.outgoing:
            if isinstance(event, InferenceRequested):
                asked, signed = self._signed(event)
                self._claims[run][event.request_id] = claim(claimed(signed, asked.value or b""))

    def _meant(self, run: str, replied: InferenceReplied, cause: Cause) -> bool:
        """Returns whether a reply is to what the run asked, and not to a record under its id."""
        if not isinstance(cause, Answered):
            return True
        refusal = replied.refusal
        if refusal is not None and refusal.reason is Reason.SIGNATURE_REPLAYED:
            return False
        return replied.claim == self._claims[run].get(replied.request_id)

    async def _send(self, run: str, outgoing: Iterable[Outgoing], headers: Headers) -> None:
        plain: list[Encoded] = []
        sending = []
        publisher = self._runtime.publisher
        for each in outgoing:
            if isinstance(each.event, InferenceRequested):
                asked, signed = self._signed(each.event)
                sending.append(publisher.publish([asked], [*headers, *signed]))
            else:
                plain += publisher.encode([each])
        await asyncio.gather(publisher.publish(plain, headers), *sending)

    def _signed(self, request: InferenceRequested) -> tuple[Encoded, Headers]:
        """Returns a request and what proves that it is ours: the same however often."""
        [asked] = self._runtime.publisher.encode([Outgoing(INFERENCE_REQUESTED, request)])
        key, value = asked.key or b"", asked.value or b""
        return asked, self._signer.headers(asked.topic, key, request.deadline, value)


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
