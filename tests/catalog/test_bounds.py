"""What is too much: where it ends, and that it never ends the registrar."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError

from catalog.registrar.registrar import broken
from catalog.store.refusals import CatalogRefused
from catalog.store.store import Store
from infra.settings import PostgresSettings
from infra.sql import connect
from schemas.events import Reason
from tests.catalog.acting import ACTOR, MODEL, WEIGHTS, begun
from tests.catalog.commanding import CODEC, Office, wanted

pytestmark = pytest.mark.stack


@pytest.fixture
def office(store: Store) -> Office:
    return Office(store)


def test_what_a_statement_asks_too_much_is_not_the_databases_fault(store: Store) -> None:
    many = {f"p{each}": each for each in range(70_000)}
    listed = ",".join(f":{each}" for each in many)
    with store.engine.connect() as connection, pytest.raises(OperationalError) as failed:
        connection.execute(text(f"SELECT 1 WHERE 1 IN ({listed})"), many)
    assert not broken(failed.value)
    with store.engine.begin() as connection:
        connection.execute(text("CREATE TABLE narrow (name text PRIMARY KEY)"))
    wide = text(
        "INSERT INTO narrow SELECT string_agg(md5(n::text), '') FROM generate_series(1,999) n"
    )
    with store.engine.connect() as connection, pytest.raises(OperationalError) as failed:
        connection.execute(wide)
    assert not broken(failed.value)


def test_a_connection_that_ends_or_never_was_is_the_databases_fault(
    store: Store, postgres: PostgresSettings
) -> None:
    ended = text("SELECT pg_terminate_backend(pg_backend_pid())")
    with store.engine.connect() as connection, pytest.raises(DBAPIError) as failed:
        connection.execute(ended)
    assert broken(failed.value)
    with pytest.raises(OperationalError) as refused:
        connect(postgres.model_copy(update={"port": 1}))
    assert broken(refused.value)
    assert not broken(ValueError())


def test_of_names_however_long_an_audit_tells_the_beginning(office: Office) -> None:
    command = wanted("list", "x" * 1_000_000, "y" * 1_000_000)
    [unheard] = office.carried_out(command, office.signers["root"])
    assert len(CODEC.encode(unheard.event)) < 100_000


def test_an_endpoint_and_a_tenant_have_few_topics(office: Office) -> None:
    routes = [{"name": f"r{each}", "pool": f"p{each}", "model": "m"} for each in range(17)]
    many = office.ask("create", kind="endpoint", name="main.default.chat", spec={"routes": routes})
    assert many.reason is Reason.REQUEST_INVALID
    assert office.ask(
        "create", kind="endpoint", name="main.default.chat", spec={"routes": routes[1:]}
    ).result
    replies = [f"r{each}" for each in range(17)]
    heard = office.ask("create", kind="tenant", name="loud", spec={"replies": replies})
    assert heard.reason is Reason.REQUEST_INVALID


def test_aliases_and_members_may_be_more_than_a_statement_has_parameters(store: Store) -> None:
    begun(store)
    aliases = {f"a{each}": 1 for each in range(22_000)}
    with store.change(ACTOR) as change:
        change.create("model", MODEL, owner="root")
        change.add_version("model", MODEL, WEIGHTS)
        change.update("model", MODEL, aliases=aliases)
        change.update("model", MODEL, aliases={**aliases, "more": 1})
        change.create("group", "many", owner="root")
    members = [f"m{each}" for each in range(66_000)]
    with pytest.raises(CatalogRefused) as refused, store.change(ACTOR) as change:
        change.update("group", "many", spec={"members": members})
    assert refused.value.reason is Reason.NOT_FOUND
