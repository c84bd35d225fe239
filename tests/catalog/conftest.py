"""The stack of the catalog's tests, and a store in a database of its own for each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import text

from catalog.store import Store
from infra.registry import Registry
from infra.settings import PostgresSettings
from infra.sql import connect
from infra.stack.local import LocalStack
from schemas.topics import TOPICS
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
    bus = Bus(stack)
    bus.make(*(topic for topic in TOPICS if not topic.family))
    registry = Registry(bus.registry_settings)
    for topic in TOPICS:
        registry.register(topic)
    return bus


@pytest.fixture
def postgres(stack: LocalStack) -> Iterator[PostgresSettings]:
    """Where PostgreSQL is, with a database that no other test has."""
    there = stack.environment()
    settings = PostgresSettings(
        host=there["POSTGRES_HOST"],
        port=int(there["POSTGRES_PORT"]),
        user=there["POSTGRES_USER"],
        password=there["POSTGRES_PASSWORD"],
        database=unique("catalog"),
    )
    yield settings
    engine = connect(settings.model_copy(update={"database": "postgres"}))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f'DROP DATABASE IF EXISTS "{settings.database}" WITH (FORCE)'))
    engine.dispose()


@pytest.fixture
def store(postgres: PostgresSettings) -> Iterator[Store]:
    """An empty store."""
    engine = connect(postgres)
    store = Store(engine)
    store.migrate()
    yield store
    engine.dispose()
