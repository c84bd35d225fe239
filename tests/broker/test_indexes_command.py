"""``tessera index``, typed against a registrar, a gateway and an index processor that run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from subprocess import CompletedProcess

import fastavro
import pytest
from confluent_kafka.admin import NewTopic
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

from infra.settings import PostgresSettings
from infra.stack.local import LocalStack
from schemas.codec import FRAME
from tests.catalog.conftest import command, place
from tests.catalog.towns import Town, bare, begun
from tests.conftest import running as running_stack
from tests.harness import PATIENCE_S, Bus, eventually, running, unique

# Some twenty commands, each a process.
pytestmark = [pytest.mark.stack, pytest.mark.timeout(1800)]

NAME, NOTES, WORDS = "main.default.docs", "main.default.notes", "main.default.words"
ROWS = 120
OVER = ("--source", NOTES, "--text", "{title}: {body}", "--key", "id", "--column", "price:long")
WORKER = [
    *("-m", "workers", "inference"),
    *("--provider", "tests.index.words:open_words", "--pool", "words"),
]
ROW = {
    "type": "record",
    "name": "Row",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "title", "type": "string"},
        {"name": "body", "type": "string"},
        {"name": "price", "type": "long"},
    ],
}


@pytest.fixture(scope="module")
def stack() -> Iterator[LocalStack]:
    with running_stack(["kafka", "postgres", "redis", "registry", "weaviate"]) as stack:
        yield stack


@pytest.fixture
def postgres(stack: LocalStack) -> Iterator[PostgresSettings]:
    settings = place(stack, unique("catalog"))
    yield settings
    command(stack, f'DROP DATABASE IF EXISTS "{settings.database}" WITH (FORCE)')


@pytest.fixture
def town(stack: LocalStack, postgres: PostgresSettings, tmp_path: Path) -> Town:
    return begun(bare(stack), postgres, tmp_path)


def written(bus: Bus) -> str:
    """Makes a topic of rows; returns its name."""
    topic = unique("notes")
    bus.admin.create_topics([NewTopic(topic, 2, 1)])[topic].result(30)
    with SchemaRegistryClient({"url": bus.registry_settings.url}) as client:
        number = client.register_schema(f"{topic}-value", Schema(json.dumps(ROW), "AVRO"))
    parsed = fastavro.parse_schema(ROW)
    for key in range(ROWS):
        row = {"id": key, "title": f"hill {key}", "body": "moss and rain", "price": key}
        out = BytesIO(FRAME.pack(0, number))
        out.seek(0, os.SEEK_END)
        fastavro.schemaless_writer(out, parsed, row)
        bus.put(topic, str(key).encode(), out.getvalue())
    bus.settle()
    return topic


def typed(town: Town, *words: str, **more: str) -> CompletedProcess[str]:
    """Runs a command that must come to its end well."""
    done = town.run("index", *words, **more)
    assert done.returncode == 0, done.stderr
    return done


def refused(town: Town, *words: str, **more: str) -> str:
    """Runs a command that must be refused; returns why."""
    done = town.run("index", *words, **more)
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stderr
    return done.stderr


def left(town: Town, *words: str) -> tuple[int, str]:
    """Runs a command until it has asked and interrupts it; returns its code and what it said."""
    said = town.folder / "left.txt"
    with said.open("wb") as out:
        child = subprocess.Popen(
            [sys.executable, "-m", "catalog", "index", *words],
            env={**os.environ, **town.bus.environment, **town.environment},
            stdout=out,
            stderr=out,
        )
        try:
            eventually(lambda: "is made" in said.read_text(), what="being asked")
            child.send_signal(signal.SIGINT)
            code = child.wait(PATIENCE_S)
        finally:
            child.kill()
    return code, said.read_text()


def test_an_index_is_made_watched_paused_rebuilt_and_dropped_by_command(
    stack: LocalStack, town: Town, tmp_path: Path
) -> None:
    with ExitStack() as opened:
        opened.enter_context(town.registrar())
        routes = [{"name": "local", "pool": "words", "model": "words"}]
        table = {"location": f"topic:{written(town.bus)}"}
        town.result("create", kind="table", name=NOTES, spec=table)
        assert "--endpoint NAME" in refused(town, "create", NAME, *OVER)
        town.result("create", kind="endpoint", name=WORDS, spec={"routes": routes})
        over = (*OVER, "--endpoint", WORDS)
        assert f"did you mean {NOTES}?" in refused(
            town, "create", NAME, "--source", f"{NOTES}s", "--text", "body"
        )

        code, said = left(town, "create", NAME, *over)
        assert code == 130
        assert f"{NAME} goes on without you; look: tessera index status {NAME} --follow" in said
        assert "nothing was told of it" in typed(town, "describe", NAME).stdout

        for process in (["-m", "streams", "gateway"], ["-m", "workers", "jobs"], WORKER):
            opened.enter_context(running(town.bus, process, tmp_path))
        opened.enter_context(
            running(
                town.bus,
                ["-m", "streams", "index"],
                tmp_path,
                CLIENT_KEY=town.environment["CLIENT_KEY"],
                CLIENT_PRINCIPAL="",
                CLIENT_TENANT=town.tenant,
            )
        )

        again = typed(town, "create", NAME, *over)
        assert "like that: nothing was changed" in again.stderr
        ready = f"{NAME} is READY: {ROWS} rows in {ROWS} chunks"
        assert again.stdout.startswith(ready)
        another = refused(town, "create", NAME, *over[:2], "--text", "body", *over[4:])
        assert 'text: "{title}: {body}" -> "body"' in another
        assert f"tessera catalog update {NAME} --kind index --spec" in another
        [_, line] = typed(town, "status").stdout.splitlines()
        assert line.split()[:3] == [NAME, "READY", "1"]
        [_, line] = typed(town, "list").stdout.splitlines()
        assert line.split()[:3] == [NAME, "READY", "operator"]

        assert typed(town, "reconcile", NAME).stdout.startswith(ready)
        compared = json.loads(typed(town, "describe", NAME, "--json").stdout)["report"]
        assert (compared["drift"], compared["reconcile"]) == (0, 1)

        assert "is not triggered" in refused(town, "sync", NAME)
        assert f"did you mean {NAME}?" in refused(town, "pause", f"{NAME}s")
        pem = town.folder / "alice.pem"
        town.result("create", kind="user", name="alice", spec={"tenant": town.tenant})
        assert town.run("key", "create", "--principal", "alice", "--out", str(pem)).returncode == 0
        privileges = {"privileges": ["USE", "BROWSE"], "securable": "main", "principal": "alice"}
        town.result("grant", **privileges)
        asked = refused(town, "pause", NAME, CLIENT_KEY=f"file:{pem}")
        assert f"MODIFY on {NAME} is missing" in asked

        assert typed(town, "pause", NAME).stdout == f"{NAME} is PAUSED\n"
        assert "tessera index resume" in refused(town, "rebuild", NAME)
        resumed = json.loads(typed(town, "resume", NAME, "--json").stdout)
        assert (resumed["changed"], resumed["report"]["state"] != "PAUSED") == (True, True)
        rebuilt = typed(town, "rebuild", NAME)
        assert "built anew, as generation 2" in rebuilt.stderr
        assert rebuilt.stdout.startswith(ready)
        shown = json.loads(typed(town, "describe", NAME, "--json").stdout)
        assert (shown["report"]["generation"], shown["report"]["building"]) == (2, None)
        assert shown["spec"]["text"] == "{title}: {body}"

        assert typed(town, "drop", NAME, "--yes").stdout == f"{NAME} is gone\n"
        assert f"there is no index {NAME}" in refused(town, "describe", NAME)
