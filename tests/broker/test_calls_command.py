"""``tessera calls``: what a person sees and settles, in the journal of a real PostgreSQL."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from infra.audit import Question, ask, told
from infra.bootstrap import ROOT
from infra.bus import PublishFailed
from infra.lake import EventTable, Row
from infra.signing import Signer, generate
from infra.stack.local import LocalStack
from infra.telemetry import now
from schemas.agents import run_id
from schemas.events import AuditOutcome, AuditRecorded
from schemas.kinds import Key
from schemas.topics import AUDIT_RECORDED
from tests.broker.test_tools_journal import call, where
from tests.broker.tooling import tools_bus, tools_stack
from tests.harness import PATIENCE_S, Bus, unique
from tests.seed import changed, publish
from workers.tools.journal import SETTLE, Entry, Journal, State, open_journal
from workers.tools.sessions import Sessions
from workers.tools.settling import Person, Tell, Unclear, main, settle

__all__ = ["tools_bus", "tools_stack"]

pytestmark = pytest.mark.stack

TOLD = '{"error": {"kind": "unsettled", "message": "a person must look"}}'


@pytest.fixture(scope="module")
def database() -> str:
    return unique("calls").replace("-", "_")


@pytest.fixture(autouse=True)
def surroundings(
    tools_stack: LocalStack, tools_bus: Bus, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres = where(tools_stack)
    variables = {
        "CLIENT_KEY": "",
        "CLIENT_PRINCIPAL": "olga",
        "CLIENT_TENANT": "acme",
        "KAFKA_BOOTSTRAP_SERVERS": tools_bus.environment["KAFKA_BOOTSTRAP_SERVERS"],
        "POSTGRES_PASSWORD": postgres.password,
        "POSTGRES_PORT": str(postgres.port),
        "REGISTRY_URL": tools_bus.environment["REGISTRY_URL"],
        "TOOLS_DATABASE": database,
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def left(stack: LocalStack, database: str, *, lost: bool = False) -> str:
    """Leaves a call to a person: unsettled, or lost with everybody who waited."""
    wanted = call(run_id(uuid4().hex, "acme"))

    async def leave() -> None:
        journal = await open_journal(where(stack), database)
        await journal.begin(wanted, "reconcile", timedelta(0) if lost else timedelta(hours=1))
        if not lost:
            await journal.finish(wanted.call_id, 1, TOLD, State.UNSETTLED)
        await journal.close()

    asyncio.run(leave())
    return wanted.call_id


def entry(stack: LocalStack, database: str, call_id: str) -> Entry:
    async def look() -> Entry:
        journal = await open_journal(where(stack), database)
        found = await journal.look([call_id])
        await journal.close()
        return found[call_id]

    return asyncio.run(look())


def audited(bus: Bus, call_id: str) -> list[AuditRecorded]:
    """Returns what the log has of who settled a call, in its order."""
    request = call_id.removesuffix("//acme")
    found = [each for each in bus.events(AUDIT_RECORDED) if each.request_id == request]
    return sorted(found, key=lambda each: each.at)


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    """Returns what the command says: on its output, or of what went wrong."""
    assert main(words) == code
    out, err = capsys.readouterr()
    return err if code else out


def test_nothing_waits_until_something_does(
    tools_stack: LocalStack, database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(capsys, "list") == "nothing waits for a person\n"
    assert json.loads(said(capsys, "list", "--json")) == []
    unsettled, lost = left(tools_stack, database), left(tools_stack, database, lost=True)
    listed = said(capsys, "list")
    for call_id in (unsettled, lost):
        assert f"{call_id}  main.tools.pay@3\n    tenant acme  principal ann  begun 20" in listed
    found = json.loads(said(capsys, "list", "--json"))
    assert [each["call_id"] for each in found] == [unsettled, lost]
    assert found[0]["attempt"] == 1


SETTLED: dict[tuple[str, ...], tuple[State, object]] = {
    ("--result", '{"id": 7}'): (State.DONE, {"result": {"id": 7}}),
    ("--result", "null"): (State.DONE, {"result": None}),
    ("--failed", "no stock"): (
        State.DONE,
        {"error": {"kind": "raised", "message": "no stock"}},
    ),
    ("--again",): (State.OPEN, None),
}


@pytest.mark.parametrize("words", SETTLED)
@pytest.mark.parametrize("lost", [False, True])
def test_what_a_person_says_is_what_the_call_comes_to(
    words: tuple[str, ...],
    lost: bool,
    tools_stack: LocalStack,
    database: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    call_id = left(tools_stack, database, lost=lost)
    assert said(capsys, "settle", call_id, *words).startswith("settled: ")
    found = entry(tools_stack, database, call_id)
    outcome = None if found.outcome is None else json.loads(found.outcome)
    assert (found.state, outcome) == SETTLED[words]
    again = said(capsys, "settle", call_id, *words, code=1)
    assert f"no call {call_id} waits for a person; see: tessera calls list" in again
    assert call_id not in said(capsys, "list")


def test_what_is_settled_is_told_to_programs(
    tools_stack: LocalStack, database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    call_id = left(tools_stack, database)
    told = json.loads(said(capsys, "settle", call_id, "--again", "--json"))
    assert told == {"call_id": call_id, "again": True}


@pytest.mark.parametrize("words", SETTLED)
def test_the_audit_says_who_settled_a_call_and_how_and_never_what_it_came_to(
    words: tuple[str, ...],
    *,
    tools_stack: LocalStack,
    tools_bus: Bus,
    database: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    call_id = left(tools_stack, database)
    said(capsys, "settle", call_id, *words)
    said(capsys, "settle", call_id, *words, code=1)
    about, done = audited(tools_bus, call_id)
    how = words[0].removeprefix("--")
    for each, outcome in ((about, AuditOutcome.UNKNOWN), (done, AuditOutcome.DONE)):
        assert (each.principal, each.tenant, each.key_id) == ("olga", "acme", None)
        assert (each.outcome, each.reason) == (outcome, how)
        assert "no stock" not in str(each)
    table = EventTable.of(tmp_path, "audits", group="recorder")
    table.append([Row(each, "audits", 0, at) for at, each in enumerate((about, done))])
    asked = Question(who="olga", what="call.settled", on="main.tools.pay", outcome="done")
    [row] = ask(tmp_path, asked).to_pylist()
    line, cause = told(row)
    assert line.endswith(f"  olga  call.settled  function main.tools.pay@3  DONE: {how}")
    assert cause == f"    request {call_id.removesuffix('//acme')}"


@pytest.mark.parametrize("known", [False, True])
def test_whoever_names_nobody_is_whom_the_catalog_knows_the_key_of(
    known: bool,
    *,
    tools_stack: LocalStack,
    tools_bus: Bus,
    database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pem = tmp_path / "key.pem"
    pem.write_text(generate())
    signer = Signer(pem.read_text())
    if known:
        public = base64.b64encode(signer.public_key).decode()
        key = Key(principal="kim", public_key=public, not_before=now())
        publish(tools_bus, changed("key", signer.key_id, key))
    monkeypatch.setenv("CLIENT_KEY", f"file:{pem}")
    monkeypatch.setenv("CLIENT_PRINCIPAL", "")
    call_id = left(tools_stack, database)
    said(capsys, "settle", call_id, "--again")
    who = {(each.principal, each.key_id) for each in audited(tools_bus, call_id)}
    assert who == {("kim" if known else "", signer.key_id)}


MISSING: dict[str, tuple[str, str]] = {
    "CLIENT_KEY": ("env:NOWHERE", "env:NOWHERE"),
    "KAFKA_BOOTSTRAP_SERVERS": ("127.0.0.1:9", "try: tessera status"),
    "REGISTRY_URL": ("http://127.0.0.1:9", "try: tessera status"),
}


@pytest.mark.parametrize("variable", MISSING)
def test_nothing_is_settled_that_the_audit_cannot_be_told_of(
    variable: str,
    tools_stack: LocalStack,
    database: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    call_id = left(tools_stack, database)
    value, words = MISSING[variable]
    monkeypatch.setenv(variable, value)
    monkeypatch.setattr("infra.bus.TRANSFER_S", 1.0)
    assert words in said(capsys, "settle", call_id, "--again", code=1)
    assert entry(tools_stack, database, call_id).state is State.UNSETTLED


PERSON = Person(principal="olga", tenant="acme", key_id=None)


async def settling(
    stack: LocalStack, database: str, call_id: str, tell: Tell, journal: Journal | None = None
) -> None:
    """Settles a call, and has what the audit is told go elsewhere."""
    journal = journal or await open_journal(where(stack), database)
    try:
        await settle(journal, call_id, None, PERSON, tell)
    finally:
        await journal.close()


def test_of_two_persons_the_slower_one_is_told_so_and_the_audit_too(
    tools_stack: LocalStack, database: str
) -> None:
    call_id = left(tools_stack, database)
    heard: list[AuditRecorded] = []

    async def tell(recorded: AuditRecorded) -> None:
        heard.append(recorded)
        if len(heard) == 1:
            # The other person comes while this one's intent is on its way.
            await settling(tools_stack, database, call_id, tell)

    with pytest.raises(Unclear, match="waits for a person no more"):
        asyncio.run(settling(tools_stack, database, call_id, tell))
    assert [each.outcome for each in heard] == [
        *(AuditOutcome.UNKNOWN, AuditOutcome.UNKNOWN, AuditOutcome.DONE, AuditOutcome.FAILED)
    ]
    assert heard[-1].reason == "again: it waits for a person no more"
    assert len({each.audit_id for each in heard}) == len(heard)


class Breaking(Sessions):
    """Sessions of which the one that settles is lost once the database has done it.

    Args:
        stack: Where it is.
        database: Its name.
        then: What happens before it is asked again.
    """

    def __init__(self, stack: LocalStack, database: str, then: Callable[[], Awaitable[object]]):
        super().__init__(where(stack), database)
        self._then = then
        self.lost = 0

    async def _asked(self, query: str, values: Mapping[str, object] | None) -> list[dict[str, Any]]:
        found = await super()._asked(query, values)
        if query == SETTLE and not self.lost:
            self.lost += 1
            await self._then()
            raise psycopg.OperationalError
        return found


@pytest.mark.parametrize("begun_again", [False, True])
def test_what_took_effect_before_its_session_was_lost_is_never_said_to_have_failed(
    begun_again: bool, tools_stack: LocalStack, database: str
) -> None:
    call_id = left(tools_stack, database)
    heard: list[AuditOutcome] = []

    async def tell(recorded: AuditRecorded) -> None:
        heard.append(recorded.outcome)

    async def then() -> None:
        if begun_again:
            other = await open_journal(where(tools_stack), database)
            await other.begin(call(call_id), "reconcile", timedelta(hours=1))
            await other.close()

    async def settled() -> int:
        sessions = Breaking(tools_stack, database, then)
        await settling(tools_stack, database, call_id, tell, Journal(sessions))
        return sessions.lost

    if begun_again:
        with pytest.raises(Unclear, match="begun once more; whether by this is not known"):
            asyncio.run(settled())
        assert heard == [AuditOutcome.UNKNOWN]
    else:
        assert asyncio.run(settled()) == 1
        assert heard == [AuditOutcome.UNKNOWN, AuditOutcome.DONE]
        assert entry(tools_stack, database, call_id).state is State.OPEN


@pytest.mark.parametrize("taken", [0, 1])
def test_an_audit_that_is_lost_between_leaves_no_settlement_without_who_was_about_to(
    taken: int, tools_stack: LocalStack, database: str
) -> None:
    call_id = left(tools_stack, database)
    heard: list[AuditRecorded] = []

    async def tell(recorded: AuditRecorded) -> None:
        if len(heard) == taken:
            raise PublishFailed("the broker is gone")
        heard.append(recorded)

    with pytest.raises((PublishFailed, Unclear)) as failure:
        asyncio.run(settling(tools_stack, database, call_id, tell))
    settled = entry(tools_stack, database, call_id).state is State.OPEN
    assert settled is bool(heard)
    assert ("settled, but" in str(failure.value)) is settled


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ("sent", "--result is no JSON"),
        ("NaN", "no JSON value"),
        (json.dumps("x" * 300_000), "ask for less"),
    ],
)
def test_what_cannot_be_a_result_settles_nothing(
    result: str,
    words: str,
    tools_stack: LocalStack,
    database: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    call_id = left(tools_stack, database)
    assert words in said(capsys, "settle", call_id, "--result", result, code=1)
    assert entry(tools_stack, database, call_id).state is State.UNSETTLED


def test_a_journal_that_does_not_answer_is_said_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POSTGRES_PORT", "9")
    assert "try: tessera status" in said(capsys, "list", code=1)
    monkeypatch.setenv("POSTGRES_PASSWORD", "env:NOWHERE")
    assert "env:NOWHERE" in said(capsys, "list", code=1)


def test_the_command_stands_beside_the_workers(
    tools_stack: LocalStack, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pem = tmp_path / "key.pem"
    pem.write_text(generate())
    monkeypatch.setenv("CLIENT_KEY", f"file:{pem}")
    # The catalog is asked who that is, and nothing is printed of it.
    monkeypatch.setenv("CLIENT_PRINCIPAL", "")
    call_id = left(tools_stack, database)
    assert f"{call_id}  main.tools.pay@3" in ran("list")
    assert json.loads(ran("settle", call_id, "--again", "--json"))["call_id"] == call_id


def ran(*words: str) -> str:
    """Returns what the command prints as a process of its own."""
    process = subprocess.run(
        [sys.executable, "-m", "workers", "calls", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (process.returncode, process.stderr) == (0, "")
    return process.stdout
