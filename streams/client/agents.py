"""What a client asks of agents."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from typing import Unpack

from infra.asker import RequestRefused
from infra.tail import BEGINNING
from infra.telemetry import now
from schemas.events import InferenceReplied, InferenceRequested, RequestCancelled, Sampling, Task
from schemas.topics import INFERENCE_REQUESTED, LONGEST_DEADLINE_MS, REQUEST_CANCELLED, Outgoing
from streams.client.connection import Connection, Conversation, conversation
from streams.client.following import Following
from streams.client.told import RunEvent
from streams.replies import Reply
from streams.terms import RunTerms


class Agents(Connection):
    """Runs agents."""

    async def run(self, agent: str, messages: Conversation, **terms: Unpack[RunTerms]) -> Reply:
        """Asks an agent and returns its answer, once its run is over.

        Cancelling and errors are as with ``chat``; give a timeout that the run can do with.

        Args:
            agent: Three-level name.
            messages: The conversation so far, or the one thing that the user says.
            terms: What may be said of a run; see ``RunTerms``.
        """
        return await self.whole(self._run(agent, messages, terms))

    async def stream_run(
        self, agent: str, messages: Conversation, **terms: Unpack[RunTerms]
    ) -> AsyncGenerator[RunEvent, None]:
        """Asks an agent and yields what its run tells; the last event has the answer.

        Closing the iterator early cancels the run. Arguments are those of ``run``.

        Raises:
            EventsMissing: Something that the run told is not on the log.
            NoReply: Nothing came in time.
            PublishFailed: The broker did not take the request.
            RequestRefused: There is no answer; all that the run told has been yielded before.
            TailBroken: The log cannot be read on.
        """
        request = replace(self._run(agent, messages, terms), stream=True)
        async with aclosing(self._heard(request, self.asker.answers(request))) as events:
            async for event in events:
                yield event

    async def start_run(self, agent: str, messages: Conversation, **terms: Unpack[RunTerms]) -> str:
        """Begins a run and returns its id as soon as it has begun; ``follow`` hears the rest.

        A run that is left before it has begun is cancelled. Arguments and errors are those of
        ``stream_run``.
        """
        request = replace(self._run(agent, messages, terms), stream=True)
        replies = self.asker.replies(
            INFERENCE_REQUESTED, request, request.request_id, request.deadline
        )
        try:
            async with aclosing(self._heard(request, replies)) as events:
                await anext(events)
        except RequestRefused:
            raise
        except BaseException:
            self.asker.say(self._cancelled(request.request_id))
            raise
        return request.request_id

    async def follow(self, run: str, after: int = -1) -> AsyncGenerator[RunEvent, None]:
        """Yields what a run tells that began before, whoever began it; the last has the answer.

        Closing the iterator early leaves the run alone. What runs of the tenant tell is kept for a
        day; of a run that was asked for without parts the answer alone is heard, once it is there.
        Refusals of other records under its id are passed over.

        Args:
            run: Its id: that of the request that began it.
            after: What was heard already: the last ``seq``. Of a message that is being said the
                beginning is heard again, if that lies there still.

        Raises:
            EventsMissing: Something that the run told is not on the log any more.
            RequestRefused: There is no answer; all that the run told has been yielded before.
            RunUnknown: Nothing of it is on the log.
            TailBroken: The log cannot be read on.
        """
        following = Following(self.kafka, self.asker.reader, run, self.reply_topic, BEGINNING)
        async with following, aclosing(following.events(following.answer)) as events:
            async for event in events:
                is_live = not event.told and event.seq == after
                if event.seq > after or is_live or event.reply is not None:
                    yield event

    async def cancel(self, run: str) -> None:
        """Has a run end without an answer, if it is not over, and what it waits for.

        Returns once that is on the log; the run ends as soon as it hears of it.

        Args:
            run: Its id: that of the request that began it.

        Raises:
            PublishFailed: The broker did not take it; the run goes on.
        """
        await self.asker.tell(self._cancelled(run))

    def _cancelled(self, run: str) -> Outgoing:
        instant = now()
        cancelled = RequestCancelled(
            request_id=run,
            tenant=self.tenant,
            cancelled_at=instant,
            deadline=instant + timedelta(milliseconds=LONGEST_DEADLINE_MS),
        )
        return Outgoing(REQUEST_CANCELLED, cancelled)

    def _run(self, agent: str, messages: Conversation, terms: RunTerms) -> InferenceRequested:
        return replace(
            self.request(agent, terms),
            task=Task.AGENT,
            messages=conversation(messages),
            sampling=terms.get("sampling", Sampling()),
            previous=terms.get("previous"),
            previous_turns=terms.get("previous_turns"),
        )

    async def _heard(
        self, request: InferenceRequested, replies: AsyncGenerator[InferenceReplied, None]
    ) -> AsyncGenerator[RunEvent, None]:
        """Yields what the run of a request tells; asking for replies is what sends that."""
        reader = self.asker.reader
        following = Following(self.kafka, reader, request.request_id, self.reply_topic, None)
        async with following:
            answering = asyncio.create_task(_last(replies))
            try:
                async with aclosing(following.events(answering)) as events:
                    async for event in events:
                        yield event
            finally:
                answering.cancel()
                await asyncio.gather(answering, return_exceptions=True)


async def _last(replies: AsyncGenerator[InferenceReplied, None]) -> InferenceReplied:
    async with aclosing(replies):
        async for replied in replies:
            if replied.delta is None:
                return replied
    raise AssertionError("replies end with one that is final")
