"""The registrar as a process: commands over the bus, crashes between, secrets nowhere."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from infra.bus import Record
from infra.settings import PostgresSettings
from infra.signing import Signer, generate
from infra.sql import connect
from schemas.events import (
    AuditOutcome,
    AuditRecorded,
    CatalogWanted,
    DeadLetterCause,
    Reason,
    RecordDeadLettered,
)
from schemas.topics import (
    AUDIT_RECORDED,
    CATALOG_CHANGED,
    CATALOG_WANTED,
    DEAD_LETTERS,
    REPLY,
    TOPICS,
)
from tests.catalog.commanding import told, wanted
from tests.catalog.relaying import gone
from tests.catalog.towns import PATIENCE_S, Town, begun
from tests.harness import Bus, Process, eventually, unique

pytestmark = pytest.mark.stack


@pytest.fixture
def town(bus: Bus, postgres: PostgresSettings, tmp_path: Path) -> Town:
    return begun(bus, postgres, tmp_path)


def test_the_first_principal_owns_all_and_others_nothing(town: Town) -> None:
    with town.registrar():
        names = [each["name"] for each in town.result("list")["entries"]]
        assert names == ["main", "main.default", "operator", town.tenant]
        town.result("create", kind="user", name="alice", spec={"tenant": town.tenant})
        town.signers["alice"] = Signer(generate())
        public_key = told(town.signers["alice"])
        town.result("key-create", principal="alice", public_key=public_key)
        assert town.result("list", "alice")["entries"][0]["name"] == "alice"

        refused = town.want("create", "alice", kind="catalog", name="own")
        refusal = town.reply(refused).refusal
        assert refusal is not None
        assert refusal.reason is Reason.PRIVILEGE_MISSING

        def audits() -> list[AuditRecorded]:
            told = town.bus.events(AUDIT_RECORDED)
            return [each for each in told if each.request_id == refused.request_id]

        eventually(audits, PATIENCE_S, "the entry of the audit")
        [audit] = audits()
        assert (audit.outcome, audit.action) == (AuditOutcome.DENIED, "catalog.create")
        assert (audit.principal, audit.kind, audit.name) == ("alice", "catalog", "own")


def test_a_change_is_done_once_however_often_its_process_is_killed(town: Town) -> None:
    with town.registrar() as process:
        town.result("create", kind="prompt", name="main.default.hello")
        command = town.want("version", name="main.default.hello", spec={"template": "Hello"})
        first = town.reply(command)
        # As if it had died between the commit and the reply, or before the offset was committed.
        for _ in range(2):
            process.kill()
            answered_again(town, command, process)
        assert {each.result for each in town.heard(command)} == {first.result}
        versions = town.result("get", name="main.default.hello")["versions"]
        assert [each["number"] for each in versions] == [1]


def answered_again(town: Town, command: CatalogWanted, process: Process) -> None:
    before = len(town.heard(command))
    town.send(command, town.signers["operator"])
    process.start()
    process.ready()
    eventually(lambda: len(town.heard(command)) > before, PATIENCE_S, "the reply again")


def test_a_reply_that_was_never_sent_comes_after_the_next_start(town: Town) -> None:
    with town.registrar() as process:
        town.result("list")
        # Killed as soon as the change is committed, which may be before the reply or after it.
        command = town.want("create", kind="catalog", name="crash")
        engine = connect(town.postgres)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            asked = text("SELECT count(*) FROM command WHERE request_id = :id")
            eventually(
                lambda: connection.execute(asked, {"id": command.request_id}).scalar_one(),
                PATIENCE_S,
                "the commit",
            )
            process.kill()
        engine.dispose()
        process.start()
        process.ready()
        replied = town.reply(command)
        assert json.loads(replied.result or "")["name"] == "crash"
        eventually(lambda: "crash" in changes(town), PATIENCE_S, "the change")
        assert changes(town).count("crash") == 1


def changes(town: Town) -> list[str]:
    # A crash between a lot and the note that it was published has it published twice.
    told = {each.position: each for each in town.bus.events(CATALOG_CHANGED)}
    return [each.name for each in told.values() if each.kind == "catalog"]


def test_only_one_registrar_is_at_work(town: Town) -> None:
    with town.registrar() as first:
        log = town.folder / "second.log"
        environment = {**town.bus.environment, **town.environment}
        second = Process(["-m", "catalog"], environment, log)
        try:
            eventually(lambda: "waits for its end" in second.log(), PATIENCE_S, "the second waits")
            eventually(lambda: second.ask("/live")[0] == 200, PATIENCE_S, "that it lives")
            eventually(lambda: second.ask("/ready")[0] == 503, PATIENCE_S, "that it is not ready")
            assert first.stop() == 0
            second.ready()
            assert town.result("get", name="main")["owner"] == "operator"
        finally:
            second.kill()


def test_what_cannot_be_read_is_buried_and_the_next_command_answered(town: Town) -> None:
    with town.registrar():
        town.bus.put(CATALOG_WANTED.name, town.tenant.encode(), b"no command")
        town.bus.settle()
        assert town.result("list")["entries"]

        def buried() -> list[bytes | None]:
            letters = town.bus.events(DEAD_LETTERS)
            return [each.value for each in letters if each.processor == "catalog"]

        eventually(lambda: b"no command" in buried(), PATIENCE_S, "the dead letter")


def test_a_seed_that_cannot_be_applied_ends_the_process_with_its_place(town: Town) -> None:
    seed = Path(town.environment["CATALOG_SEED"])
    seed.write_text(f"{seed.read_text()}---\nkind: endpont\nname: main.default.x\n")
    log = town.folder / "failed.log"
    process = Process(["-m", "catalog"], {**town.bus.environment, **town.environment}, log)
    assert process.child.wait(PATIENCE_S) == 1
    assert f"{seed}:16:1: kind: there is no kind endpont; did you mean endpoint?" in process.log()


def test_a_secrets_value_is_nowhere(town: Town) -> None:
    secret = unique("s3cr3t-value")
    spec = {"type": "openai", "url": "https://models.invalid/v1", "secret": "env:OUTSIDE_KEY"}
    with town.registrar(OUTSIDE_KEY=secret):
        town.result("create", kind="connection", name="main.default.outside", spec=spec)
        exported = town.run("export", OUTSIDE_KEY=secret)
        assert "env:OUTSIDE_KEY" in exported.stdout
        places = {
            "database": dump(town.postgres),
            "export": exported.stdout.encode() + exported.stderr.encode(),
            "logs": b"".join(path.read_bytes() for path in town.folder.glob("*.log")),
            "topics": b"".join(raw(each) for each in everything(town)),
        }
    private = town.key.read_bytes().splitlines()[1]
    for place, content in places.items():
        assert content, place
        assert secret.encode() not in content, place
        assert private not in content, place


def test_a_secret_that_a_command_may_not_hold_leaves_no_trace(town: Town) -> None:
    secret, url = unique("sk-REALSECRET"), "https://models.invalid/v1"
    name = "main.default.outside"
    spec = {"type": "openai", "url": url, "secret": "env:OUTSIDE_KEY"}
    wrong = [
        {**spec, "secret": secret},
        {**spec, "secret": f"nostore:{secret}"},
        {**spec, "url": f"postgresql://bob:{secret}@db/x"},
        {**spec, "password": secret},
    ]
    with town.registrar():
        town.result("create", kind="connection", name=name, spec=spec)
        town.result("create", kind="prompt", name="main.default.hello")
        for each in wrong:
            said = json.dumps(each)
            for words in (("create", "connection", f"{name}2"), ("update", name)):
                refused = town.run("catalog", *words, "--spec", said)
                assert refused.returncode == 1
                assert "spec." in refused.stderr
                assert secret not in refused.stdout + refused.stderr
        said = json.dumps({"template": "hello", "secret": secret})
        refused = town.run("catalog", "version", "add", "main.default.hello", "--spec", said)
        assert "spec.secret: there is no field secret" in refused.stderr
        assert secret.encode() not in dump(town.postgres)
        assert secret.encode() not in b"".join(raw(each) for each in everything(town))


def everything(town: Town) -> list[Record]:
    names = [topic.name for topic in TOPICS if not topic.family]
    return [each for name in [*names, town.replies.name] for each in town.bus.records(name)]


def raw(record: Record) -> bytes:
    return b"".join(
        [record.key or b"", record.value or b"", *(b or b"" for _, b in record.headers)]
    )


def dump(postgres: PostgresSettings) -> bytes:
    """Returns all rows of all tables as text."""
    engine = connect(postgres)
    with engine.connect() as connection:
        tables = connection.execute(
            text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        ).scalars()
        rows = [
            str(connection.execute(text(f'SELECT t::text FROM "{table}" t')).scalars().all())
            for table in tables.all()
        ]
    engine.dispose()
    return "".join(rows).encode()


def test_a_surprise_is_buried_and_told_and_the_next_command_answered(town: Town) -> None:
    with town.registrar():
        town.result("list")
        rename(town.postgres, "command", "command_away")
        command = town.want("create", kind="catalog", name="surprise")
        refusal = town.reply(command).refusal
        assert refusal is not None
        assert refusal.reason is Reason.PROVIDER_FAILED
        assert "nothing of it was done" in refusal.message

        def letters() -> list[RecordDeadLettered]:
            told, asked = town.bus.events(DEAD_LETTERS), command.request_id.encode()
            return [each for each in told if asked in (each.value or b"")]

        eventually(letters, PATIENCE_S, "the dead letter")
        [letter] = letters()
        assert (letter.processor, letter.cause) == ("catalog", DeadLetterCause.STEP_FAILED)
        rename(town.postgres, "command_away", "command")
        assert town.result("create", kind="catalog", name="surprise")["owner"] == "operator"


def rename(postgres: PostgresSettings, before: str, after: str) -> None:
    engine = connect(postgres)
    with engine.begin() as connection:
        connection.execute(text(f"ALTER TABLE {before} RENAME TO {after}"))
    engine.dispose()


def test_without_its_database_the_process_ends_and_starts_anew(town: Town) -> None:
    with town.registrar() as process:
        town.result("list")
        engine = connect(town.postgres.model_copy(update={"database": "postgres"}))
        ended = text(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :database"
        )
        with engine.begin() as connection:
            connection.execute(ended, {"database": town.postgres.database})
        engine.dispose()
        assert process.child.wait(PATIENCE_S) != 0
        process.start()
        process.ready()
        assert town.result("create", kind="catalog", name="later")["owner"] == "operator"


def test_a_reply_that_nobody_can_hear_holds_nothing_up(town: Town) -> None:
    with town.registrar():
        deaf = unique("deaf")
        town.result("create", kind="tenant", name=deaf)
        town.result("create", kind="user", name=f"{deaf}-ann", spec={"tenant": deaf})
        signer = Signer(generate())
        town.result("key-create", principal=f"{deaf}-ann", public_key=told(signer))

        def is_published() -> bool:
            return any(each.name == deaf for each in town.bus.events(CATALOG_CHANGED))

        # Its topics are made, and waited for, before it is published.
        eventually(is_published, PATIENCE_S, "the tenant")
        gone(town.bus, REPLY.member(deaf))
        town.send(wanted("list", "", deaf), signer)
        town.send(replace(wanted("list", "", deaf), request_id="x" * 2000), signer)
        assert town.result("list")["entries"]


def test_what_was_changed_is_published_before_the_process_ends(town: Town) -> None:
    with town.registrar() as process:
        documents = [{"kind": "catalog", "name": f"c{number}"} for number in range(500)]
        town.reply(town.want("apply", documents=documents))
        assert process.stop() == 0
        # Nobody publishes any more; what was committed last can be read a moment later.
        eventually(lambda: len(changes(town)) == 501, PATIENCE_S, "all that was changed")


def test_no_unsigned_command_ends_the_process(town: Town) -> None:
    with town.registrar():
        half = replace(wanted("list", "", town.tenant), body='{"name": "\\ud800"}')
        town.send(half, None)
        refusal = town.reply(half).refusal
        assert refusal is not None
        assert refusal.reason is Reason.SIGNATURE_MISSING
        town.send(replace(half, request_id="\u6771" * 100), None)
        assert town.result("list")["entries"]
