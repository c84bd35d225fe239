"""PostgreSQL: an engine whose password is looked up anew for each connection; notifications."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import psycopg.sql
import structlog
from sqlalchemy import URL, Engine, create_engine, event, text
from sqlalchemy.exc import IntegrityError, ProgrammingError

from infra.secrets import resolve
from infra.settings import PostgresSettings

log = structlog.get_logger()

# Where one is connected before there is a database of one's own.
MAINTENANCE = "postgres"
CONNECT_S = 10
# Who stands still in the middle of a transaction must not keep others from theirs for ever.
OPTIONS = "-c timezone=UTC -c idle_in_transaction_session_timeout=60s"


def connect(settings: PostgresSettings) -> Engine:
    """Returns an engine for the database, which is made where it is missing.

    Times come back in UTC. Errors and logs of the engine carry no parameters.

    Raises:
        SecretUnavailable: The password's reference leads nowhere.
        sqlalchemy.exc.OperationalError: The server does not answer or refuses.
    """
    _ensure(settings)
    return _engine(settings, settings.database)


def _engine(settings: PostgresSettings, database: str) -> Engine:
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
        connect_args={"connect_timeout": CONNECT_S, "options": OPTIONS},
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
