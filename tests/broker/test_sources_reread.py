"""Rows of captured tables that are read again while changes flow on, by the real Debezium."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from threading import Event, Thread

import pytest

from infra.changes.folding import fold
from infra.changes.rows import Change as RowChange
from infra.changes.rows import Op, change_of
from infra.connectors.rereading import is_refused
from infra.connectors.source import name_of
from infra.registry import Plain
from infra.stack.local import LocalStack
from schemas.events import SourceReported, SourceState
from schemas.topics import captured
from tests.broker.capturing import SOON_S, Change, Row, Town
from tests.conftest import CATALOG
from tests.harness import Bus, Process, eventually, running
from tests.seed import seed

pytestmark = pytest.mark.stack

COMMAND = ["-m", "workers", "sources"]
ON = "main.tests.reread"
DOCS, ODD, BUSY = "public.docs", "public.Odd-Name", "public.busy"
# Several times what Debezium reads at once.
MANY = 3000
# What a connector was not told before rows could be read again.
ADDED = ("notification.enabled.channels", "notification.sink.topic.name", "read.only")


@pytest.fixture(scope="module")
def town(full_stack: LocalStack, tmp_path_factory: pytest.TempPathFactory) -> Town:
    bus = Bus(full_stack)
    seed(bus, CATALOG)
    town = Town(full_stack, bus, tmp_path_factory.mktemp("reread"))
    town.connection(ON)
    town.runs(
        "CREATE TABLE docs (tenant text, id text, title text, price numeric(10, 2), made date,"
        " PRIMARY KEY (tenant, id))",
        "INSERT INTO docs VALUES ('tä\"n/t', 'a?', 'it''s one', 1.50, '2024-02-29'),"
        " ('z', 'b', 'two\\', 7, '2026-05-01'), ('z', 'c', null, null, null)",
        'CREATE TABLE "Odd-Name" ("Id" int PRIMARY KEY, "the word" text)',
        """INSERT INTO "Odd-Name" VALUES (1, 'one'), (2, 'two')""",
        "CREATE TABLE busy (id int PRIMARY KEY, n int, title text)",
        f"INSERT INTO busy SELECT i, 0, repeat('t', 200) FROM generate_series(1, {MANY}) i",
    )
    return town


@pytest.fixture(scope="module")
def watch(town: Town) -> Iterator[Process]:
    with running(town.bus, COMMAND, town.folder, SOURCES_EVERY_MS="500") as process:
        for name, location in (("docs", DOCS), ("odd", ODD), ("busy", BUSY)):
            asks(town, name, location, 0)
        for name in ("docs", "odd", "busy"):
            town.stands(f"main.tests.{name}", SourceState.STREAMING)
        yield process


def asks(town: Town, name: str, location: str, request: int, where: str | None = None) -> str:
    """Captures what changes of a table, and asks for its rows; returns its full name."""
    capture = {"snapshot": "never", "heartbeat": "1s", "resnapshot": request}
    capture |= {"resnapshot_where": where} if where else {}
    table = f"main.tests.{name}"
    town.publish("table", table, {"location": location, "connection": ON, "capture": capture})
    return table


def carried_out(town: Town, table: str, request: int) -> SourceReported:
    """Returns the report that a request was carried out."""
    found: list[SourceReported] = []

    def told() -> bool:
        report = town.told(table)
        if report is not None and report.resnapshots == request:
            found.append(report)
        return bool(found)

    eventually(told, SOON_S, f"request {request} of {table} carried out, last {town.told(table)}")
    return found[0]


def read(town: Town, table: str, location: str) -> list[Row]:
    """Returns the rows that were read, in any order."""
    return [each.after for each in town.changes(table, location) if each.op == "r"]


def rows(town: Town, table: str, location: str) -> dict[str, Row]:
    """Returns a table as an index takes it from the topic, by key."""
    changes: defaultdict[str, list[RowChange]] = defaultdict(list)
    for record in town.bus.records(captured(table, location)):
        decoded = town.decoded(record)
        plain = Plain(decoded.key, decoded.value, None)
        if change := change_of(record, plain, captured=True):
            changes[str(change.key)].append(change)
    states = [fold(each, None, "")[-1][1] for each in changes.values()]
    return {str(each.key): dict(each.row) for each in states if each.op is Op.UPSERT}


def test_rows_that_the_capture_never_saw_come_in_once(town: Town, watch: Process) -> None:
    table = asks(town, "docs", DOCS, 1)
    assert carried_out(town, table, 1).state is SourceState.STREAMING
    found = {(row["tenant"], row["id"]): row["title"] for row in read(town, table, DOCS)}
    assert found == {('tä"n/t', "a?"): "it's one", ("z", "b"): "two\\", ("z", "c"): None}
    # It is looked at over and over meanwhile.
    town.runs("INSERT INTO docs (tenant, id) VALUES ('z', 'd')", "UPDATE docs SET price = 2")
    changes = town.arrive(
        table, DOCS, lambda changes: [each.op for each in changes].count("u") == 4
    )
    assert [each.op for each in changes].count("r") == 3


@pytest.mark.parametrize(
    ("request_number", "where", "wanted"),
    [
        (2, "id = 'a?' OR title = 'two\\' OR title LIKE 'no''%'", ["a?", "b"]),
        (3, "made >= '2026-01-01' AND price <= 7.5 AND title IS NOT NULL", ["b"]),
        (4, "tenant = 'nobody'", []),
    ],
)
def test_a_condition_picks_the_rows(
    town: Town, watch: Process, request_number: int, where: str, wanted: list[str]
) -> None:
    before = read(town, "main.tests.docs", DOCS)
    table = asks(town, "docs", DOCS, request_number, where)
    carried_out(town, table, request_number)
    found = [row["id"] for row in read(town, table, DOCS)]
    for row in before:
        found.remove(row["id"])
    assert sorted(found) == wanted


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("id = 'b'; DROP TABLE docs", "at character 9"),
        ("pg_sleep(9) IS NULL", "functions are not known"),
        ("nothing = 'b'", 'no column "nothing"'),
        ("made > 'soon'", '"made" is a date'),
        ("price LIKE '7%'", "LIKE is for text"),
        ("price > 12345678901234567891", "beyond 2 to the 53rd"),
        ("made < '2026-05-01T12:00:00Z'", "a time of day"),
    ],
)
def test_a_condition_that_is_none_says_why_and_changes_flow_on(
    town: Town, watch: Process, where: str, reason: str
) -> None:
    table = asks(town, "docs", DOCS, 5, where)
    report = town.stands(table, SourceState.STREAMING, of=reason)
    assert is_refused(report.reason, 5)
    assert "AND, OR and NOT" in (report.remedy or "")
    assert report.resnapshots == 4


def test_what_was_refused_is_forgotten_once_it_is_asked_rightly(town: Town, watch: Process) -> None:
    table = asks(town, "docs", DOCS, 6, "id = 'b'")
    report = carried_out(town, table, 6)
    assert (report.state, report.remedy) == (SourceState.STREAMING, None)


def test_a_table_and_columns_of_odd_names_are_read_again(town: Town, watch: Process) -> None:
    table = asks(town, "odd", ODD, 1, """"the word" = 'two' AND "Id" > 1""")
    carried_out(town, table, 1)
    assert read(town, table, ODD) == [{"Id": 2, "the_word": "two"}]


def test_of_a_row_that_is_written_meanwhile_the_newest_holds(town: Town, watch: Process) -> None:
    table, written, enough = "main.tests.busy", 0, Event()

    def write() -> None:
        nonlocal written
        chosen = random.Random(7)
        with town.session() as session:
            while not enough.is_set():
                row = chosen.randrange(1, MANY + 1)
                session.execute("UPDATE busy SET n = n + 1 WHERE id = %s", (row,))
                written += 1
                # A busy table, and not all that two cores can write.
                enough.wait(0.002)

    writer = Thread(target=write)
    writer.start()
    try:
        eventually(lambda: written > 200, what="the table is written to")
        for request in (1, 2, 3):
            asks(town, "busy", BUSY, request)
            carried_out(town, table, request)
    finally:
        enough.set()
        writer.join()
    assert len(read(town, table, BUSY)) > MANY

    def updates(changes: list[Change]) -> set[tuple[int, int]]:
        # One that is stopped in the middle may tell once more what it told last.
        return {(each.after["id"], each.after["n"]) for each in changes if each.op == "u"}

    town.arrive(table, BUSY, lambda changes: len(updates(changes)) == written)
    with town.session() as session:
        held = dict(session.execute("SELECT id, n FROM busy").fetchall())
    assert {row["id"]: row["n"] for row in rows(town, table, BUSY).values()} == held


def test_rows_that_the_database_did_not_give_are_asked_for_again(
    town: Town, watch: Process
) -> None:
    table, before = "main.tests.busy", len(read(town, "main.tests.busy", BUSY))
    waits = (
        "FROM pg_stat_activity WHERE application_name ~* 'debezium' AND wait_event_type = 'Lock'"
        " AND query ~ 'busy'"
    )
    with town.session() as session, session.transaction():
        session.execute("LOCK TABLE busy")
        asks(town, "busy", BUSY, 4)
        ends = f"SELECT pg_terminate_backend(pid) {waits}"
        eventually(lambda: town.asks(ends), SOON_S, "the end of a session that waits for its rows")
    carried_out(town, table, 4)
    assert len(read(town, table, BUSY)) >= before + MANY


def test_what_is_asked_while_the_connector_stands_stopped_is_carried_out(
    town: Town, watch: Process
) -> None:
    """As whoever asks leaves it where it ends before it is through."""
    table, before = "main.tests.odd", len(read(town, "main.tests.odd", ODD))
    town.connect(f"/connectors/{name_of(table)}/stop", "PUT")
    asks(town, "odd", ODD, 2)
    carried_out(town, table, 2)
    town.stands(table, SourceState.STREAMING)
    assert len(read(town, table, ODD)) == before + 2


def test_a_connector_of_before_learns_to_read_again_and_keeps_its_place(
    town: Town, watch: Process
) -> None:
    table = "main.tests.odd"
    before = len(read(town, table, ODD))
    place = f"/connectors/{name_of(table)}/config"
    told = town.connect(place)
    town.connect(place, "PUT", {name: told[name] for name in told if name not in ADDED})
    town.runs("""INSERT INTO "Odd-Name" VALUES (3, 'three')""")
    eventually(lambda: town.connect(place) == told, 2 * SOON_S, "it is told what it lacks")
    town.runs("""INSERT INTO "Odd-Name" VALUES (4, 'four')""")

    def made(changes: list[Change]) -> set[int]:
        # By partition, and one that is started anew may tell once more what it told last.
        return {each.after["Id"] for each in changes if each.op == "c"}

    town.arrive(table, ODD, lambda changes: made(changes) >= {3, 4})
    assert len(read(town, table, ODD)) == before


def test_another_process_asks_for_nothing_that_was_carried_out(town: Town, watch: Process) -> None:
    table, before = "main.tests.odd", len(read(town, "main.tests.odd", ODD))
    with running(town.bus, COMMAND, town.folder, SOURCES_EVERY_MS="500"):
        watch.kill()
        asks(town, "odd", ODD, 3, '"Id" = 4')
        carried_out(town, table, 3)
    assert len(read(town, table, ODD)) == before + 1


def test_a_capture_that_goes_takes_along_what_its_connector_told(town: Town) -> None:
    with running(town.bus, COMMAND, town.folder, SOURCES_EVERY_MS="500"):
        table = town.table("odd", ODD, connection=ON, capture=False)
        report = town.stands(table, SourceState.REMOVED)
    assert report.resnapshots == 0
    town.lacks_topics(table)
