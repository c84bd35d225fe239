"""What runs leave behind, and what they go on with: the conversations of the agents' processor.

A run ends when its journal says so. Then what was said is kept, and then its answer goes out: who
hears it can go on at once. Where PostgreSQL does not answer, the answer waits for it a while, and
the record that ended the run counts as done once the conversation is kept: a crash in between
brings it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

import structlog

from infra.sql import DatabaseRefuses, DatabaseUnreachable
from infra.telemetry import now
from schemas.agents import run_id
from schemas.events import InferenceRequested, Reason, Refusal
from schemas.shapes import length
from schemas.topics import BEHIND
from streams.agents.conversation import Conversation, said_in
from streams.agents.conversations import Conversations, Kept
from streams.agents.folding import Taken

log = structlog.get_logger()

# How long a run waits for what it goes on with, or an answer for its conversation to be kept.
MOST_S = 10.0
AGAIN_S = 1.0
SWEEP_S = 300.0
LONGEST = timedelta(days=36_500)

NOT_KEPT = Refusal(
    reason=Reason.NOT_FOUND,
    message="nothing that you said is kept under this id: its time may be over, or its agent keeps "
    "nothing (memory)",
    field="previous",
)
UNDER_WAY = Refusal(
    reason=Reason.CONFLICT,
    message="the run to go on with is still under way: wait for its answer, or cancel it",
    field="previous",
)
UNREAD = Refusal(
    reason=Reason.PROVIDER_UNAVAILABLE,
    message="conversations cannot be read now: ask again in a while, under a new id",
    field="previous",
)

T = TypeVar("T")


class Memory:
    """Conversations of runs; made inside the running loop.

    Args:
        conversations: Where they are kept.
    """

    def __init__(self, conversations: Conversations) -> None:
        self._conversations = conversations
        self._sweeping = asyncio.create_task(self._sweep())

    async def earlier(
        self, request: InferenceRequested, under_way: Callable[[str, str], Awaitable[bool]]
    ) -> Conversation | Refusal | None:
        """Returns what a request goes on with; None where that is nothing.

        Args:
            request: To an agent.
            under_way: Whether a run that a principal asked for goes on.
        """
        if request.previous is None:
            return None
        run, turns = run_id(request.previous, request.tenant), request.previous_turns
        read = partial(self._conversations.read, run, request.tenant, request.principal)
        try:
            async with asyncio.timeout(_patience(request)):
                said = await _insisting(read)
                if said is None and await under_way(run, request.principal):
                    return UNDER_WAY
                # It may have ended, and been kept, since the first look.
                said = said or await _insisting(read)
        except TimeoutError:
            return UNREAD
        return NOT_KEPT if said is None else Conversation.from_json(said).after(turns)

    @asynccontextmanager
    async def keeping(self, taken: Taken, at: datetime) -> AsyncIterator[None]:
        """Keeps what was said before the block is entered, or, if that takes long, left.

        Args:
            taken: What an entry of a journal came to; nothing is kept unless the run ended, and
                nothing of a run that another asked for.
            at: The entry's moment.
        """
        run = taken.folded.run
        kept = run.definition.kept
        # Of runs that agents asked for, their callers' conversations say what is to go on.
        if not taken.ended or kept is None or BEHIND in run.request.request_id:
            yield
            return
        until = at + min(length(kept), LONGEST)
        keeping = asyncio.create_task(self._keep(taken, at, until))
        try:
            await asyncio.wait([keeping], timeout=_patience(run.request))
            yield
            await keeping
        finally:
            keeping.cancel()

    async def close(self) -> None:
        """Looks for nothing more that is to be deleted; who still keeps something may."""
        self._sweeping.cancel()
        await asyncio.gather(self._sweeping, return_exceptions=True)

    async def _keep(self, taken: Taken, at: datetime, until: datetime) -> None:
        run, began = taken.folded.run, taken.folded.began.at
        conversation = said_in(run)
        kept = Kept(
            run_id=run.run_id,
            tenant=run.request.tenant,
            principal=run.request.principal,
            agent=run.definition.agent,
            turns=conversation.turns,
            ended_at=at,
            until=until,
        )
        text = await asyncio.to_thread(conversation.to_json)
        await _insisting(partial(self._conversations.keep, kept, text, began))

    async def _sweep(self) -> None:
        while True:
            try:
                if deleted := await self._conversations.sweep():
                    log.info(
                        "conversations past their time or forgotten deleted", conversations=deleted
                    )
            except DatabaseUnreachable as problem:
                log.warning("conversations not looked through", error=str(problem))
            await asyncio.sleep(SWEEP_S)


def _patience(request: InferenceRequested) -> float:
    """Returns how many seconds may go by while the caller still waits."""
    left = (request.deadline - now()).total_seconds()
    return min(MOST_S, max(0.0, left / 2))


async def _insisting(ask: Callable[[], Awaitable[T]]) -> T:
    """Asks until there is an answer."""
    told = False
    while True:
        try:
            return await ask()
        except DatabaseRefuses as problem:
            log.error("conversations refused", error=str(problem))
        except DatabaseUnreachable as problem:
            if not told:
                log.warning("conversations not reached", error=str(problem))
            told = True
        await asyncio.sleep(AGAIN_S)
