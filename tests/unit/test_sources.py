"""What follows from a captured table's name and connection, and what is lent to its connector."""

from __future__ import annotations

import doctest
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from catalog.declared.problems import Invalid
from catalog.operator import sources
from infra.connectors import database, rereading
from infra.connectors.connect import Connect, Connector, ConnectUnreachable
from infra.connectors.lent import Lent
from infra.connectors.rereading import asked, ending, is_refused, refusal, under_way
from infra.connectors.source import (
    CaptureRefused,
    Place,
    Source,
    configuration,
    name_of,
    place_of,
    reached_by,
)
from schemas.kinds import ConnectionSpec
from schemas.shapes import NAME
from schemas.tables import Capture

SEGMENTS = st.from_regex(NAME, fullmatch=True)
TABLES = st.builds(lambda *parts: ".".join(parts), SEGMENTS, SEGMENTS, SEGMENTS)
FILE = Path("/lent/tessera_x")
TABLE = "main.lab.notes"


def source(location: str = "public.notes") -> Source:
    return Source.of(TABLE, location, Capture())


def connection(**more: object) -> ConnectionSpec:
    spec = {
        "type": "postgresql",
        "url": "postgresql://db.example/shop",
        "user": "reader",
        "secret": "env:SHOP",
        **more,
    }
    return ConnectionSpec.model_validate(spec)


@given(TABLES)
def test_every_table_has_a_name_that_postgresql_keeps(table: str) -> None:
    assert re.fullmatch("tessera_[a-z0-9_]{1,55}", name_of(table))
    assert name_of(table) == name_of(table)


@given(TABLES, TABLES)
def test_no_two_tables_share_a_name(one: str, other: str) -> None:
    assert (name_of(one) == name_of(other)) == (one == other)


def test_names_that_look_alike_stay_apart() -> None:
    alike = ("main.lab.no-tes", "main.lab.no_tes", "main.lab.No_tes", "main.lab_no.tes")
    assert len({name_of(table) for table in alike}) == len(alike)


@pytest.mark.parametrize("location", ["notes", "topic:notes", "a.b.c", "public.my notes", "ö.x"])
def test_a_location_that_is_no_table_of_a_database_is_refused(location: str) -> None:
    with pytest.raises(CaptureRefused, match=r"not schema\.table"):
        source(location)


def test_a_topic_that_the_broker_would_not_take_is_refused() -> None:
    table = ".".join(["x" * 90] * 3)
    with pytest.raises(CaptureRefused, match="249 characters"):
        Source.of(table, "public.notes", Capture())


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"type": "openai"}, "of type openai"),
        ({"secret": None}, "lacks host, database, user or secret"),
        ({"url": "postgresql://db.example"}, "lacks host, database, user or secret"),
        ({"url": "postgresql://db.example:99999/shop"}, "port"),
        ({"options": {"sslmode": "prefer"}}, "goes outside with sslmode prefer"),
        ({"options": {"sslmode": "maybe"}, "private": True}, "no known sslmode"),
    ],
)
def test_a_connection_that_leads_to_no_database_safely_is_refused(
    more: dict[str, object], reason: str
) -> None:
    with pytest.raises(CaptureRefused, match=reason) as refused:
        place_of(connection(**more))
    assert refused.value.remedy


def test_outside_the_name_is_proved_by_its_certificate() -> None:
    told = configuration(source(), place_of(connection()), "1/2", FILE)
    assert (told["database.hostname"], told["database.sslmode"]) == ("db.example", "verify-full")
    assert told["database.sslfactory"].endswith("DefaultJavaSSLFactory")


def test_inside_what_is_dialled_is_the_address_that_was_judged() -> None:
    place = Place(
        host="db.internal", address="10.0.0.7", port=5432, database="s", user="u", tls="prefer"
    )
    told = configuration(source(), place, "1/2", FILE)
    assert told["database.hostname"] == "10.0.0.7"
    assert reached_by(told).address == "10.0.0.7"


def test_a_connector_is_told_where_its_password_is_and_not_what() -> None:
    told = configuration(source(), place_of(connection()), "1/2", FILE)
    assert told["database.password"] == "${file:/lent:tessera_x}"


def test_only_the_one_table_is_captured_whatever_its_name_means_as_a_pattern() -> None:
    told = configuration(source("public.no-tes"), place_of(connection()), "1/2", FILE)
    assert re.fullmatch(told["table.include.list"], "public.no-tes")
    assert not re.fullmatch(told["table.include.list"], "publicxno-tes")


def test_a_password_is_lent_to_its_owner_alone_until_it_is_taken_back(tmp_path: Path) -> None:
    folder = tmp_path / "lent"
    lent = Lent(folder)
    assert lent.lend("tessera_x", "one")
    assert not lent.lend("tessera_x", "one")
    assert lent.lend("tessera_x", "two")
    assert lent.password("tessera_x") == "two"
    assert (folder.stat().st_mode & 0o777, lent.place("tessera_x").stat().st_mode & 0o777) == (
        0o700,
        0o600,
    )
    assert list(lent.names()) == ["tessera_x"]
    lent.take_back("tessera_x")
    lent.take_back("tessera_x")
    assert lent.password("tessera_x") is None
    assert list(folder.iterdir()) == []


def test_a_slot_that_is_being_made_has_lost_nothing() -> None:
    row = {"active": True, "confirmed": None, "lag": None, "retained": None}
    assert database.slot_of({**row, "wal_status": None}).kept == "reserved"
    assert database.slot_of({**row, "wal_status": "lost"}).kept == "lost"


def test_why_a_connector_failed_is_a_kind_and_never_its_words() -> None:
    trace = (
        "org.apache.kafka.connect.errors.ConnectException: value 4111 1111 1111 1111\n"
        "\tat org.apache.kafka.connect.runtime.WorkerTask.run(WorkerTask.java:1)\n"
        "Caused by: io.debezium.DebeziumException: a row: {card=4111}\n"
    )
    failed = Connector(told={}, state="RUNNING", tasks=("FAILED",), trace=trace)
    assert failed.failed
    assert failed.cause == "DebeziumException"
    assert "4111" not in repr(failed)


def test_who_is_asked_to_read_rows_again_stays_where_it_is_and_begins_with_the_first() -> None:
    stands = {"lsn": 7, "lsn_commit": 6, "txId": 5, "incremental_snapshot_primary_key": "aced"}
    noted = asked(stands, source("public.Odd-Name"), "(id = 1)")
    assert {name: noted[name] for name in noted if name in stands} == {
        "lsn": 7,
        "lsn_commit": 6,
        "txId": 5,
    }
    assert under_way(noted)
    assert not under_way(stands)
    [table] = json.loads(noted["incremental_snapshot_collections"])
    assert table["incremental_snapshot_collections_id"] == "public.Odd-Name"
    assert table["incremental_snapshot_collections_additional_condition"] == "(id = 1)"


def scanned(request: str, status: str) -> dict[str, object]:
    return {"id": request, "type": "TABLE_SCAN_COMPLETED", "additional_data": {"status": status}}


def test_how_a_request_ended_is_what_was_told_of_it_last() -> None:
    begun: dict[str, object] = {"id": "tessera-2", "type": "IN_PROGRESS", "additional_data": None}
    notices: list[dict[str, object]] = [
        scanned("tessera-1", "SUCCEEDED"),
        begun,
        scanned("tessera-2", "SQL_EXCEPTION"),
        begun,
        scanned("tessera-2", "SUCCEEDED"),
        {"id": "tessera-2", "type": "COMPLETED", "additional_data": {}},
        begun,
    ]
    assert ending(notices[:3], 2) == "SQL_EXCEPTION"
    assert ending(notices, 2) == "SUCCEEDED"
    assert ending(notices, 3) is None


def test_why_one_request_is_refused_is_not_why_the_next_is() -> None:
    assert is_refused(refusal(12, "no such column"), 12)
    assert not is_refused(refusal(12, "no such column"), 1)
    assert not is_refused(None, 12)


@pytest.mark.parametrize("module", [database, rereading, sources])
def test_the_examples_are_true(module: ModuleType) -> None:
    outcome = doctest.testmod(module)
    assert (outcome.failed, outcome.attempted > 0) == (0, True)


def test_what_is_typed_wrong_reaches_no_topic() -> None:
    words = ["create", TABLE, "--connection", "main.lab.shop", "--table", "a.b", "--heartbeat", "1"]
    refused = CliRunner().invoke(sources.app, words)
    assert isinstance(refused.exception, Invalid)
    assert "heartbeat" in str(refused.exception.problems[0])


async def test_while_connect_starts_no_connector_counts_as_gone() -> None:
    class Starting(BaseHTTPRequestHandler):
        """Says of everything that it is not there, as Connect does before it has read its own."""

        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Starting) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        connect = Connect(f"http://127.0.0.1:{server.server_port}")
        try:
            with pytest.raises(ConnectUnreachable):
                await connect.connectors()
        finally:
            await connect.close()
            server.shutdown()
