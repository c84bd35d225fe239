"""Functions in SQL that read, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.broker.shopping import (
    CUSTOMERS,
    DATABASE,
    ROLE,
    Shop,
    built,
    encrypted,
    graceful,
    located,
)
from tests.conftest import running
from tests.harness import eventually
from tests.unit.calling import call, fails, office, shipped
from workers.tools import Fault
from workers.tools.cells import EXACT
from workers.tools.sql import FETCHED, MOST_BYTES, SqlRunner

__all__ = ["graceful", "located"]

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    """PostgreSQL alone, and what nobody changes there."""
    with running(["postgres"]) as stack:
        shop = built(stack)
        shop.open()
        yield shop


@pytest.fixture
def runner(shop: Shop) -> SqlRunner:
    return SqlRunner(office(shop.connection))


async def test_a_query_says_columns_and_rows(runner: SqlRunner) -> None:
    asked = call("SELECT id, amount FROM orders ORDER BY id", effect="pure")
    assert await runner.run(asked) == {
        "columns": ["id", "amount"],
        "rows": [[1, 10.5], [2, 20], [3, 0.1]],
        "row_count": 3,
        "truncated": False,
    }


async def test_a_query_that_finds_nothing_says_of_what(runner: SqlRunner) -> None:
    found = await runner.run(call("SELECT id FROM orders WHERE id = 9", effect="pure"))
    assert found == {"columns": ["id"], "rows": [], "row_count": 0, "truncated": False}


INJECTED = [
    "' OR '1'='1",
    "Ada'; DROP TABLE orders; --",
    "$1",
    ":name",
    "\\'; DELETE FROM orders; --",
    "%s %(name)s",
    "$$; DELETE FROM orders; $$",
]


@pytest.mark.parametrize("name", [*INJECTED, "O'Hara"])
async def test_a_value_is_never_part_of_the_statement(
    name: str, shop: Shop, runner: SqlRunner
) -> None:
    source = "SELECT customer, :name::text FROM orders WHERE customer = :name OR :name IS NULL"
    found = await runner.run(call(source, {"name": name}, effect="pure"))
    assert found["rows"] == ([[name, name]] if name == "O'Hara" else [])
    assert shop.customers() == CUSTOMERS


VALUES: dict[str, tuple[str, dict[str, Any], Any]] = {
    "not in quotes": ('SELECT \':a\', ":a" FROM (SELECT 1 AS ":a") t', {}, [":a", 1]),
    "not in escaped quotes": (r"SELECT E'\':a', 'it''s :a'", {}, ["':a", "it's :a"]),
    "not in dollars": ("SELECT $$:a$$, $b$ $$:a $b$", {}, [":a", " $$:a "]),
    "not in comments": ("SELECT 1 -- :a ' \n, /* :a /* ' */ :a */ 2", {}, [1, 2]),
    "not in a cast": ("SELECT '1'::int, :a::text", {"a": "x"}, [1, "x"]),
    "not in a slice": (
        "SELECT (ARRAY[1,2,3])[1:2], n[1:n[1]] FROM (SELECT ARRAY[2,1] n) t",
        {},
        [[1, 2], [2, 1]],
    ),
    "twice the same": ("SELECT :a::int + :a, :b::int", {"a": 2, "b": 3}, [4, 3]),
    "nothing": ("SELECT :a::int IS NULL", {"a": None}, [True]),
    "truth": ("SELECT NOT :a::bool", {"a": True}, [False]),
    "a fraction": ("SELECT :a::float8", {"a": 0.1}, [0.1]),
    "a large number": ("SELECT :a::numeric", {"a": 2**70}, [str(2**70)]),
    "a list": ("SELECT 2 = ANY(:a), cardinality(:b::text[])", {"a": [1, 2], "b": []}, [True, 0]),
    "a list of numbers": ("SELECT :a::float8[]", {"a": [1, 2.5]}, [[1, 2.5]]),
    "an object": ("SELECT :a::jsonb -> 'b'", {"a": {"b": [1, None, "'"]}}, [[1, None, "'"]]),
    "a list of objects": ("SELECT :a::jsonb", {"a": [{"b": 1}, 2]}, [[{"b": 1}, 2]]),
    "a text that becomes what is asked for": (
        "SELECT :a::date + 1",
        {"a": "2026-02-28"},
        ["2026-03-01"],
    ),
    "as few rows as wanted": ("SELECT g FROM generate_series(1, 9) g LIMIT :a", {"a": 1}, [1]),
}


@pytest.mark.parametrize("case", VALUES)
async def test_a_name_after_a_colon_is_a_value(case: str, runner: SqlRunner) -> None:
    source, arguments, row = VALUES[case]
    found = await runner.run(call(source, arguments, effect="pure"))
    assert found["rows"] == [row]


CELLS: dict[str, Any] = {
    "1.10::numeric": 1.1,
    "3.00::numeric": 3,
    f"{EXACT}::numeric": EXACT,
    f"{EXACT + 1}::numeric": str(EXACT + 1),
    "0.12345678901234567890::numeric": "0.12345678901234567890",
    "'NaN'::numeric": "NaN",
    "'Infinity'::float8": "Infinity",
    "1.5::float4": 1.5,
    "9223372036854775807": str(2**63 - 1),
    "-5000000000": -5_000_000_000,
    "'2026-05-01 12:30:00.25+02'::timestamptz": "2026-05-01T10:30:00.25+00:00",
    "'2026-05-01 12:30'::timestamp": "2026-05-01T12:30:00",
    "'infinity'::timestamptz": "infinity",
    "'2026-05-01'::date": "2026-05-01",
    "'12:30'::time": "12:30:00",
    "'1 year 2 days'::interval": "P1Y2D",
    "'\\xff00'::bytea": "/wA=",
    "'{\"a\": [1, 2.5, null]}'::jsonb": {"a": [1, 2.5, None]},
    "'1e400'::json": "1e400",
    "'[1,2]'::int4range": "[1,3)",
    "ARRAY[1.5, NULL]::numeric[]": [1.5, None],
    "ARRAY['2026-05-01 12:30'::timestamp]": ["2026-05-01T12:30:00"],
    "'10.0.0.0/8'::cidr": "10.0.0.0/8",
    "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
    "'f'::bool": False,
    "NULL": None,
}


@pytest.mark.parametrize("cell", CELLS)
async def test_a_cell_is_json(cell: str, runner: SqlRunner) -> None:
    found = await runner.run(call(f"SELECT {cell}", effect="pure"))
    assert found["rows"] == [[CELLS[cell]]]


async def test_more_rows_than_may_be_are_left_out_and_it_says_so(runner: SqlRunner) -> None:
    endless = "SELECT generate_series(1, 2000000000)"
    found = await runner.run(call(endless, effect="pure", timeout="5m", seconds=300))
    assert (found["row_count"], found["truncated"]) == (1000, True)
    exact = await runner.run(call("SELECT generate_series(1, 1000)", effect="pure"))
    assert (exact["row_count"], exact["truncated"]) == (1000, False)
    wide = await runner.run(
        call("SELECT repeat('ä', 1000) FROM generate_series(1, 900)", effect="pure")
    )
    assert wide["truncated"]
    assert MOST_BYTES - 4000 < 2000 * wide["row_count"] < MOST_BYTES


async def test_a_row_that_fills_the_memory_is_not_read(runner: SqlRunner) -> None:
    huge = call("SELECT repeat('x', 100000000)", effect="pure", timeout="5m", seconds=300)
    await fails(runner, huge, Fault.LIMIT, "more than 32 MiB")


@pytest.mark.usefixtures("graceful")
async def test_a_statement_ends_with_the_time_of_its_call(shop: Shop, runner: SqlRunner) -> None:
    for effect in ("pure", "reconcile"):
        slow = call("SELECT pg_sleep(60)", effect=effect, timeout="2s")
        await fails(runner, slow, Fault.LIMIT, "57014")
    running = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'clerk' AND state = 'active'"
    eventually(lambda: shop.runs(running) == [(0,)], what="the end of the statements")
    over = call("SELECT 1", effect="pure", seconds=-1)
    await fails(runner, over, Fault.LIMIT, "before it began")


@pytest.mark.usefixtures("graceful")
async def test_a_statement_that_takes_its_time_away_is_stopped_all_the_same(
    shop: Shop, runner: SqlRunner
) -> None:
    source = (
        f"SELECT set_config('statement_timeout', '0', false) FROM generate_series(1, {FETCHED}) "
        "UNION ALL SELECT pg_sleep(600)::text"
    )
    await fails(runner, call(source, effect="pure", timeout="2s"), Fault.LIMIT, "57014")
    sleeping = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND usename = 'clerk'"
    eventually(lambda: shop.runs(sleeping) == [(0,)], what="the end of the statement")


async def test_what_has_no_room_is_not_loaded(runner: SqlRunner) -> None:
    large = "SELECT array_agg(g) FROM generate_series(1, 3000000) g"
    before = time.thread_time()
    found = await runner.run(call(large, effect="pure", timeout="5m", seconds=300))
    assert (found["rows"], found["truncated"]) == ([], True)
    # Seconds of processor time that the loop stood still for: to load it all takes several.
    assert time.thread_time() - before < 1


@pytest.mark.usefixtures("graceful")
async def test_a_statement_cannot_take_itself_more_time(runner: SqlRunner) -> None:
    source = "SELECT set_config('statement_timeout', '0', false), pg_sleep(60)"
    await fails(runner, call(source, effect="pure", timeout="300ms"), Fault.LIMIT)


REFUSED: dict[str, tuple[str, dict[str, Any], Fault, str]] = {
    "no statement": ("SELEC 1", {}, Fault.FORBIDDEN, "it may only read"),
    "wrong syntax": ("SELECT FROM WHERE", {}, Fault.SOURCE, "42601"),
    "an unknown table": ("SELECT * FROM nowhere", {}, Fault.SOURCE, "42P01"),
    "an unknown name": ("SELECT :nobody", {}, Fault.SOURCE, ":nobody"),
    "wrong syntax of the caller": (":q", {"q": "SELECT FROM WHERE"}, Fault.ARGUMENTS, "42601"),
    "a name of the caller": (":q", {"q": "SELECT :q"}, Fault.ARGUMENTS, "42601"),
    "a number of the caller": (":q", {"q": "SELECT $1"}, Fault.ARGUMENTS, "08P01"),
    "no statement of the caller": (":q", {"q": " "}, Fault.ARGUMENTS, "q: a statement"),
    "no text of the caller": (":q", {"q": 1}, Fault.ARGUMENTS, "q: a statement"),
    "a table of others": ("SELECT * FROM payroll", {}, Fault.FORBIDDEN, "42501"),
    "a file of the server": ("SELECT pg_read_file('/etc/passwd')", {}, Fault.FORBIDDEN, "42501"),
    "a text that is no number": ("SELECT :a::int", {"a": "secret 1"}, Fault.RAISED, "22P02"),
    "a cell that is no number": ("SELECT customer::int FROM orders", {}, Fault.RAISED, "22P02"),
    "nothing to divide by": ("SELECT 1 / (:a::int - 1)", {"a": 1}, Fault.RAISED, "22012"),
    "a character that is none": ("SELECT :a::text", {"a": "secret\0"}, Fault.ARGUMENTS, "argument"),
    "half a character": ("SELECT :a::text", {"a": "secret\ud800"}, Fault.ARGUMENTS, "no text"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_a_refusal_says_why_without_a_value(case: str, runner: SqlRunner) -> None:
    source, arguments, fault, words = REFUSED[case]
    said = await fails(runner, call(source, arguments, effect="pure"), fault, words)
    assert "secret" not in said
    assert "Ada" not in said


async def test_names_without_a_schema_are_those_of_the_connection(shop: Shop) -> None:
    shop.runs(f"ALTER ROLE {ROLE} SET search_path = other", "INSERT INTO other.orders VALUES (77)")
    asked = call("SELECT min(id) FROM orders", effect="pure")
    plain = await SqlRunner(office(shop.connection)).run(asked)
    chosen = {**shop.connection, "options": {"search_path": "other, public"}}
    other = await SqlRunner(office(chosen)).run(asked)
    shop.runs(f"ALTER ROLE {ROLE} RESET search_path")
    assert (plain["rows"], other["rows"]) == ([[1]], [[77]])


async def test_a_path_of_a_connection_is_names_and_nothing_else(shop: Shop) -> None:
    odd = {**shop.connection, "options": {"search_path": "x'; DROP TABLE orders; --"}}
    asked = call("SELECT current_setting('search_path')", effect="pure")
    found = await SqlRunner(office(odd)).run(asked)
    assert found["rows"] == [['"x\'; DROP TABLE orders; --", pg_temp']]
    assert shop.customers() == CUSTOMERS


ELSEWHERE: dict[str, tuple[dict[str, Any], Fault, str]] = {
    "private, and not allowed": (
        {"private": False, "url": "postgresql://localhost/shop"},
        Fault.FORBIDDEN,
        "localhost",
    ),
    "metadata": ({"url": "postgresql://169.254.169.254/shop"}, Fault.FORBIDDEN, "link-local"),
    "no host": ({"url": "postgresql://nowhere.invalid/shop"}, Fault.UNREACHABLE, "no address"),
    "nobody there": ({"url": "postgresql://127.0.0.1:1/shop"}, Fault.UNREACHABLE, "not answer"),
    "another user": ({"user": "stranger"}, Fault.UNREACHABLE, "user and password"),
    "no user": ({"user": ""}, Fault.SOURCE, "user"),
    "no TLS where there must be": (
        {"options": {"sslmode": "verify-full"}},
        Fault.UNREACHABLE,
        "not let it in",
    ),
    "no secret": ({"secret": "env:NOWHERE"}, Fault.UNREACHABLE, "cannot be read"),
    "another type": ({"type": "http", "url": "http://localhost"}, Fault.SOURCE, "postgresql"),
}


@pytest.mark.parametrize("case", ELSEWHERE)
async def test_a_connection_that_leads_nowhere_is_told(case: str, shop: Shop) -> None:
    more, fault, words = ELSEWHERE[case]
    runner = SqlRunner(office({**shop.connection, **more}))
    await fails(runner, call("SELECT 1", effect="pure"), fault, words)


async def test_tls_is_with_the_database_itself(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = call("SELECT 1", effect="pure")
    async with encrypted(shop, tmp_path) as (connection, trusted):
        runner = SqlRunner(office(connection))
        await fails(runner, asked, Fault.UNREACHABLE, "does not let it in")
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
        assert (await runner.run(asked))["rows"] == [[1]]
        another = {**connection, "url": connection["url"].replace("localhost", "127.0.0.1")}
        await fails(SqlRunner(office(another)), asked, Fault.UNREACHABLE, "does not let it in")


@pytest.mark.usefixtures("located")
async def test_a_database_that_says_nothing_is_not_waited_for(shop: Shop) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    listening = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    connection = {**shop.connection, "url": f"postgresql://127.0.0.1:{port}/{DATABASE}"}
    asked = call("SELECT 1", effect="pure", timeout="300ms")
    await fails(SqlRunner(office(connection)), asked, Fault.UNREACHABLE, "does not answer")
    listening.close()


async def test_a_name_that_nobody_resolves_in_time_is_told_as_time_that_is_over(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def permitted(host: str, port: int, *, private: bool) -> list[str]:
        await asyncio.Event().wait()
        return []

    monkeypatch.setattr("workers.tools.sql.permitted", permitted)
    asked = call("SELECT 1", effect="pure", timeout="300ms")
    await fails(SqlRunner(office(shop.connection)), asked, Fault.LIMIT, "longer than it may")


async def test_a_database_is_asked_by_the_function_that_comes_with_the_platform(
    runner: SqlRunner,
) -> None:
    spec = shipped("main.default.sql_query", "catalog/tools.yaml")
    query = "SELECT column_name FROM information_schema.columns WHERE table_name = 'late'"
    asked = call(
        spec.pop("source"), {"query": query}, **{**spec, "connection": "main.tests.outside"}
    )
    assert (await runner.run(asked))["rows"] == [["id"]]
