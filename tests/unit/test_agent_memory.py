"""What becomes of runs while PostgreSQL does not answer: nothing is lost, and nobody waits long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from infra.settings import PostgresSettings
from infra.sql import DatabaseRefuses
from infra.telemetry import now
from schemas.events import AgentJournaled
from streams.agents.conversation import Conversation
from streams.agents.conversations import Conversations
from streams.agents.folding import Folded, Taken
from streams.agents.memory import NOT_KEPT, UNREAD, Memory
from tests.harness import free_port
from tests.unit.agents import (
    AGENT,
    NOON,
    after,
    answered,
    begun,
    definition,
    request,
    said,
    started,
)

# Of who asks: twice as long as a run waits.
PATIENCE = timedelta(seconds=12)


@pytest.fixture
async def memory() -> AsyncIterator[Memory]:
    """A memory that nobody keeps."""
    memory = Memory(Conversations(PostgresSettings(port=free_port(), password="")))
    yield memory
    await memory.close()


class Late(Conversations):
    """Conversations in which something is kept only after the first look."""

    said: str | None = None

    async def read(self, run_id: str, tenant: str, principal: str) -> str | None:
        return self.said


class Refusing(Conversations):
    """Conversations in a database that is not as it should be."""

    asked = 0

    async def read(self, run_id: str, tenant: str, principal: str) -> str | None:
        self.asked += 1
        raise DatabaseRefuses("the database refuses what is asked: UndefinedColumn")


async def nobody(run: str, principal: str) -> bool:
    return False


def over(kept: str | None, **changes: str) -> Taken:
    """Returns the end of a run whose caller still waits for a while."""
    soon = request(deadline=now() + PATIENCE, **changes)
    run = after(started(definition(kept=kept)).run, answered(0, said("hello"))).run
    entry = AgentJournaled(
        run_id=run.run_id, tenant="acme", agent=AGENT, seq=0, cause_id="a", cause=b"", at=NOON
    )
    folded = Folded(replace(run, request=soon), begun(soon), 2, entry)
    return Taken(folded, (), ended=True)


async def test_a_run_is_told_in_time_that_what_it_goes_on_with_cannot_be_read(
    memory: Memory,
) -> None:
    asked = request(previous="earlier", deadline=now() + PATIENCE)
    async with asyncio.timeout(PATIENCE.total_seconds()):
        assert await memory.earlier(asked, nobody) is UNREAD


async def test_each_time_that_the_database_refuses_is_told_as_an_error() -> None:
    conversations = Refusing(PostgresSettings(port=free_port(), password=""))
    memory = Memory(conversations)
    with capture_logs() as logs:
        asked = request(previous="earlier", deadline=now() + PATIENCE)
        assert await memory.earlier(asked, nobody) is UNREAD
    await memory.close()
    refused = [each for each in logs if each["event"] == "conversations refused"]
    assert [each["log_level"] for each in refused] == ["error"] * conversations.asked
    assert conversations.asked > 1


async def test_what_is_kept_between_two_looks_is_gone_on_with() -> None:
    conversations = Late(PostgresSettings(port=free_port(), password=""))
    memory, said_before = Memory(conversations), Conversation(next_number=3)

    async def just_ended(run: str, principal: str) -> bool:
        conversations.said = said_before.to_json()
        return False

    asked = request(previous="earlier", deadline=now() + PATIENCE)
    assert await memory.earlier(asked, nobody) is NOT_KEPT
    assert await memory.earlier(asked, just_ended) == said_before
    await memory.close()


async def test_an_answer_goes_out_in_time_and_its_record_is_done_only_once_it_is_kept(
    memory: Memory,
) -> None:
    went_out = asyncio.Event()

    async def end() -> None:
        async with memory.keeping(over("30d"), NOON):
            went_out.set()

    ending = asyncio.create_task(end())
    async with asyncio.timeout(PATIENCE.total_seconds()):
        await went_out.wait()
    done, _ = await asyncio.wait([ending], timeout=0.2)
    assert not done
    ending.cancel()
    await asyncio.wait([ending])
    assert ending.cancelled()


async def test_a_run_that_leaves_nothing_asks_nobody(memory: Memory) -> None:
    async with asyncio.timeout(PATIENCE.total_seconds()):
        assert await memory.earlier(request(), nobody) is None
        async with memory.keeping(over(None), NOON):
            pass
        async with memory.keeping(replace(over("30d"), ended=False), NOON):
            pass
        async with memory.keeping(over("30d", request_id="request//acme//1"), NOON):
            pass
