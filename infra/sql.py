"""PostgreSQL: an engine whose password is looked up anew for each connection; notifications.

And a database that an event loop asks, which waits for no answer for ever.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any

import psycopg
import psycopg.errors
import psycopg.sql
import structlog
from sqlalchemy import URL, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError

from infra.secrets import SecretUnavailable, resolve
from infra.settings import PostgresSettings

log = structlog.get_logger()

# Where one is connected before there is a database of one's own.
MAINTENANCE = "postgres"
CONNECT_S = 10
# Who stands still in the middle of a transaction must not keep others from theirs for ever.
OPTIONS = "-c timezone=UTC -c idle_in_transaction_session_timeout=60s"
# Of a ``Database``, whose questions are short.
BOUNDS = "-c statement_timeout=10s -c lock_timeout=5s"
# How long a network may keep silent about what was sent.
SILENCE_MS = 10_000
MOST_AT_ONCE = 4

# Of what is asked: text, numbers, times.
Values = Mapping[str, object]


class DatabaseUnreachable(RuntimeError):
    """A database does not answer, or not in time; it can be asked again."""


class DatabaseRefuses(DatabaseUnreachable):
    """A database answers, and does nothing of what is asked until somebody sees to it.

    A right may be missing, a column, or room on its disk.
    """


def connect(settings: PostgresSettings, bounds: str = "") -> Engine:
    """Returns an engine for the database, which is made where it is missing.

    Times come back in UTC. Errors and logs of the engine carry no parameters.

    Args:
        settings: Where it is.
        bounds: More options of its sessions.

    Raises:
        SecretUnavailable: The password's reference leads nowhere.
        sqlalchemy.exc.OperationalError: The server does not answer or refuses.
    """
    _ensure(settings)
    return _engine(settings, settings.database, bounds)


def _engine(settings: PostgresSettings, database: str, bounds: str = "") -> Engine:
    url = URL.create(
        "postgresql+psycopg",
        username=settings.user,
        host=settings.host,
        port=settings.port,
        database=database,
    )
    engine = create_engine(
        url,
        pool_pre_ping=True,
        hide_parameters=True,
        json_serializer=lambda value: json.dumps(value, ensure_ascii=False, allow_nan=False),
        connect_args={
            "connect_timeout": CONNECT_S,
            "options": f"{OPTIONS} {bounds}",
            "tcp_user_timeout": SILENCE_MS,
        },
    )

    @event.listens_for(engine, "do_connect")
    def authenticate(dialect: Any, record: Any, args: Any, parameters: dict[str, Any]) -> None:
        if settings.password:
            parameters["password"] = resolve(settings.password)

    return engine


def _ensure(settings: PostgresSettings) -> None:
    engine = _engine(settings, MAINTENANCE)
    named = {"name": settings.database}
    exists = text("SELECT FROM pg_database WHERE datname = :name")
    try:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            if connection.execute(exists, named).first() is None:
                quoted = engine.dialect.identifier_preparer.quote_identifier(settings.database)
                connection.execute(text(f"CREATE DATABASE {quoted}"))
                log.info("database made", database=settings.database)
    except (IntegrityError, ProgrammingError):
        # Another process may have been as fast.
        with engine.connect() as connection:
            if connection.execute(exists, named).first() is None:
                raise
    finally:
        engine.dispose()


class Database:
    """A database that is asked from an event loop; it is reached when it is first asked.

    Args:
        settings: Where it is; it is made where it is missing.
        making: Statements that make what lies in it, where that is missing.
    """

    def __init__(self, settings: PostgresSettings, making: Sequence[str]) -> None:
        self._settings = settings
        self._making = making
        self._engine: Engine | None = None
        self._reaching = Lock()
        self._threads = ThreadPoolExecutor(MOST_AT_ONCE, "database")

    async def ask(self, *statements: str, **values: object) -> list[tuple[Any, ...]]:
        """Runs statements in one transaction; returns the rows of the last, none where it has none.

        Args:
            statements: With ``%(name)s`` where a value stands.
            values: By name.

        Raises:
            DatabaseRefuses: Nothing of it counts, and asking again would not change that.
            DatabaseUnreachable: Nothing of it counts, or nobody knows whether it does.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._asked, statements, values)

    def close(self) -> None:
        """Closes what is open; who still asks is left alone."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._engine is not None:
            self._engine.dispose()

    def _asked(self, statements: Sequence[str], values: Values) -> list[tuple[Any, ...]]:
        try:
            with self._reached().begin() as session:
                for statement in statements:
                    found = session.exec_driver_sql(statement, dict(values) or None)
                return [tuple(row) for row in found] if found.returns_rows else []
        except DBAPIError as problem:
            # The type alone: what else an error says may hold values and statements.
            said = type(problem.orig).__name__
            if not problem.connection_invalidated and _answers(problem.orig):
                raise DatabaseRefuses(
                    f"{_named(self._settings)} refuses what is asked: {said}; see its log"
                ) from None
            raise _unreachable(self._settings, said) from None
        except SecretUnavailable as problem:
            raise _unreachable(self._settings, str(problem)) from None

    def _reached(self) -> Engine:
        with self._reaching:
            if self._engine is None:
                engine = connect(self._settings, BOUNDS)
                with engine.begin() as session:
                    for statement in self._making:
                        session.exec_driver_sql(statement)
                self._engine = engine
            return self._engine


def _unreachable(settings: PostgresSettings, said: str) -> DatabaseUnreachable:
    return DatabaseUnreachable(f"{_named(settings)} does not answer: {said}")


def _named(settings: PostgresSettings) -> str:
    return f"the database {settings.database} at {settings.host}:{settings.port}"


def _answers(problem: BaseException | None) -> bool:
    """Returns whether it was the database that said so, and would say so again."""
    away = (psycopg.InterfaceError, psycopg.OperationalError)
    return isinstance(problem, psycopg.errors.DiskFull) or not isinstance(problem, away)


class Listener:
    """Hears what a database notifies, on a connection of its own.

    Args:
        engine: From ``connect``.
        channel: What is listened to; an identifier.
    """

    def __init__(self, engine: Engine, channel: str) -> None:
        pooled = engine.raw_connection()
        driver = pooled.driver_connection
        assert isinstance(driver, psycopg.Connection)
        pooled.detach()
        self._driver = driver
        self._driver.rollback()
        self._driver.autocommit = True
        self._driver.execute(psycopg.sql.SQL("LISTEN {}").format(psycopg.sql.Identifier(channel)))

    def wait(self, timeout: float) -> bool:
        """Returns whether something was notified since the last call; waits for it so long.

        Args:
            timeout: Seconds.

        Raises:
            psycopg.OperationalError: The connection is gone.
        """
        return any(True for _ in self._driver.notifies(timeout=timeout, stop_after=1))

    def close(self) -> None:
        """Stops listening."""
        self._driver.close()
