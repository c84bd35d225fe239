"""A call that runs, where the journal does not answer, or has given it to somebody else."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from infra.settings import PostgresSettings, ToolsSettings
from tests.seed import view_of
from tests.unit.calling import call
from workers.tools import Call, Fault, Runner, ToolFailed
from workers.tools.calls import Wanted, returned, wanted
from workers.tools.executing import Executing
from workers.tools.journal import Began, Entry, Journal, State
from workers.tools.outside import out_of_time, seconds_left, unanswered
from workers.tools.running import in_time
from workers.tools.sessions import JournalUnreachable, Sessions

LEASE_MS = 300
SPEC = {"language": "sql", "source": "SELECT 1", "timeout": "60s"}
FUNCTION = {"kind": "function", "name": "main.tests.function", "versions": [{"spec": SPEC}]}


class Mute(Journal):
    """A journal that never answers who renews a lease, or saves, and lets go of nobody.

    Attributes:
        freed: Set when it lets go.
        ended: What calls came to.
    """

    def __init__(self) -> None:
        super().__init__(Sessions(PostgresSettings(), "none"))
        self.freed = asyncio.Event()
        self.ended: list[State] = []

    async def begin(
        self, wanted: Wanted, effect: str, lease: timedelta, holder: UUID | None = None
    ) -> Began | Entry:
        """Lets anybody begin."""
        return Began(attempt=1, doubtful=False)

    async def renew(self, call_id: str, attempt: int, lease: timedelta) -> bool:
        """Hangs."""
        return await self._hang()

    async def save(self, call_id: str, attempt: int, checkpoint: str) -> bool:
        """Hangs."""
        return await self._hang()

    async def _hang(self) -> bool:
        """Hangs, also when it is cancelled."""
        while not self.freed.is_set():
            try:
                await self.freed.wait()
            except asyncio.CancelledError:
                continue
        raise JournalUnreachable

    async def finish(
        self, call_id: str, attempt: int, outcome: str, state: State = State.DONE
    ) -> bool:
        """Notes it."""
        self.ended.append(state)
        return True


class Forgetful(Journal):
    """A journal that answers what it is told to when a checkpoint is to be saved.

    Args:
        answers: What it says, one after the other: whether it is one's own, None to be away.
        doubtful: Whether what was begun before may have had its effect.

    Attributes:
        asked: What it was asked to save, and for which attempt.
        outcomes: What calls came to.
    """

    def __init__(self, *answers: bool | None, doubtful: bool = False) -> None:
        super().__init__(Sessions(PostgresSettings(), "none"))
        self._doubtful = doubtful
        self._answers = list(answers)
        self.asked: list[tuple[int, str]] = []
        self.outcomes: list[str] = []

    async def begin(
        self, wanted: Wanted, effect: str, lease: timedelta, holder: UUID | None = None
    ) -> Began | Entry:
        """Lets anybody begin once more."""
        return Began(attempt=2, doubtful=self._doubtful, checkpoint='"half"')

    async def save(self, call_id: str, attempt: int, checkpoint: str) -> bool:
        """Says what comes next."""
        self.asked.append((attempt, checkpoint))
        if (answer := self._answers.pop(0)) is None:
            raise JournalUnreachable
        return answer

    async def finish(
        self, call_id: str, attempt: int, outcome: str, state: State = State.DONE
    ) -> bool:
        """Notes it."""
        self.outcomes.append(outcome)
        return True


class Saving:
    """Saves a checkpoint, and returns the one before.

    Attributes:
        left: What it was stopped by, while it saved.
    """

    def __init__(self) -> None:
        self.left: list[BaseException] = []

    async def run(self, call: Call) -> Any:
        """Returns the checkpoint that it was called with."""
        assert call.checkpoint is not None
        try:
            await call.checkpoint.save('"more"')
        except BaseException as error:
            self.left.append(error)
            raise
        return call.checkpoint.last

    async def close(self) -> None:
        """Holds nothing."""


class Endless:
    """Runs until it is stopped."""

    async def run(self, call: Call) -> Any:
        """Never returns."""
        await asyncio.Event().wait()

    async def close(self) -> None:
        """Holds nothing."""


@pytest.mark.parametrize("runner", [Endless(), Saving()])
async def test_a_call_ends_with_its_lease_however_long_a_session_takes_to_let_go(
    runner: Runner,
    caplog: pytest.LogCaptureFixture,
) -> None:
    journal, view = Mute(), view_of([FUNCTION])
    settings = ToolsSettings(lease_ms=LEASE_MS)
    executing = Executing(journal, view, {"sql": runner}, settings)
    try:
        async with asyncio.timeout(60):
            await executing.perform(wanted(call("SELECT 1", seconds=600), view.position))
        # It is another's now to say what it came to.
        assert journal.ended == []
    finally:
        journal.freed.set()
    await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()}, return_exceptions=True)
    assert [record for record in caplog.records if record.name == "asyncio"] == []


class Asked(Saving):
    """Saves when it is asked whether it had its effect."""

    async def reconcile(self, call: Call) -> Any:
        """Says that it had none."""
        assert (call.checkpoint and call.checkpoint.last) == '"half"'
        await Saving().run(call)
        return {"done": False}


async def saved_with(journal: Journal, seconds: float = 600) -> Saving:
    """Performs a call that saves; returns what ran it."""
    view, runner = view_of([FUNCTION]), Saving()
    executing = Executing(journal, view, {"sql": runner}, ToolsSettings(lease_ms=60_000))
    async with asyncio.timeout(60):
        await executing.perform(wanted(call("SELECT 1", seconds=seconds), view.position))
    return runner


async def test_a_checkpoint_waits_for_a_journal_that_is_away_for_a_while() -> None:
    journal = Forgetful(None, None, True)
    runner = await saved_with(journal)
    assert journal.asked == [(2, '"more"')] * 3
    assert (journal.outcomes, runner.left) == ([returned('"half"')], [])


async def test_what_a_function_saves_when_it_is_asked_is_what_it_goes_on_from() -> None:
    journal, view = Forgetful(True, True, doubtful=True), view_of([FUNCTION])
    executing = Executing(journal, view, {"sql": Asked()}, ToolsSettings(lease_ms=60_000))
    await executing.perform(wanted(call("SELECT 1", seconds=600), view.position))
    assert journal.outcomes == [returned('"more"')]


async def test_a_password_that_is_away_for_a_while_is_a_journal_that_is() -> None:
    settings = PostgresSettings(password="file:/nowhere/password")
    with pytest.raises(JournalUnreachable, match="file:/nowhere/password cannot be read"):
        await Sessions(settings, "none").ask("SELECT 1")


async def test_a_checkpoint_waits_no_longer_than_its_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.tools.running.GRACE_S", 30.0)
    journal = Forgetful(*[None] * 20)
    await saved_with(journal, seconds=8)
    [outcome] = journal.outcomes
    error = json.loads(outcome)["error"]
    # What the journal was last, and not that the call was stopped.
    assert (error["kind"], "JournalUnreachable" in error["message"]) == (Fault.UNSETTLED, True)


async def test_a_call_that_is_somebody_elses_by_now_is_stopped_where_it_saves() -> None:
    journal = Forgetful(False)
    runner = await saved_with(journal)
    assert [type(error) for error in runner.left] == [asyncio.CancelledError]
    # It is another's now to say what it came to.
    assert journal.outcomes == []


async def test_a_worker_that_stood_still_lets_a_runner_say_what_it_leaves_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("workers.tools.running.GRACE_S", 0.5)
    asked = call("SELECT 1", timeout="1s", effect="reconcile")

    async def unheard() -> str:
        """Hears nothing more of what it has sent."""
        try:
            async with asyncio.timeout(seconds_left(asked)):
                await asyncio.Event().wait()
        except TimeoutError:
            raise unanswered(asked, out_of_time(asked)) from None
        return ""

    asyncio.get_running_loop().call_later(0.1, time.sleep, 2)
    with pytest.raises(ToolFailed) as failed:
        await in_time(unheard(), asked)
    assert failed.value.fault is Fault.UNSETTLED
