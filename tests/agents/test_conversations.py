"""Conversations in PostgreSQL: whose they are, how long they last, and that they are forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from infra.settings import PostgresSettings
from infra.sql import Database, DatabaseUnreachable, connect
from infra.stack.local import LocalStack
from infra.telemetry import now
from streams.agents.conversations import (
    BITE,
    DATABASE,
    FORGETS,
    MARK,
    OLD,
    UNMARK,
    Conversations,
    Kept,
)
from streams.agents.memory import Memory
from tests.harness import free_port, soon, unique

pytestmark = pytest.mark.stack

HOUR = timedelta(hours=1)


def where(stack: LocalStack) -> PostgresSettings:
    return PostgresSettings(
        port=stack.settings.postgres_port, password=stack.environment()["POSTGRES_PASSWORD"]
    )


@pytest.fixture
def conversations(postgres: LocalStack) -> Iterator[Conversations]:
    kept = Conversations(where(postgres))
    yield kept
    kept.close()


@pytest.fixture
def database(postgres: LocalStack) -> Iterator[Database]:
    """Where they lie."""
    database = Database(where(postgres).model_copy(update={"database": DATABASE}), ())
    yield database
    database.close()


@pytest.fixture
def ann() -> str:
    """Somebody whom no other test knows."""
    return unique("ann")


def left(principal: str, **changes: object) -> Kept:
    instant = now()
    kept = Kept(
        run_id=unique("run//acme"),
        tenant="acme",
        principal=principal,
        agent="main.tests.clerk",
        turns=1,
        ended_at=instant,
        until=instant + HOUR,
    )
    return replace(kept, **changes)  # type: ignore[arg-type]


async def keep(conversations: Conversations, kept: Kept, began_at: datetime | None = None) -> None:
    await conversations.keep(kept, "said", began_at or kept.ended_at - HOUR)


async def read(conversations: Conversations, kept: Kept, **changes: str) -> str | None:
    whose = replace(kept, **changes)  # type: ignore[arg-type]
    return await conversations.read(whose.run_id, whose.tenant, whose.principal)


async def test_who_asked_reads_what_was_said_and_nobody_else(
    conversations: Conversations, ann: str
) -> None:
    kept = left(ann)
    await keep(conversations, kept)
    assert await read(conversations, kept) == "said"
    assert await read(conversations, kept, principal="bob") is None
    assert await read(conversations, kept, tenant="other") is None
    assert await read(conversations, kept, run_id="other//acme") is None


async def test_what_is_kept_once_stays_as_it_is(conversations: Conversations, ann: str) -> None:
    kept = left(ann, run_id=f"{unique('nul')}\0//acme")
    await asyncio.gather(*(keep(conversations, kept) for _ in range(3)))
    await conversations.keep(kept, "other", kept.ended_at - HOUR)
    assert await read(conversations, kept) == "said"
    assert await conversations.list(None, ann, None, 10) == [kept]
    assert await conversations.show(kept.run_id) == "said"


async def test_conversations_are_listed_by_whose_they_are_the_latest_first(
    conversations: Conversations, ann: str
) -> None:
    first = left(ann, ended_at=now() - HOUR)
    second = left(ann, tenant="other", agent="main.tests.expert")
    for each in (first, second):
        await keep(conversations, each)
    assert await conversations.list(None, ann, None, 10) == [second, first]
    assert await conversations.list(None, ann, None, 1) == [second]
    assert await conversations.list("acme", ann, None, 10) == [first]
    assert await conversations.list(None, ann, "main.tests.expert", 10) == [second]


async def test_what_is_past_its_time_is_read_no_more_and_deleted(
    conversations: Conversations, database: Database, ann: str
) -> None:
    past, late, lasting = left(ann), left(ann, until=now()), left(ann)
    for each in (past, late, lasting):
        await keep(conversations, each)
    assert await read(conversations, late) is None
    assert await rows(database, "conversations", ann) == 2
    assert await read(conversations, past) == "said"
    ends = "UPDATE conversations SET until = clock_timestamp() WHERE run_id = %(run_id)s"
    await database.ask(ends, run_id=past.run_id.encode())
    assert await read(conversations, past) is None
    assert await conversations.sweep() == 1
    assert await conversations.list(None, ann, None, 10) == [lasting]
    assert await rows(database, "conversations", ann) == 1


async def test_all_that_began_before_somebody_was_forgotten_is_gone_and_what_came_later_stays(
    conversations: Conversations, ann: str
) -> None:
    many, bob = [left(ann) for _ in range(BITE + 1)], left(unique("bob"))
    for each in (*many, bob):
        await keep(conversations, each)
    assert await conversations.forget(ann, None) == len(many)
    assert await read(conversations, many[0]) is None
    under_way, later = left(ann), left(ann)
    await keep(conversations, under_way)
    await keep(conversations, later, now() + timedelta(seconds=5))
    assert await conversations.list(None, ann, None, 10) == [later]
    assert await read(conversations, bob) == "said"


async def test_somebody_is_forgotten_for_one_tenant_alone(
    conversations: Conversations, ann: str
) -> None:
    one, other = left(ann), left(ann, tenant="other")
    for each in (one, other):
        await keep(conversations, each)
    assert await conversations.forget(ann, "other") == 1
    assert await conversations.list(None, ann, None, 10) == [one]


async def mark(database: Database, principal: str, ago: timedelta = timedelta(0)) -> None:
    """Leaves what a command leaves that is interrupted once it has said who is forgotten."""
    await database.ask(FORGETS, MARK, principal=principal, tenant="")
    made = "UPDATE forgotten SET at = at - %(ago)s::interval WHERE principal = %(principal)s"
    await database.ask(made, principal=principal, ago=ago)


async def rows(database: Database, table: str, principal: str) -> int:
    """Returns how many rows of a principal a table has, whoever may read them."""
    found = await database.ask(
        f"SELECT FROM {table} WHERE principal = %(principal)s", principal=principal
    )
    return len(found)


async def test_what_is_forgotten_is_told_nobody_though_it_is_not_deleted_yet(
    conversations: Conversations, database: Database, ann: str
) -> None:
    kept, later = left(ann), left(ann)
    await keep(conversations, kept)
    await keep(conversations, later, now() + HOUR)
    await mark(database, ann)
    assert await rows(database, "conversations", ann) == 2
    assert await read(conversations, kept) is None
    assert await conversations.show(kept.run_id) is None
    assert await conversations.list(None, ann, None, 10) == [later]


async def test_what_an_interrupted_command_left_of_the_forgotten_is_deleted_by_the_agents(
    conversations: Conversations, database: Database, ann: str
) -> None:
    bob = unique("bob")
    for each in (*(left(ann) for _ in range(BITE + 1)), left(bob)):
        await keep(conversations, each)
    await mark(database, ann)
    memory = Memory(conversations)

    async def gone() -> bool:
        return await rows(database, "conversations", ann) == 0

    await soon(gone, what="the end of what is forgotten")
    await memory.close()
    assert await rows(database, "conversations", bob) == 1


async def test_somebody_counts_as_forgotten_until_nothing_is_left_to_forget(
    conversations: Conversations, database: Database, ann: str
) -> None:
    long_ago = OLD + HOUR
    await keep(conversations, left(ann), now() - long_ago - HOUR)
    await mark(database, ann, ago=long_ago)
    await database.ask(UNMARK, old=OLD)
    assert await conversations.list(None, ann, None, 10) == []
    assert await rows(database, "forgotten", ann) == 1
    await conversations.sweep()
    assert await rows(database, "conversations", ann) == 0
    assert await rows(database, "forgotten", ann) == 0


async def test_who_forgets_goes_on_to_the_end_where_another_deletes_the_same_meanwhile(
    conversations: Conversations,
    database: Database,
    postgres: LocalStack,
    ann: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Else who waits for the other gives up in the end.
    monkeypatch.setattr("infra.sql.BOUNDS", "")
    for _ in range(BITE + 1):
        await keep(conversations, left(ann))

    async def waits() -> bool:
        asked = "SELECT FROM pg_stat_activity WHERE datname = %(here)s AND wait_event_type = 'Lock'"
        return bool(await database.ask(asked, here=DATABASE))

    engine = connect(where(postgres).model_copy(update={"database": DATABASE}))
    with engine.begin() as another:
        another.exec_driver_sql(
            "DELETE FROM conversations WHERE run_id IN (SELECT run_id FROM conversations "
            f"WHERE principal = %(principal)s ORDER BY ended_at LIMIT {BITE})",
            {"principal": ann},
        )
        forgetting = asyncio.create_task(conversations.forget(ann, None))
        await soon(waits, what="the wait for who deletes, too")
    engine.dispose()
    assert await forgetting == 1
    assert await rows(database, "conversations", ann) == 0


async def test_a_database_that_does_not_answer_is_named() -> None:
    nowhere = Conversations(PostgresSettings(port=(port := free_port()), password=""))
    with pytest.raises(DatabaseUnreachable, match=f"tessera_agents at 127.0.0.1:{port}"):
        await nowhere.sweep()
    nowhere.close()
