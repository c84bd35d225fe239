"""A few sessions with the journal's PostgreSQL, for one event loop; a lost one is opened anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from infra.secrets import SecretUnavailable, resolve
from infra.settings import PostgresSettings

Session = psycopg.AsyncConnection[dict[str, Any]]

# Where one is connected before there is a database of one's own.
MAINTENANCE = "postgres"
CONNECT_S = 10
# How long an answer may take; PostgreSQL itself, where it is well, gives a statement less.
ANSWER_S = 20.0
# A server that is gone without a word is found out by TCP.
KEEPALIVE_IDLE_S, KEEPALIVE_EVERY_S, KEEPALIVES = 10, 5, 3
UNACKNOWLEDGED_MS = 20_000
OPTIONS = "-c statement_timeout=15s -c lock_timeout=5s -c TimeZone=UTC"
MOST = 4


class JournalUnreachable(RuntimeError):
    """The journal's database does not answer; it can be asked again."""


class Sessions:
    """Sessions with one database. Made inside the running loop.

    Args:
        settings: Where the server is.
        database: Its name.
    """

    def __init__(self, settings: PostgresSettings, database: str) -> None:
        self._settings = settings
        self._database = database
        self._free: list[Session] = []
        self._room = asyncio.Semaphore(MOST)

    async def ask(
        self, query: str, values: Mapping[str, object] | None = None
    ) -> list[dict[str, Any]]:
        """Runs one statement; returns its rows, none where it has none.

        What fails with its session is asked once more: whoever asks must bear that both were done.

        Raises:
            JournalUnreachable: The server does not answer, or the password cannot be read now.
        """
        async with self._room:
            for again in (True, False):
                try:
                    async with asyncio.timeout(ANSWER_S):
                        return await self._asked(query, values)
                except TimeoutError as problem:
                    raise _unreachable(problem) from None
                except SecretUnavailable as problem:
                    # It was there at the start: whoever puts another in its place is not done yet.
                    raise JournalUnreachable(f"the journal of tool calls: {problem}") from None
                except psycopg.Error as problem:
                    # A server that was restarted has ended all of them.
                    await self.close()
                    if not (again and isinstance(problem, psycopg.OperationalError)):
                        raise _unreachable(problem) from None
        raise AssertionError

    @asynccontextmanager
    async def own(self) -> AsyncIterator[Session]:
        """Gives a session of one's own, which nobody else asks.

        Raises:
            JournalUnreachable: The server does not answer.
        """
        try:
            async with await open_session(self._settings, self._database) as session:
                yield session
        except psycopg.Error as problem:
            raise _unreachable(problem) from None

    async def close(self) -> None:
        """Closes what is open."""
        while self._free:
            await self._free.pop().close()

    async def _asked(self, query: str, values: Mapping[str, object] | None) -> list[dict[str, Any]]:
        session = self._free.pop() if self._free else None
        if session is None:
            session = await open_session(self._settings, self._database)
        try:
            cursor = await session.execute(query, values)
            found = await cursor.fetchall() if cursor.description else []
        except BaseException:
            # Also one that is cancelled in the middle of an answer can be asked no more.
            await session.close()
            raise
        self._free.append(session)
        return found


async def make_database(settings: PostgresSettings, database: str) -> None:
    """Makes a database where it is missing.

    Raises:
        JournalUnreachable: The server does not answer, or lets nobody make one.
        SecretUnavailable: The password's reference leads nowhere.
    """
    exists = "SELECT FROM pg_database WHERE datname = %s"
    try:
        async with await open_session(settings, MAINTENANCE) as session:
            if await (await session.execute(exists, (database,))).fetchone() is None:
                # Whoever is as fast may take longer to make it than a lock is waited for.
                await session.execute("SET lock_timeout = 0")
                made = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database))
                try:
                    await session.execute(made)
                except (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                    # Another process was as fast.
                    return
    except psycopg.Error as problem:
        raise _unreachable(problem) from None


async def open_session(settings: PostgresSettings, database: str) -> Session:
    """Opens a session in which each statement is a transaction.

    Raises:
        psycopg.Error: The server does not answer, or lets nobody in.
        SecretUnavailable: The password's reference leads nowhere.
    """
    password = await asyncio.to_thread(resolve, settings.password) if settings.password else None
    return await psycopg.AsyncConnection.connect(
        host=settings.host,
        port=settings.port,
        dbname=database,
        user=settings.user,
        password=password,
        connect_timeout=CONNECT_S,
        options=OPTIONS,
        application_name="tessera-tools",
        autocommit=True,
        row_factory=dict_row,
        keepalives_idle=KEEPALIVE_IDLE_S,
        keepalives_interval=KEEPALIVE_EVERY_S,
        keepalives_count=KEEPALIVES,
        tcp_user_timeout=UNACKNOWLEDGED_MS,
    )


def _unreachable(problem: Exception) -> JournalUnreachable:
    return JournalUnreachable(
        f"the journal of tool calls does not answer: {type(problem).__name__}"
    )
