"""``tessera source``, typed against a registrar and a watch that run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.connectors.source import name_of
from infra.settings import PostgresSettings
from infra.stack.local import LocalStack
from tests.broker.capturing import Town as Captured
from tests.catalog.conftest import command, place
from tests.catalog.towns import Town, bare, begun
from tests.harness import running, unique

pytestmark = pytest.mark.stack

NAME = "main.default.notes"
ON = ("--connection", "main.default.shop")


@pytest.fixture
def postgres(full_stack: LocalStack) -> Iterator[PostgresSettings]:
    settings = place(full_stack, unique("catalog"))
    yield settings
    command(full_stack, f'DROP DATABASE IF EXISTS "{settings.database}" WITH (FORCE)')


@pytest.fixture
def town(full_stack: LocalStack, postgres: PostgresSettings, tmp_path: Path) -> Town:
    return begun(bare(full_stack), postgres, tmp_path)


def test_a_table_is_captured_shown_and_let_go(
    full_stack: LocalStack, town: Town, tmp_path: Path
) -> None:
    database = Captured(full_stack, town.bus, tmp_path)
    database.runs("CREATE TABLE notes (id int PRIMARY KEY)", "CREATE TABLE loose (id int)")
    watch = ["-m", "workers", "sources"]
    with town.registrar(), running(town.bus, watch, tmp_path, SOURCES_EVERY_MS="500"):
        town.result("create", kind="connection", name=ON[1], spec=database.shop)

        created = town.run("source", "create", NAME, *ON, "--table", "public.notes")
        assert created.returncode == 0, created.stderr
        assert created.stdout.splitlines()[-1].startswith(f"{NAME} is STREAMING")
        again = town.run("source", "create", NAME, *ON, "--table", "public.notes")
        assert again.stdout.startswith(f"{NAME} is STREAMING"), again.stderr
        [_, line] = town.run("source", "list").stdout.splitlines()
        assert line.split()[:2] == [NAME, "STREAMING"]
        shown = json.loads(town.run("source", "show", NAME, "--json").stdout)
        assert (shown["state"], shown["slot"]) == ("STREAMING", name_of(NAME))

        refused = town.run("source", "create", f"{NAME}2", *ON, "--table", "public.loose")
        assert refused.returncode == 1
        assert "has no primary key" in refused.stdout
        assert "what to do: give it one" in refused.stdout
        early = town.run("source", "snapshot", f"{NAME}2")
        assert early.returncode != 0
        assert f"{NAME}2 is FAILED" in early.stderr

        removed = town.run("source", "remove", NAME)
        assert removed.returncode == 0, removed.stderr
        assert removed.stdout.splitlines()[-1] == f"{NAME} is REMOVED"
        spec = town.result("get", name=NAME)["spec"]
        assert spec["location"] == "public.notes"
        assert spec.get("capture") is None


def test_rows_are_read_again_and_what_is_wrong_with_a_condition_is_said(
    full_stack: LocalStack, town: Town, tmp_path: Path
) -> None:
    database = Captured(full_stack, town.bus, tmp_path)
    database.runs("CREATE TABLE notes (id int PRIMARY KEY)", "INSERT INTO notes VALUES (1), (2)")
    watch = ["-m", "workers", "sources"]
    with town.registrar(), running(town.bus, watch, tmp_path, SOURCES_EVERY_MS="500"):
        town.result("create", kind="connection", name=ON[1], spec=database.shop)
        spec = {"location": "public.notes", "connection": ON[1]}
        town.result("create", kind="table", name=NAME, spec=spec)
        uncaptured = town.run("source", "snapshot", NAME)
        assert uncaptured.returncode != 0
        assert f"{NAME} is not captured: tessera source create" in uncaptured.stderr

        created = town.run("source", "create", NAME, *ON, "--table", "public.notes")
        assert created.returncode == 0, created.stderr
        reread = town.run("source", "snapshot", NAME, "--where", "id > 1")
        assert reread.returncode == 0, reread.stderr
        assert reread.stdout.splitlines()[-1].startswith(f"rows of {NAME} were read again")
        assert [each.op for each in database.changes(NAME, "public.notes")].count("r") == 2 + 1
        unread = town.run("source", "snapshot", NAME, "--where", "id > 1; DROP TABLE notes")
        assert unread.returncode != 0
        assert "at character 7" in unread.stderr
        assert "what to do: say columns compared with values" in unread.stderr
