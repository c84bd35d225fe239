"""Calls of an MCP server's tools whose executor is killed in the middle."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from infra.bootstrap import ROOT
from tests.broker.tooling import LOST_LATER, Yard, id_of, tools_bus, tools_stack, yard
from tests.harness import Process

__all__ = ["tools_bus", "tools_stack", "yard"]

pytestmark = pytest.mark.stack

SCRIPT = str(ROOT / "tests/unit/mcp_script.py")
COMMANDS = json.dumps({"server": [sys.executable, "-I", "-S", SCRIPT, "notes"]})


@pytest.fixture(scope="module", autouse=True)
def worker(yard: Yard) -> Iterator[Process]:
    with yard.worker() as worker:
        yield worker


def lines(notes: Path) -> list[list[str]]:
    """Returns the key and the process of each call that a server has heard."""
    return [line.split() for line in notes.read_text().splitlines()] if notes.exists() else []


def test_a_call_whose_executor_is_killed_is_made_again_only_under_its_key(
    yard: Yard, tmp_path: Path
) -> None:
    effects = ("idempotent", "reconcile")
    notes = {effect: tmp_path / effect for effect in effects}
    calls = {effect: yard.call(f"server_{effect}", id=notes[effect]) for effect in effects}
    with yard.executor(TOOLS_MCP_COMMANDS=COMMANDS, **LOST_LATER) as executor:
        yard.send(*calls.values())
        yard.waits_for(lambda: all(map(lines, notes.values())), "both calls at their servers")
        executor.kill()
    servers = [int(pid) for each in notes.values() for _, pid in lines(each)]
    yard.waits_for(lambda: not any(map(psutil.pid_exists, servers)), "the end of the servers")
    with yard.executor(TOOLS_MCP_COMMANDS=COMMANDS):
        answers: dict[str, Any] = {effect: yard.answers(calls[effect])[0] for effect in effects}
    assert answers["idempotent"] == {"result": "done"}
    assert answers["reconcile"]["error"]["kind"] == "unsettled"
    assert [key for key, _ in lines(notes["idempotent"])] == [id_of(calls["idempotent"])] * 2
    assert [key for key, _ in lines(notes["reconcile"])] == [id_of(calls["reconcile"])]
