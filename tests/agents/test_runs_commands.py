"""The commands that people run agents with, and look at runs with."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import pytest

from infra.bootstrap import ROOT
from schemas.topics import APPROVAL_WANTED
from streams.agent_command import ANSWERED, CANCELLED, LATE, UNANSWERED
from tests.agents.conftest import ADD, CAREFUL, CLERK, LOST, TENANT, Office
from tests.agents.test_runs import SUM, turns
from tests.broker.approving import PATIENCE_S
from tests.harness import eventually

pytestmark = pytest.mark.stack

PLAIN = ["-m", "streams"]
# Waits for as long as it takes to hear that a deadline has passed.
INSISTENT = [
    "-c",
    f"import runpy; from infra import asker; asker.GRACE_S = {PATIENCE_S}; "
    "runpy.run_module('streams', run_name='__main__')",
]


def environment(office: Office, folder: Path) -> Mapping[str, str]:
    who = {"CLIENT_TENANT": TENANT, "CLIENT_PRINCIPAL": "", "CLIENT_KEY": ""}
    return {**os.environ, **office.bus.environment, "LAKE_ROOT": str(folder / "lake"), **who}


async def tessera(
    office: Office, folder: Path, *words: str, how: Sequence[str] = PLAIN
) -> subprocess.CompletedProcess[str]:
    """Runs a command of streams."""
    return await asyncio.to_thread(
        partial(
            subprocess.run,
            [sys.executable, *how, *words],
            cwd=ROOT,
            env=environment(office, folder),
            capture_output=True,
            text=True,
            check=False,
            timeout=2 * PATIENCE_S,
        )
    )


async def test_a_run_is_shown_as_it_goes_followed_afterwards_listed_and_drawn(
    office: Office, folder: Path
) -> None:
    ran = await tessera(office, folder, "agent", "run", CLERK, turns([SUM], "It is 3."))
    assert (ran.returncode, ran.stdout) == (ANSWERED, "It is 3.\n"), ran.stderr
    began, called, came = ran.stderr.splitlines()
    assert (called, came) == ('-> add {"a": 1, "b": 2}', '<- {"result": 3}')
    run = began.removeprefix("run ")

    followed = await tessera(office, folder, "runs", "follow", run, "--after", "2", "--json")
    assert followed.returncode == ANSWERED, followed.stderr
    events = [json.loads(line) for line in followed.stdout.splitlines()]
    assert [each["sequence_number"] for each in events] == list(range(3, 3 + len(events)))
    assert events[-1]["type"] == "response.completed"

    listed = await tessera(office, folder, "runs", "list", "--agent", CLERK, "--json")
    [listed_run] = [
        each for each in map(json.loads, listed.stdout.splitlines()) if each["request_id"] == run
    ]
    assert (listed_run["state"], listed_run["prompt_tokens"]) == ("completed", 20)

    shown = await tessera(office, folder, "runs", "show", run)
    assert f"function {ADD}  completed" in shown.stdout
    assert "= It is 3." in shown.stdout

    again = await tessera(office, folder, "runs", "replay", run)
    assert again.returncode == ANSWERED, again.stderr
    assert "the same to the byte" in again.stdout


async def test_a_run_that_waits_says_how_it_is_approved_and_can_be_cancelled(
    office: Office, folder: Path
) -> None:
    detached = await tessera(office, folder, "agent", "run", CAREFUL, turns([SUM], "3"), "--detach")
    run = detached.stdout.strip()
    assert detached.returncode == ANSWERED, detached.stderr

    def approval() -> str:
        wanted = office.bus.events(APPROVAL_WANTED, TENANT)
        return next((each.approval_id for each in wanted if run in each.request_id), "")

    await asyncio.to_thread(eventually, approval, PATIENCE_S, "the approval that is wanted")
    shown = await tessera(office, folder, "runs", "show", run)
    assert f"tessera approvals approve {approval()}" in shown.stdout
    cancelled = await tessera(office, folder, "runs", "cancel", run)
    assert cancelled.returncode == ANSWERED, cancelled.stderr
    followed = await tessera(office, folder, "runs", "follow", run)
    assert followed.returncode == CANCELLED
    assert f"tessera approvals approve {approval()}" in followed.stderr
    assert "refused: CANCELLED" in followed.stderr
    again = await tessera(office, folder, "runs", "cancel", run)
    assert (again.returncode, again.stderr[:17]) == (UNANSWERED, "cancelled already")


async def test_ctrl_c_cancels_a_run(office: Office, folder: Path) -> None:
    running = subprocess.Popen(
        [sys.executable, "-m", "streams", "agent", "run", CAREFUL, turns([SUM], "3")],
        cwd=ROOT,
        env=environment(office, folder),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stderr is not None
    first = await asyncio.to_thread(running.stderr.readline)
    running.send_signal(signal.SIGINT)
    assert await asyncio.to_thread(running.wait, PATIENCE_S) == CANCELLED
    running.stderr.close()
    followed = await tessera(office, folder, "runs", "follow", first.split()[1])
    assert followed.returncode == CANCELLED


async def test_how_a_run_ended_is_told_by_the_exit_code(office: Office, folder: Path) -> None:
    asks = ["agent", "run", CAREFUL, turns([SUM], "3"), "--timeout", "20s"]
    late = await tessera(office, folder, *asks, how=INSISTENT)
    assert (late.returncode, late.stdout) == (LATE, "")
    assert "refused: DEADLINE_EXPIRED" in late.stderr
    lost = await tessera(office, folder, "agent", "run", LOST, "hello", "--json")
    assert lost.returncode == UNANSWERED
    [*_, end] = map(json.loads, lost.stdout.splitlines())
    assert (end["type"], end["response"]["error"]["code"]) == ("response.failed", "NOT_FOUND")


@pytest.mark.parametrize("command", ["show", "follow", "cancel"])
async def test_a_run_that_nobody_knows_is_named(office: Office, folder: Path, command: str) -> None:
    ran = await tessera(office, folder, "runs", command, "no-such-run")
    assert ran.returncode == UNANSWERED
    assert "nothing of a run no-such-run" in ran.stderr
    assert "Traceback" not in ran.stderr
