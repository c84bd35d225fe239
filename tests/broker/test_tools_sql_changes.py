"""Functions in SQL and what they change, or must not, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.broker.shopping import CUSTOMERS, DATABASE, Shop, built, graceful, located
from tests.conftest import running
from tests.unit.calling import CALL_ID, call, fails, office
from workers.tools import Fault, ToolFailed
from workers.tools.sql import SqlRunner

__all__ = ["graceful", "located"]

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def server() -> Iterator[Shop]:
    """PostgreSQL alone."""
    with running(["postgres"]) as stack:
        yield built(stack)


@pytest.fixture
def shop(server: Shop) -> Shop:
    server.open()
    return server


@pytest.fixture
def runner(shop: Shop) -> SqlRunner:
    return SqlRunner(office(shop.connection))


WRITES = {
    "a row": "WITH x AS (INSERT INTO orders VALUES (9, 'x')) SELECT 1",
    "a row that comes back": "WITH x AS (DELETE FROM orders RETURNING id) SELECT * FROM x",
    "a row, plainly": "INSERT INTO orders VALUES (9, 'x')",
    "a table": "SELECT 1 AS one INTO made",
    "a number": "SELECT nextval('numbers')",
    "a lock on a row": "SELECT * FROM orders FOR UPDATE",
    "two statements": "SELECT 1; DELETE FROM orders",
    "two statements, after the end": "SELECT 1; COMMIT; DELETE FROM orders; BEGIN; SELECT 1",
    "the transaction": "SELECT set_config('transaction_read_only', 'off', true)",
    "the transaction, and a row": (
        "WITH x AS MATERIALIZED (SELECT set_config('transaction_read_only', 'off', true)), "
        "y AS (INSERT INTO orders SELECT 9, 'x' FROM x RETURNING id) SELECT * FROM y"
    ),
    "by a function": "SELECT sneaks()",
    "by code": "DO $$ BEGIN DELETE FROM orders; END $$",
    "by a command": "SET TRANSACTION READ WRITE",
    "a file": "COPY orders TO '/tmp/orders'",
    "by a cursor": "SELECT query_to_xml('DELETE FROM orders RETURNING id', true, true, '')",
}
SNEAKS = """
CREATE FUNCTION sneaks() RETURNS int LANGUAGE plpgsql AS $$ BEGIN
    SET TRANSACTION READ WRITE; DELETE FROM orders; RETURN 1;
END $$
"""


@pytest.mark.parametrize("case", WRITES)
@pytest.mark.parametrize("given", [False, True])
async def test_a_pure_function_changes_nothing(
    case: str, given: bool, shop: Shop, runner: SqlRunner
) -> None:
    shop.runs(SNEAKS)
    source, arguments = (":query", {"query": WRITES[case]}) if given else (WRITES[case], {})
    with pytest.raises(ToolFailed, match=r"^(arguments|forbidden|raised|source): "):
        await runner.run(call(source, arguments, effect="pure"))
    assert shop.customers() == CUSTOMERS
    assert shop.runs("SELECT is_called FROM numbers") == [(False,)]


@pytest.mark.parametrize("case", ["a row", "a row, plainly", "a number", "by a command"])
async def test_a_change_where_none_may_be_is_forbidden(
    case: str, shop: Shop, runner: SqlRunner
) -> None:
    await fails(runner, call(WRITES[case], effect="pure"), Fault.FORBIDDEN)


PUT = "INSERT INTO orders VALUES (:id, :name, 1, :idempotency_key) ON CONFLICT (key) DO NOTHING"


async def test_a_change_is_made_once_for_its_key(shop: Shop, runner: SqlRunner) -> None:
    asked = call(PUT, {"id": 4, "name": "Eve"}, effect="idempotent")
    first = await runner.run(asked)
    assert first == {"columns": [], "rows": [], "row_count": 1, "truncated": False}
    again = await runner.run(call(PUT, {"id": 5, "name": "Eve"}, effect="idempotent"))
    assert again["row_count"] == 0
    assert shop.customers() == [*CUSTOMERS, "Eve"]
    assert shop.runs("SELECT key FROM orders WHERE id = 4") == [(CALL_ID,)]


async def test_whoever_calls_does_not_choose_the_key(shop: Shop, runner: SqlRunner) -> None:
    arguments = {"id": 4, "name": "Eve", "idempotency_key": "chosen"}
    await runner.run(call(PUT, arguments))
    assert shop.runs("SELECT key FROM orders WHERE id = 4") == [(CALL_ID,)]


async def test_a_change_is_made_whole_whatever_comes_back(shop: Shop, runner: SqlRunner) -> None:
    source = (
        "INSERT INTO orders SELECT n, 'many' FROM generate_series(10, :last) n RETURNING id, key"
    )
    found = await runner.run(call(source, {"last": 1509}, effect="idempotent"))
    assert (found["row_count"], len(found["rows"]), found["truncated"]) == (1500, 1000, True)
    assert found["columns"] == ["id", "key"]
    assert len(shop.customers()) == 1503


async def test_a_change_that_fails_at_its_end_is_not_made(shop: Shop, runner: SqlRunner) -> None:
    await fails(runner, call("INSERT INTO late VALUES (99)"), Fault.RAISED, "23503", "foreign key")
    assert shop.runs("SELECT count(*) FROM late") == [(0,)]


async def test_one_statement_is_sent_where_changes_may_be(shop: Shop, runner: SqlRunner) -> None:
    two = call("DELETE FROM late; DELETE FROM orders")
    await fails(runner, two, Fault.SOURCE, "42601")
    assert shop.customers() == CUSTOMERS


@pytest.mark.usefixtures("graceful")
async def test_a_lock_is_not_waited_for_past_the_call(shop: Shop, runner: SqlRunner) -> None:
    with shop.session() as other, other.transaction():
        other.execute("LOCK TABLE orders")
        await fails(runner, call("DELETE FROM orders", timeout="2s"), Fault.LIMIT)


async def test_a_broken_rule_of_a_table_is_told_without_its_row(runner: SqlRunner) -> None:
    twice = call("INSERT INTO orders VALUES (1, :name)", {"name": "Mallory"})
    said = await fails(runner, twice, Fault.RAISED, "23505", "orders_pkey")
    assert "Mallory" not in said
    assert "(1)" not in said


async def test_what_a_caller_writes_is_run_only_where_it_may_only_read(
    shop: Shop, runner: SqlRunner
) -> None:
    given = call(":query", {"query": "DELETE FROM orders"}, effect="idempotent")
    await fails(runner, given, Fault.SOURCE, "pure")
    assert shop.customers() == CUSTOMERS


@asynccontextmanager
async def between(shop: Shop, ends_at: bytes) -> AsyncIterator[dict[str, Any]]:
    """A connection that is lost as soon as these bytes are sent to the database."""

    async def carry(source: asyncio.StreamReader, target: asyncio.StreamWriter, end: bytes) -> None:
        try:
            while piece := await source.read(65536):
                target.write(piece)
                if end and end in piece:
                    break
        except OSError:
            pass
        target.close()

    async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, there = await asyncio.open_connection("127.0.0.1", shop.port)
        back = asyncio.create_task(carry(answers, writer, b""))
        await carry(reader, there, ends_at)
        writer.transport.abort()
        await back

    listening = await asyncio.start_server(join, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    try:
        yield {**shop.connection, "url": f"postgresql://127.0.0.1:{port}/{DATABASE}"}
    finally:
        listening.close()


async def test_a_change_whose_end_is_not_heard_of_needs_a_person(shop: Shop) -> None:
    async with between(shop, b"COMMIT\0") as connection:
        runner = SqlRunner(office(connection))
        asked = call("DELETE FROM orders WHERE id = 1")
        await fails(runner, asked, Fault.UNSETTLED, "not known")
        again = call("DELETE FROM orders WHERE id = 1", effect="idempotent")
        await fails(runner, again, Fault.UNREACHABLE, "went away")


async def test_a_change_that_was_never_committed_was_not_made(shop: Shop) -> None:
    async with between(shop, b"DELETE") as connection:
        runner = SqlRunner(office(connection))
        await fails(runner, call("DELETE FROM orders"), Fault.UNREACHABLE, "went away")
    assert shop.customers() == CUSTOMERS
