"""What the database keeps by itself, whoever writes to it, and how it came to be."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest
from sqlalchemy import inspect, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from catalog.store.store import Store
from catalog.store.tables import METADATA
from infra.bootstrap import ROOT
from infra.secrets import SecretUnavailable, resolve
from infra.settings import PostgresSettings
from infra.sql import Listener, connect
from tests.catalog.acting import ACTOR, ENDPOINT, MODEL, WEIGHTS, begun, new_key, route

pytestmark = pytest.mark.stack

SECURABLE = (
    "INSERT INTO securable (name, kind, parent, owner, created_at, created_by, position, "
    "changed_at, changed_by) VALUES ({}, 'root', now(), '', 99, now(), '')"
)
PRINCIPAL = (
    "INSERT INTO principal (name, kind, tenant, owner, created_at, created_by, position, "
    "changed_at, changed_by) VALUES ({}, 'root', now(), '', 99, now(), '')"
)


@pytest.fixture
def filled(store: Store) -> Store:
    """A store with something of everything."""
    with begun(store).change(ACTOR) as change:
        change.create("model", MODEL, owner="root")
        change.add_version("model", MODEL, WEIGHTS)
        change.update("model", MODEL, aliases={"prod": 1})
        change.create("endpoint", ENDPOINT, owner="root", spec=route(entity=f"{MODEL}@prod"))
        change.create("group", "a", owner="root", spec={"members": ["root"]})
        change.create("group", "b", owner="root", spec={"members": ["a"]})
        change.key(*new_key("root"))
    return store


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM alias",
        "DELETE FROM principal WHERE name = 'demo'",
        "DELETE FROM principal WHERE name = 'root'",
        "DELETE FROM securable WHERE name = 'main'",
        f"DELETE FROM securable WHERE name = '{MODEL}'",
        "DELETE FROM signing_key",
        "DELETE FROM version",
        "INSERT INTO clock (single, position) VALUES (false, 1)",
        "INSERT INTO clock (position) VALUES (1)",
        "INSERT INTO membership VALUES ('a', DEFAULT, 'b')",
        "INSERT INTO membership VALUES ('a', DEFAULT, 'a')",
        "INSERT INTO membership VALUES ('a', DEFAULT, 'everyone')",
        "INSERT INTO membership VALUES ('root', DEFAULT, 'demo')",
        f"INSERT INTO alias VALUES ('{MODEL}', '7', 1)",
        f"INSERT INTO alias VALUES ('{MODEL}', 'next', 2)",
        f"INSERT INTO reference VALUES ('{ENDPOINT}', NULL, '{MODEL}', 2, NULL)",
        f"INSERT INTO version VALUES ('{ENDPOINT}', 1, 'model', '{{}}', '', 9, now(), '')",
        f"INSERT INTO version VALUES ('{MODEL}', 0, 'model', '{{}}', '', 9, now(), '')",
        f"INSERT INTO privilege_grant VALUES ('{MODEL}', 'root', '{{}}', '{{}}', 9, now(), '')",
        f"INSERT INTO privilege_grant VALUES ('{MODEL}', 'root', '{{ALL}}', '{{}}', 9, now(), '')",
        PRINCIPAL.format("'a b', 'tenant', NULL"),
        PRINCIPAL.format("'x', 'group', 'demo'"),
        PRINCIPAL.format("'x', 'robot', NULL"),
        PRINCIPAL.format("'x', 'user', 'a'"),
        PRINCIPAL.format("'x', 'user', NULL"),
        SECURABLE.format("'main.default', 'catalog', '*'"),
        SECURABLE.format("'main.default.x', 'model', 'main'"),
        SECURABLE.format("'main.default.x', 'model', NULL"),
        SECURABLE.format("'main.default.x', 'thing', 'main.default'"),
        SECURABLE.format("'main.x.y', 'model', 'main.default'"),
        SECURABLE.format("'other', 'catalog', NULL"),
        SECURABLE.format("'other', 'root', NULL"),
        "UPDATE principal SET kind = 'group' WHERE name = 'demo'",
        "UPDATE principal SET owner = NULL WHERE name = 'demo'",
        "UPDATE signing_key SET expires_at = now() + interval '1 day'",
        "UPDATE signing_key SET key_id = 'other'",
        "UPDATE version SET comment = 'other'",
    ],
)
def test_the_database_refuses_what_would_break_a_rule(filled: Store, statement: str) -> None:
    with filled.engine.connect() as connection, pytest.raises(IntegrityError):
        connection.execute(text(statement.replace(":", "\\:")))


def test_a_revocation_is_not_taken_back(filled: Store) -> None:
    with filled.engine.begin() as connection:
        connection.execute(text("UPDATE signing_key SET revoked_at = now()"))
        connection.execute(text("UPDATE signing_key SET revoked_at = now() - interval '1 hour'"))
    for later in ("NULL", "now() + interval '1 hour'"):
        with filled.engine.connect() as connection, pytest.raises(IntegrityError):
            connection.execute(text(f"UPDATE signing_key SET revoked_at = {later}"))


def test_statements_and_migrations_speak_of_the_same_columns(store: Store) -> None:
    found = inspect(store.engine)
    for table in METADATA.sorted_tables:
        columns = {column["name"]: column["type"] for column in found.get_columns(table.name)}
        for column in table.columns:
            there = columns[column.name].compile(store.engine.dialect)
            assert column.type.compile(store.engine.dialect) == there, f"{table}.{column.name}"
        key = found.get_pk_constraint(table.name)["constrained_columns"]
        if key:
            assert [column.name for column in table.primary_key.columns] == key


MIGRATE = """
from catalog.store.store import Store
from infra.settings import PostgresSettings
from infra.sql import connect
Store(connect(PostgresSettings())).migrate()
"""


def test_migrating_again_and_at_the_same_time_changes_nothing(postgres: PostgresSettings) -> None:
    there = {
        f"POSTGRES_{name.upper()}": str(value) for name, value in postgres.model_dump().items()
    }
    processes = [
        subprocess.Popen([sys.executable, "-c", MIGRATE], cwd=ROOT, env={**os.environ, **there})
        for _ in range(3)
    ]
    assert [process.wait(180) for process in processes] == [0, 0, 0]
    engine = connect(postgres)
    store = begun(Store(engine))
    store.migrate()
    assert len(list(store.entries())) == 5
    engine.dispose()


def test_the_password_is_looked_up_for_each_connection_and_never_told(
    postgres: PostgresSettings, caplog: pytest.LogCaptureFixture
) -> None:
    password = resolve(postgres.password)
    caplog.set_level(logging.DEBUG)
    wrong = postgres.model_copy(update={"password": "file:/nowhere/at/all"})
    with pytest.raises(SecretUnavailable, match="/nowhere/at/all"):
        connect(wrong)
    nobody = postgres.model_copy(update={"user": "nobody"})
    with pytest.raises(OperationalError) as refused:
        connect(nobody)
    engine = connect(postgres)
    with engine.connect() as connection, pytest.raises(DBAPIError) as failed:
        connection.execute(text("SELECT nothing FROM nowhere WHERE name = :name"), {"name": "xyz"})
    said = f"{refused.value!s}{failed.value!s}{engine!r}{engine.url!r}{caplog.text}"
    assert password not in said
    assert "xyz" not in said
    engine.dispose()


def test_a_listener_hears_of_each_commit_and_of_no_rollback(store: Store) -> None:
    listener = Listener(store.engine, "outbox")
    try:
        begun(store)
        assert listener.wait(60)
        with pytest.raises(ZeroDivisionError), store.change(ACTOR) as change:
            change.update("catalog", "main", comment=str(1 // 0))
        assert not listener.wait(0.2)
    finally:
        listener.close()
