"""Hearing one run: what it tells, and how it is answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self
from uuid import uuid4

import structlog

from infra.asker import RequestRefused
from infra.bus import Record
from infra.registry import Reader, SchemaMissing
from infra.settings import KafkaSettings
from infra.tail import BEGINNING, Tail
from infra.telemetry import described, now
from schemas.codec import Unreadable
from schemas.events import AgentJournaled, AgentTold, InferenceReplied, InferenceRouted, Reason
from schemas.topics import root_of, told_beside
from streams.client.connection import replied_with
from streams.client.told import InOrder, RunEvent, answered
from streams.runs.journals import of_request
from streams.steps import home_of

log = structlog.get_logger()

# The answer of a run that ended so long ago has been given, or never will be.
ANSWERED_WITHIN = timedelta(minutes=1)


class RunUnknown(LookupError):
    """Nothing of a run is on the log."""

    def __init__(self, request_id: str, where: str) -> None:
        super().__init__(
            f"there is nothing of a run {request_id} {where}: it is another tenant's, or too old, "
            "or has not begun; see: tessera runs list"
        )
        self.request_id = request_id


class Following:
    """Hears one run. Use it as an asynchronous context.

    Args:
        kafka: Where the broker is.
        reader: Reads what is on the bus.
        request_id: The request that begins the run, or began it.
        reply_topic: Full name of the topic on which that is answered.
        since: The first instant of interest; None for a run that is yet to begin, whose answer who
            begins it hears.

    Attributes:
        answer: The answer of a run that began before, once it has been heard.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        reader: Reader,
        request_id: str,
        reply_topic: str,
        since: datetime | None,
    ) -> None:
        self.answer: asyncio.Future[InferenceReplied] = asyncio.get_running_loop().create_future()
        self._kafka = kafka
        self._reader = reader
        self._reply_topic = reply_topic
        self._request_id = request_id
        self._key = root_of(request_id).encode()
        self._told_on = told_beside(reply_topic).name
        self._order = InOrder(request_id)
        self._begins_it = since is None
        # Parts of the latest turn, while there is more to be told that lay there before.
        self._early: list[InferenceReplied] | None = None if since is None else []
        self._begun: RunEvent | None = None
        # Before a run began: its own, or that of another record under its id.
        self._refused_before: RequestRefused | None = None
        self._arrived: asyncio.Queue[list[Record] | BaseException | None] = asyncio.Queue()
        self._tail = Tail(
            kafka,
            [self._told_on, reply_topic],
            since,
            self._arrived.put_nowait,
            f"run-{uuid4()}",
            fail=self._arrived.put_nowait,
            caught_up=lambda: None if since is None else self._arrived.put_nowait(None),
            committed=False,
            home=lambda count: home_of(self._key, count),
        )

    async def __aenter__(self) -> Self:
        await self._tail.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._tail.close()
        if self.answer.done():
            # Whoever leaves early need not hear of it.
            self.answer.exception()

    async def events(
        self, answer: asyncio.Future[InferenceReplied]
    ) -> AsyncGenerator[RunEvent, None]:
        """Yields what the run tells; the last event has its answer.

        Args:
            answer: What is awaited: ``self.answer``, or the same heard by other means.

        Raises:
            EventsMissing: Something that the run told is not on the log.
            RequestRefused: There is no answer; all that the run told has been yielded before.
            RunUnknown: Nothing of it is on the log.
            TailBroken: The log cannot be read on.
            Exception: What the answer comes to.
        """
        # Whoever waits for what is told hears of it.
        answer.add_done_callback(lambda _: self._arrived.put_nowait([]))
        end: RunEvent | None = None
        async for event in self._in_order(answer):
            if event.is_end:
                end = event
            else:
                self._begun = self._begun or event
                yield event
        if end is not None and isinstance(answer.exception(), RequestRefused):
            yield end
        replied = answer.result()
        if replied.completion is None:
            raise AssertionError("an answer is a completion or a refusal")
        reply = replied_with(replied, replied.completion)
        if end is not None:
            yield replace(end, reply=reply)
        else:
            yield answered(self._begun, self._order.following, reply, replied.replied_at)

    async def _in_order(
        self, answer: asyncio.Future[InferenceReplied]
    ) -> AsyncGenerator[RunEvent, None]:
        while not answer.done():
            for event in await self._next(answer):
                yield event
        # All that a run tells lies on the log before its answer does.
        if not self._order.ended:
            await self._tail.reached()
        while not self._arrived.empty():
            for event in await self._next(answer):
                yield event
        self._order.end()

    async def _next(self, answer: asyncio.Future[InferenceReplied]) -> list[RunEvent]:
        lot = await self._arrived.get()
        if isinstance(lot, BaseException):
            raise lot
        if lot is None:
            early, self._early = self._early or [], None
            if self._order.nothing and not answer.done():
                await self._told_nothing()
            return [event for part in early for event in self._order.hear(part)]
        # Read in any order, each of two topics tells of what came before the other's.
        lot.sort(key=lambda record: (record.dated, record.topic != self._told_on))
        return [event for record in lot for event in await self._heard(record)]

    async def _heard(self, record: Record) -> list[RunEvent]:
        if record.key != self._key:
            return []
        try:
            if record.topic == self._told_on:
                told = await self._reader.read(record.value, AgentTold)
                return [*self._order.take(told)] if told.request_id == self._request_id else []
            replied = await self._reader.read(record.value, InferenceReplied)
            if replied.delta is not None:
                return [*self._part(replied)]
            if not self._begins_it:
                self._answer(replied)
        # Where it was one of the run's own, its end says that it is missing.
        except (SchemaMissing, Unreadable, ValueError) as problem:
            log.warning("record unreadable", topic=record.topic, error=described(problem))
        return []

    def _part(self, part: InferenceReplied) -> Iterator[RunEvent]:
        if self._early is None:
            yield from self._order.hear(part)
        elif self._early and self._early[-1].request_id != part.request_id:
            self._early = [part]
        else:
            self._early.append(part)

    async def _told_nothing(self) -> None:
        """Says how a run ended that has told nothing so far, unless it goes on.

        Raises:
            RunUnknown: There is no such run.
        """
        journals = await of_request(self._kafka, self._reader, self._request_id, BEGINNING)
        for entries in journals.values():
            if await self._goes_on(entries[0], entries[-1]):
                return
        if self._refused_before is None:
            raise RunUnknown(self._request_id, f"on {self._told_on}")
        self.answer.set_exception(self._refused_before)

    async def _goes_on(self, first: AgentJournaled, last: AgentJournaled) -> bool:
        """Returns whether a run is the one that is followed, and its answer still to come."""
        if last.ended and now() - last.at > ANSWERED_WITHIN:
            return False
        try:
            request = (await self._reader.read(first.cause, InferenceRouted)).request
        except (SchemaMissing, Unreadable):
            return False
        return (request.request_id, request.reply_to) == (self._request_id, self._reply_topic)

    def _answer(self, replied: InferenceReplied) -> None:
        if replied.request_id != self._request_id or self.answer.done():
            return
        if replied.completion is not None:
            self.answer.set_result(replied)
        elif replied.refusal is not None and not _is_of_another(replied):
            refused = RequestRefused(self._request_id, replied.refusal, replied.tried)
            # What nobody took up never began: it is not the run that tells something.
            if replied.epoch:
                self.answer.set_exception(refused)
            else:
                self._refused_before = self._refused_before or refused


def _is_of_another(replied: InferenceReplied) -> bool:
    """Returns whether a refusal is to a copy of a run's request, or to a later one under its id."""
    refusal = replied.refusal
    if refusal is None:
        return False
    later = refusal.reason is Reason.CONFLICT and refusal.field == "request_id"
    return later or refusal.reason is Reason.SIGNATURE_REPLAYED
