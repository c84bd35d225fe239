"""Runners as an executor opens them: what lacks for good, and what fails for a moment."""

from __future__ import annotations

import errno
import subprocess
import sys
from contextlib import AsyncExitStack
from textwrap import dedent

import pytest

from infra.bootstrap import ROOT
from infra.settings import ToolsSettings
from tests.unit.calling import call, fails, office
from workers.tools import Fault, Runner, ToolFailed
from workers.tools import sandbox as sandboxes
from workers.tools.calls import Office
from workers.tools.executor import RunnerUnfit, open_runners
from workers.tools.sandbox import Bounds, SandboxUnavailable, check


async def open_lacking(_: Office) -> Runner:
    """Lacks something."""
    raise SandboxUnavailable("Landlock: not there")


async def open_late(_: Office) -> Runner:
    """Takes too long, this time."""
    raise ToolFailed(Fault.LIMIT, "it took longer than 60 s")


async def open_short(_: Office) -> Runner:
    """Finds no memory, this time."""
    raise OSError(errno.ENOMEM, "fork")


def lent(opening: str) -> Office:
    """What runners are opened with where this one opens those of Python."""
    return office(settings=ToolsSettings(runners={"python": f"{__name__}:{opening}"}))


async def test_a_language_that_its_machine_lacks_something_for_says_so() -> None:
    async with AsyncExitStack() as held:
        runners = await open_runners(lent("open_lacking"), held)
        words = "python cannot be run here: Landlock: not there"
        await fails(runners["python"], call("def f(): pass"), Fault.SOURCE, words)
        assert runners.keys() == {"http", "mcp", "python", "sql"}


@pytest.mark.parametrize(("opening", "words"), [("open_late", "60 s"), ("open_short", "fork")])
async def test_what_may_be_there_the_next_time_refuses_no_language(
    opening: str, words: str
) -> None:
    async with AsyncExitStack() as held:
        with pytest.raises(RunnerUnfit, match=f"python cannot be opened now.*{words}"):
            await open_runners(lent(opening), held)


async def test_a_child_that_ends_early_says_nothing_of_its_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sandboxes, "COMMAND", (sys.executable, "-I", "-S", "-c", "pass"))
    with pytest.raises(ToolFailed, match="before anything of it was run"):
        await check(Bounds(wall_s=60))


def test_an_executor_that_hides_itself_runs_functions_all_the_same() -> None:
    script = """
        import asyncio, ctypes
        from workers.tools.executor import hide
        from workers.tools.sandbox import Bounds, check

        hide()
        asyncio.run(check(Bounds(wall_s=60)))
        print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
    """
    command = [sys.executable, "-c", dedent(script)]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert said.stdout == "0\n"
