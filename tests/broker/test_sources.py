"""Change capture for real: PostgreSQL, Debezium in Kafka Connect, and the watch over both."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import ConfigResource, ResourceType

from infra.connectors.source import name_of
from infra.stack.local import LocalStack
from schemas.events import SourceState
from schemas.topics import captured
from tests.broker.capturing import PASSWORD, SOON_S, USER, Change, Town
from tests.conftest import CATALOG
from tests.harness import Bus, Process, eventually, running
from tests.seed import seed

pytestmark = pytest.mark.stack

DOCS = "public.docs"
COMMAND = ["-m", "workers", "sources"]
BROKEN = (SourceState.DEGRADED, SourceState.FAILED)
LOST = ("deleted", "gone", "published", "replaced", "slotted")
# Rows are written while there is no slot that would have seen them.
AGAIN = (
    "pg_drop_replication_slot(slot_name), "
    "pg_logical_emit_message(false, 'missed', repeat('x', 1000), true), "
    "pg_create_logical_replication_slot(slot_name, 'pgoutput')"
)
LARGE = secrets.token_hex(10_000)


@pytest.fixture(scope="module")
def town(full_stack: LocalStack, tmp_path_factory: pytest.TempPathFactory) -> Town:
    bus = Bus(full_stack)
    seed(bus, CATALOG)
    town = Town(full_stack, bus, tmp_path_factory.mktemp("sources"))
    town.connection("main.tests.shop")
    town.runs(
        "CREATE TABLE docs (tenant text, id int, title text, body text, price numeric(10, 2),"
        " made date, PRIMARY KEY (tenant, id))",
        "INSERT INTO docs VALUES ('tä\"n/t', 1, 'one', 'ÿ', 1.50, '2024-02-29'),"
        " ('z', 2, 'two', 'b', null, null)",
        "CREATE TABLE plain (id int PRIMARY KEY)",
        "CREATE TABLE loose (id int)",
        "CREATE TABLE noise (id serial, said text)",
        *(f"CREATE TABLE {name} (id int PRIMARY KEY)" for name in LOST),
    )
    return town


@pytest.fixture(scope="module")
def watch(town: Town) -> Iterator[Process]:
    with running(
        town.bus,
        COMMAND,
        town.folder,
        SOURCES_EVERY_MS="500",
        SOURCES_TELL_MS="1000",
        WRONG_WORD="not the password",
    ) as process:
        yield process


@pytest.fixture(scope="module")
def docs(town: Town, watch: Process) -> str:
    """The captured table of most tests; those that lose theirs begin beside it."""
    table = town.table("docs", DOCS)
    for name in LOST:
        town.table(name, f"public.{name}")
    town.stands(table, SourceState.STREAMING)
    return table


def test_rows_that_are_there_arrive_under_their_keys(town: Town, docs: str) -> None:
    # A connector that is started anew may tell once more what it told.
    found = town.arrive(docs, DOCS, lambda changes: len({str(each.key) for each in changes}) >= 2)
    assert {change.op for change in found} == {"r"}
    rows = {(each.key["tenant"], each.key["id"]): each.after for each in found if each.key}
    assert set(rows) == {('tä"n/t', 1), ("z", 2)}
    assert rows['tä"n/t', 1]["body"] == "ÿ"
    assert (rows['tä"n/t', 1]["price"], rows['tä"n/t', 1]["made"]) == ("1.50", "2024-02-29Z")


def test_a_large_value_that_did_not_change_comes_with_a_change_beside_it(
    town: Town, docs: str
) -> None:
    town.runs(
        f"INSERT INTO docs VALUES ('z', 3, 'large', '{LARGE}')",
        "UPDATE docs SET title = 'still large' WHERE id = 3",
    )
    found = town.arrive(docs, DOCS, lambda changes: "u" in [each.op for each in changes])
    [updated] = [change for change in found if change.op == "u"]
    assert (updated.after["title"], updated.after["body"]) == ("still large", LARGE)


def test_a_changed_key_is_a_delete_and_a_row(town: Town, docs: str) -> None:
    town.runs("INSERT INTO docs VALUES ('key', 4, 'moves')", "UPDATE docs SET id = 5 WHERE id = 4")
    old, key = {"tenant": "key", "id": 4}, {"tenant": "key", "id": 5}

    def both(changes: list[Change]) -> bool:
        """They may lie on two partitions, in no order to each other."""
        keys = [each.key for each in changes]
        return key in keys and keys.count(old) >= 3

    found = town.arrive(docs, DOCS, both)
    assert [each.op for each in found if each.key == old] == ["c", "d", ""]
    [new] = [each for each in found if each.key == key]
    assert (new.op, new.after["title"]) == ("c", "moves")


def test_columns_that_come_go_and_change_are_in_the_next_row(town: Town, docs: str) -> None:
    town.runs(
        "ALTER TABLE docs ADD COLUMN stars int DEFAULT 7",
        "ALTER TABLE docs RENAME COLUMN title TO headline",
        "ALTER TABLE docs ALTER COLUMN price TYPE text",
        "ALTER TABLE docs DROP COLUMN made",
        "INSERT INTO docs (tenant, id, headline, price) VALUES ('new', 6, 'shaped', 'dear')",
    )
    key = {"tenant": "new", "id": 6}
    found = town.arrive(docs, DOCS, lambda changes: key in [each.key for each in changes])
    [row] = [each.after for each in found if each.key == key]
    wanted = {"headline": "shaped", "body": None, "price": "dear", "stars": 7}
    assert row == {"tenant": "new", "id": 6, **wanted}


def test_a_truncate_is_told_and_rows_go_on_coming(town: Town, docs: str) -> None:
    town.runs("TRUNCATE docs", "INSERT INTO docs (tenant, id) VALUES ('after', 7)")
    key = {"tenant": "after", "id": 7}

    def both(changes: list[Change]) -> bool:
        """They may lie on two partitions, in no order to each other."""
        return key in [each.key for each in changes] and "t" in [each.op for each in changes]

    found = town.arrive(docs, DOCS, both)
    [emptied] = [each for each in found if each.op == "t"]
    assert emptied.key is None


def test_all_changes_are_kept_for_as_long_as_the_table_is_captured(town: Town, docs: str) -> None:
    place = ConfigResource(ResourceType.TOPIC, captured(docs, DOCS))
    settings = town.bus.admin.describe_configs([place])[place].result(30)
    assert settings["retention.ms"].value == "-1"
    assert settings["cleanup.policy"].value == "delete"


def test_what_is_written_elsewhere_holds_up_no_log(town: Town, docs: str) -> None:
    town.runs("INSERT INTO noise (said) SELECT repeat('x', 1000) FROM generate_series(1, 5000)")
    written = town.asks("SELECT pg_current_wal_lsn()::text")

    def confirmed() -> bool:
        query = "SELECT confirmed_flush_lsn >= %s::pg_lsn FROM pg_replication_slots"
        return bool(town.asks(f"{query} WHERE slot_name = %s", written, name_of(docs)))

    eventually(confirmed, what="the slot confirms what was written elsewhere")

    def told() -> bool:
        report = town.told(docs)
        query = "SELECT %s::pg_lsn >= %s::pg_lsn"
        return bool(report and town.asks(query, report.confirmed_lsn, written))

    eventually(told, what="the report of it")


def test_the_password_is_in_no_answer_topic_or_log(town: Town, docs: str, watch: Process) -> None:
    answers = str(town.connect("/connectors?expand=info&expand=status"))
    assert name_of(docs) in answers
    topics = [record.value or b"" for record in town.bus.records("connect-config")]
    logs = [path.read_bytes() for path in (town.stack.settings.home / "logs").iterdir()]
    assert any(name_of(docs).encode() in each for each in topics)
    for said in (answers.encode(), watch.log().encode(), *topics, *logs):
        assert PASSWORD.encode() not in said


@pytest.mark.parametrize(
    ("name", "then", "reason"),
    [
        ("slotted", "pg_drop_replication_slot(slot_name)", "was dropped"),
        ("replaced", AGAIN, "was made anew"),
    ],
)
def test_a_slot_lost_behind_its_back_is_never_healthy_again(
    town: Town, docs: str, name: str, then: str, reason: str
) -> None:
    table = f"main.tests.{name}"
    slot = town.stands(table, SourceState.STREAMING).slot
    noted = f"/connectors/{slot}/offsets"
    noting = "it notes how far it has read"
    eventually(lambda: town.connect(noted)["offsets"], 2 * SOON_S, noting)
    ours = ("FROM pg_replication_slots WHERE slot_name = %s AND active", (slot,))
    with town.locked() as session:
        session.execute(f"SELECT pg_terminate_backend(active_pid) {ours[0]}".encode(), ours[1])
        eventually(lambda: not session.execute(f"SELECT {ours[0]}".encode(), ours[1]).rowcount)
        session.execute(
            f"SELECT {then} FROM pg_replication_slots WHERE slot_name = %s".encode(), ours[1]
        )
    report = town.stands(table, SourceState.FAILED, of=reason)
    assert report.remedy
    assert "tessera source remove" in report.remedy

    def stopped() -> bool:
        status = town.connect(f"/connectors/{slot}/status")
        return bool(status["connector"]["state"] == "STOPPED")

    eventually(stopped, 2 * SOON_S, "the connector is stopped")


def test_a_publication_dropped_behind_its_back_is_never_healthy_again(
    town: Town, docs: str
) -> None:
    table = "main.tests.published"
    town.stands(table, SourceState.STREAMING)
    town.runs(f"DROP PUBLICATION {name_of(table)}", "INSERT INTO published VALUES (1)")
    town.stands(table, SourceState.FAILED, of="publication")


def test_a_connector_deleted_behind_its_back_is_not_begun_anew_by_itself(
    town: Town, docs: str
) -> None:
    table = "main.tests.deleted"
    name = town.stands(table, SourceState.STREAMING).connector
    town.connect(f"/connectors/{name}", "DELETE")
    town.stands(table, SourceState.FAILED, of="was deleted in Kafka Connect")
    assert name not in town.connect("/connectors")


def test_a_dropped_table_is_told_of(town: Town, docs: str) -> None:
    table = "main.tests.gone"
    town.stands(table, SourceState.STREAMING)
    town.runs("DROP TABLE gone")
    town.stands(table, *BROKEN, of="no table")


def test_a_lost_capture_begun_anew_takes_in_every_row(town: Town, docs: str) -> None:
    town.runs("INSERT INTO slotted VALUES (1), (2)")
    table = town.table("slotted", "public.slotted", capture=False)
    town.stands(table, SourceState.REMOVED)
    town.table("slotted", "public.slotted")
    town.stands(table, SourceState.STREAMING)
    found = town.arrive(
        table, "public.slotted", lambda changes: len({str(each.key) for each in changes}) >= 2
    )
    assert {(each.op, each.after["id"]) for each in found} == {("r", 1), ("r", 2)}


@pytest.mark.parametrize(
    ("name", "location", "more", "reason"),
    [
        ("unknown", "public.nowhere", {}, "there is no table public.nowhere"),
        ("keyless", "public.loose", {}, "no primary key"),
        ("wrong", "public.plain", {"secret": "env:WRONG_WORD"}, "does not take user and password"),
        ("absent", "public.plain", {"secret": "env:NO_SUCH_WORD"}, "is empty or missing"),
        ("own", "public.plain", {"secret": "env:KAFKA_BOOTSTRAP_SERVERS"}, "platform's own"),
        ("outside", "public.plain", {"private": False}, "a private network"),
        ("misplaced", "plain", {}, "not schema.table"),
    ],
)
def test_what_cannot_be_captured_says_why_and_what_to_do(  # noqa: PLR0917 - a row of the table
    town: Town, watch: Process, name: str, location: str, more: dict[str, object], reason: str
) -> None:
    town.connection(f"main.tests.to_{name}", **more)
    table = town.table(name, location, connection=f"main.tests.to_{name}")
    report = town.stands(table, SourceState.FAILED, of=reason)
    assert report.remedy
    assert name_of(table) not in town.connect("/connectors")
    town.table(name, location, capture=False)
    town.stands(table, SourceState.REMOVED)


def test_a_changed_password_is_taken_over(town: Town, docs: str) -> None:
    with town.session() as session:
        session.execute(f"ALTER ROLE {USER} PASSWORD 'another word'")
        town.password_file.write_text("another word")
        session.execute(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{USER}'"
        )
    town.runs("INSERT INTO docs (tenant, id) VALUES ('rotated', 8)")
    key = {"tenant": "rotated", "id": 8}
    town.arrive(docs, DOCS, lambda changes: key in [each.key for each in changes])
    town.stands(docs, SourceState.STREAMING)


def test_what_is_removed_while_connect_is_down_goes_once_it_is_back(town: Town, docs: str) -> None:
    town.stack.stop("connect")
    town.stands(docs, SourceState.DEGRADED, of="Kafka Connect does not answer")
    table = town.table("published", "public.published", capture=False)
    town.stands(table, SourceState.DEGRADED, of="not gone yet")
    town.stack.start("connect")
    town.stack.wait_ready(["connect"])
    town.stands(table, SourceState.REMOVED)
    town.stands(docs, SourceState.STREAMING)


def test_another_process_takes_over_and_what_is_removed_goes_once_its_database_is_back(
    town: Town, docs: str, watch: Process
) -> None:
    name = name_of(docs)
    with running(town.bus, COMMAND, town.folder, SOURCES_EVERY_MS="500"):
        watch.kill()
        town.stack.stop("postgres")
        town.stands(docs, SourceState.DEGRADED, of="its database at")
        town.table("docs", DOCS, capture=False)
        town.stands(docs, SourceState.DEGRADED, of="not gone yet")
        town.stack.start("postgres")
        town.stack.wait_ready(["postgres"])
        town.stands(docs, SourceState.REMOVED)
    assert name not in town.connect("/connectors")
    assert town.asks("SELECT 1 FROM pg_replication_slots WHERE slot_name = %s", name) is None
    assert town.asks("SELECT 1 FROM pg_publication WHERE pubname = %s", name) is None
    town.lacks_topics(docs)
    assert not (Path(town.bus.environment["CONNECT_LENT"]) / name).exists()
