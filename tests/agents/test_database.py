"""A database that answers, and refuses what is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from infra.sql import Database, DatabaseRefuses, DatabaseUnreachable
from infra.stack.local import LocalStack
from tests.agents.test_conversations import where
from tests.harness import unique

pytestmark = pytest.mark.stack

# What no message tells.
SECRET = "a-secret-value"
REFUSED = {
    "CheckViolation": ("INSERT INTO notes VALUES (%(said)s)",),
    "InsufficientPrivilege": (
        "SET ROLE pg_monitor",
        "SELECT said FROM notes WHERE said = %(said)s",
    ),
    "UndefinedColumn": ("SELECT missing FROM notes WHERE said = %(said)s",),
}


@pytest.fixture
def database(postgres: LocalStack) -> Iterator[Database]:
    made = where(postgres).model_copy(update={"database": unique("refusing").replace("-", "_")})
    database = Database(made, ["CREATE TABLE IF NOT EXISTS notes (said text CHECK (said = 'fit'))"])
    yield database
    database.close()


@pytest.mark.parametrize("kind", REFUSED)
async def test_what_a_database_refuses_is_named_by_its_kind_alone(
    database: Database, kind: str
) -> None:
    with pytest.raises(DatabaseRefuses, match=f"refuses what is asked: {kind}") as refused:
        await database.ask(*REFUSED[kind], said=SECRET)
    assert SECRET not in str(refused.value)
    assert "notes" not in str(refused.value)
    assert await database.ask("SELECT count(*) FROM notes") == [(0,)]


async def test_a_database_that_cuts_a_connection_does_not_refuse(database: Database) -> None:
    cut = database.ask("SELECT pg_terminate_backend(pg_backend_pid())")
    with pytest.raises(DatabaseUnreachable, match="does not answer") as away:
        await asyncio.wait_for(cut, 60)
    assert not isinstance(away.value, DatabaseRefuses)
    assert await database.ask("SELECT 1") == [(1,)]
