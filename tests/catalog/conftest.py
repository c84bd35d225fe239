"""The stack of the catalog's tests, and a store in a database of its own for each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import text

from catalog.store.store import Store
from infra.settings import PostgresSettings
from infra.sql import connect
from infra.stack.local import LocalStack
from tests.catalog.towns import bare
from tests.conftest import running
from tests.harness import Bus, unique


@pytest.fixture(scope="session")
def stack() -> Iterator[LocalStack]:
    """Kafka, the schema registry and PostgreSQL."""
    with running(["kafka", "postgres", "registry"]) as stack:
        yield stack


@pytest.fixture(scope="session")
def bus(stack: LocalStack) -> Bus:
    """The broker and the registry with what every process needs, without a tenant or a pool."""
    return bare(stack)


@pytest.fixture(scope="session")
def template(stack: LocalStack) -> PostgresSettings:
    """A database that is up to date and empty, for others to be copied from."""
    settings = place(stack, unique("template"))
    engine = connect(settings)
    Store(engine).migrate()
    engine.dispose()
    return settings


@pytest.fixture
def postgres(stack: LocalStack) -> Iterator[PostgresSettings]:
    """Where PostgreSQL is, and a database there that is yet to be made and only this test's."""
    settings = place(stack, unique("catalog"))
    yield settings
    command(stack, f'DROP DATABASE IF EXISTS "{settings.database}" WITH (FORCE)')


@pytest.fixture
def store(
    stack: LocalStack, template: PostgresSettings, postgres: PostgresSettings
) -> Iterator[Store]:
    """An empty store."""
    command(stack, f'CREATE DATABASE "{postgres.database}" TEMPLATE "{template.database}"')
    engine = connect(postgres)
    yield Store(engine)
    engine.dispose()


def place(stack: LocalStack, database: str) -> PostgresSettings:
    """Returns where a database of the stack is."""
    there = stack.environment()
    return PostgresSettings(
        host=there["POSTGRES_HOST"],
        port=int(there["POSTGRES_PORT"]),
        user=there["POSTGRES_USER"],
        password=there["POSTGRES_PASSWORD"],
        database=database,
    )


def command(stack: LocalStack, statement: str) -> None:
    """Carries out what no transaction may hold."""
    engine = connect(place(stack, "postgres"))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(statement))
    engine.dispose()
