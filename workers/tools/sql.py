"""Functions in SQL: one statement with values beside it (``statement.py``), on a PostgreSQL.

Each call has a session and a transaction of its own. It is READ ONLY where the effect is ``pure``,
and is rolled back; otherwise it is committed. ``search_path`` is what the option of that name of
the connection says, else ``public``; the session's time zone is UTC. At most 1,000 rows come back,
of 256 KiB; a call that changes something is carried out whole, whatever of its rows comes back.

Covered: values never become part of the statement; one statement a call; a statement that reads
cannot turn its transaction into one that writes; addresses are judged as they are dialled; the
password is read for each call; no error quotes a row; what has no room is not loaded; a statement
whose time is over is stopped in the database, whatever it has set itself. Not covered: what
functions of the database reach beyond their transaction, such as ``dblink`` or
``pg_terminate_backend``: give the connection a role that may do no more than its functions need.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import psycopg
from psycopg import sql

from infra.addresses import AddressForbidden, permitted
from infra.connectors.database import UNOPENED
from infra.connectors.source import SECURE, CaptureRefused, Place, place_of
from schemas.kinds import ConnectionSpec
from workers.tools import Call, Fault, Runner, ToolFailed
from workers.tools.calls import MOST_RESULT_BYTES, Office
from workers.tools.cells import Rows, load_as_json
from workers.tools.outside import (
    connection_of,
    out_of_time,
    seconds_left,
    secret_of,
    unanswered,
)
from workers.tools.statement import Statement, stated
from workers.tools.wire import LOOPBACK, Cut, Wire

MOST_ROWS = 1_000
# What is around the rows in a result has room too.
MOST_BYTES = MOST_RESULT_BYTES - 1024
# Rows that are fetched at once, and what all that a call brings may come to, as it travels.
FETCHED = 50
FETCH = f"FETCH {FETCHED} FROM found".encode()
MOST_WIRE_BYTES = 32 * 1024 * 1024
CONNECT_S = 10
LOCK_MS = 5_000
# How much longer than the database itself a call waits for it: its own word says more. Before that
# it is told to stop: what a statement sets can take its time away.
CANCEL_S, GRACE_S = 0.2, 1.0
MOST_MESSAGE = 300
SEARCH_PATH = "public"

# By SQLSTATE, else by its class.
FAULTS: dict[str, Fault] = {
    "08": Fault.UNREACHABLE,
    "25006": Fault.FORBIDDEN,
    "25P03": Fault.LIMIT,
    "42501": Fault.FORBIDDEN,
    "55P03": Fault.LIMIT,
    "57": Fault.UNREACHABLE,
    "57014": Fault.LIMIT,
}
# The statement is not understood, or has numbers of values that it was not given.
SYNTAX = frozenset({"08P01", "42"})
# A value is none; the words of these quote it.
VALUES = "22"
# A cursor for what changes something, hidden in WITH.
NO_CURSOR = "0A000"
QUOTED = re.compile("[\"'„“«].*[\"'”»“]", re.DOTALL)

Session = psycopg.AsyncConnection[tuple[Any, ...]]


async def open_sql(office: Office) -> Runner:
    """Returns what runs functions in SQL."""
    return SqlRunner(office)


class SqlRunner:
    """Runs functions in SQL."""

    def __init__(self, office: Office) -> None:
        self._office = office

    async def run(self, call: Call) -> dict[str, Any]:
        """Returns ``columns``, ``rows`` with a list each, ``row_count`` and ``truncated``.

        ``row_count`` is how many rows were touched where the statement changes something, and how
        many came back where it reads.
        """
        connection = connection_of(call, self._office.view, "postgresql")
        statement, place = stated(call), _place(connection)
        password = await secret_of(call, connection, self._office)
        seconds = seconds_left(call)
        addresses = await _addresses(place, call, private=connection.private)
        wire = Wire(addresses, place.port, most=MOST_WIRE_BYTES, seconds=seconds + GRACE_S)
        until = asyncio.get_running_loop().time() + seconds + CANCEL_S
        try:
            async with (
                wire,
                _session(place, password, wire.port, seconds) as session,
                _stopped(session, until),
            ):
                await _begin(session, statement, connection)
                if statement.reads:
                    return await _read(session, statement)
                return await _write(session, statement, call, wire)
        except psycopg.Error as problem:
            raise _failure(problem, statement, call, wire) from None
        except UnicodeEncodeError:
            raise ToolFailed(Fault.ARGUMENTS, "one of the arguments is no text") from None

    async def close(self) -> None:
        """Has nothing to give back."""


def _place(connection: ConnectionSpec) -> Place:
    try:
        return place_of(connection)
    except CaptureRefused as refused:
        raise ToolFailed(Fault.SOURCE, f"{refused}: {refused.remedy}") from None


async def _addresses(place: Place, call: Call, *, private: bool) -> list[str]:
    try:
        async with asyncio.timeout(seconds_left(call)):
            return await permitted(place.host, place.port, private=private)
    except AddressForbidden as forbidden:
        raise ToolFailed(Fault.FORBIDDEN, str(forbidden)) from None
    except TimeoutError:
        raise out_of_time(call) from None
    except OSError:
        raise ToolFailed(Fault.UNREACHABLE, f"{place.host} has no address") from None


@asynccontextmanager
async def _session(
    place: Place, password: str | None, port: int, seconds: float
) -> AsyncIterator[Session]:
    trust = {"sslrootcert": "system"} if place.tls == SECURE else {}
    try:
        session = await psycopg.AsyncConnection.connect(
            host=place.host,
            hostaddr=LOOPBACK,
            port=port,
            dbname=place.database,
            user=place.user,
            # Else the driver would look for one of this process's own.
            password=password or "",
            passfile="/dev/null",
            sslmode=place.tls,
            gssencmode="disable",
            client_encoding="UTF8",
            connect_timeout=CONNECT_S,
            options=_options(seconds),
            application_name="tessera-tools",
            autocommit=True,
            **trust,  # type: ignore[arg-type]
        )
    except psycopg.Error as problem:
        raise _Unopened(str(problem)) from None
    try:
        load_as_json(session)
        yield session
    finally:
        await session.close()


@asynccontextmanager
async def _stopped(session: Session, until: float) -> AsyncIterator[None]:
    """Tells the database to stop when the block lasts too long, over a connection of its own.

    Args:
        session: In which it works.
        until: When, by the clock of the loop.
    """

    async def stop() -> None:
        await asyncio.sleep(until - asyncio.get_running_loop().time())
        # Between two statements, the database takes no notice. What cannot be told is cut off a
        # moment later.
        while True:
            with suppress(psycopg.Error):
                await session.cancel_safe(timeout=GRACE_S)
            await asyncio.sleep(CANCEL_S)

    stopping = asyncio.create_task(stop())
    try:
        yield
    finally:
        stopping.cancel()
        await asyncio.gather(stopping, return_exceptions=True)


class _Unopened(psycopg.OperationalError):
    """There is no session; nothing was asked."""


def _options(seconds: float) -> str:
    time = max(1, int(seconds * 1000))
    settings = {
        "DateStyle": "ISO",
        "IntervalStyle": "iso_8601",
        "TimeZone": "UTC",
        "bytea_output": "hex",
        "idle_in_transaction_session_timeout": time,
        "lock_timeout": min(time, LOCK_MS),
        "standard_conforming_strings": "on",
        "statement_timeout": time,
    }
    return " ".join(f"-c {name}={value}" for name, value in settings.items())


async def _begin(session: Session, statement: Statement, connection: ConnectionSpec) -> None:
    mode = "READ ONLY" if statement.reads else "READ WRITE"
    await session.execute(f"BEGIN ISOLATION LEVEL READ COMMITTED {mode}".encode())
    names = connection.options.get("search_path", SEARCH_PATH).split(",")
    quoted = [sql.Identifier(name.strip()).as_string() for name in names]
    # The first query: from now on nothing makes a transaction write that only reads.
    path = ", ".join([*quoted, "pg_temp"])
    await session.execute("SELECT set_config('search_path', %s, true)", (path,))


async def _read(session: Session, statement: Statement) -> dict[str, Any]:
    async with psycopg.AsyncRawCursor(session) as cursor:
        declared = f"DECLARE found NO SCROLL CURSOR FOR {statement.text}"
        await _execute(cursor, declared, statement)
        await cursor.execute(FETCH)
        rows = _rows(cursor)
        while await _kept(session, cursor, rows) and cursor.rowcount == FETCHED:
            await cursor.execute(FETCH)
    return rows.told()


async def _write(session: Session, statement: Statement, call: Call, wire: Wire) -> dict[str, Any]:
    async with psycopg.AsyncRawCursor(session) as cursor:
        await _execute(cursor, statement.text, statement)
        rows = _rows(cursor)
        await _kept(session, cursor, rows)
        touched = max(0, cursor.rowcount)
    try:
        await session.execute("COMMIT")
    except psycopg.Error as problem:
        failure = _failure(problem, statement, call, wire)
        raise failure if _answered(problem) else unanswered(call, failure) from None
    return rows.told(touched)


async def _execute(cursor: psycopg.AsyncRawCursor[Any], text: str, statement: Statement) -> None:
    # What is prepared is one statement, whether it has values or not.
    await cursor.execute(text.encode(), statement.values, prepare=True)


async def _kept(session: Session, cursor: psycopg.AsyncRawCursor[Any], rows: Rows) -> bool:
    """Keeps the rows of an answer; returns False where they were more than have room."""
    answer = cursor.pgresult
    return answer is None or await asyncio.to_thread(rows.read, session, answer)


def _rows(cursor: psycopg.AsyncRawCursor[Any]) -> Rows:
    columns = [column.name for column in cursor.description or ()]
    return Rows(columns, most=MOST_ROWS, most_bytes=MOST_BYTES)


def _answered(problem: psycopg.Error) -> bool:
    """Returns whether the database itself says that nothing came of it."""
    return problem.sqlstate is not None and problem.sqlstate[:2] not in ("08", "57")


def _failure(problem: psycopg.Error, statement: Statement, call: Call, wire: Wire) -> ToolFailed:
    if isinstance(problem, _Unopened):
        return _unopened(str(problem), wire)
    if problem.sqlstate is not None:
        return _refused(problem, problem.sqlstate, statement)
    if wire.cut is Cut.LATE:
        return out_of_time(call)
    if wire.cut is Cut.FULL:
        most = MOST_WIRE_BYTES // 1024**2
        return ToolFailed(Fault.LIMIT, f"it brings more than {most} MiB at once: ask for less")
    if isinstance(problem, psycopg.OperationalError):
        return ToolFailed(Fault.UNREACHABLE, "its database went away while it was asked")
    return ToolFailed(Fault.ARGUMENTS, "one of the arguments is none that PostgreSQL takes")


def _refused(problem: psycopg.Error, state: str, statement: Statement) -> ToolFailed:
    """Returns the failure that a database tells of; nothing of its DETAIL or of values."""
    kinds = dict.fromkeys(SYNTAX, statement.fault) | FAULTS
    if statement.reads:
        kinds[NO_CURSOR] = Fault.FORBIDDEN
    kind = kinds.get(state, kinds.get(state[:2], Fault.RAISED))
    said = (problem.diag.message_primary or "")[:MOST_MESSAGE]
    if state[:2] == VALUES:
        said = QUOTED.sub("...", said)
    return ToolFailed(kind, f"its database says {state}: {said}")


def _unopened(said: str, wire: Wire) -> ToolFailed:
    for words, (reason, remedy) in UNOPENED.items():
        if words in said:
            return ToolFailed(Fault.UNREACHABLE, f"{reason}: {remedy}")
    why = "does not answer" if wire.cut else "does not let it in"
    return ToolFailed(Fault.UNREACHABLE, f"its database {why}")
