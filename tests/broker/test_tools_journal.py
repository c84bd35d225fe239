"""The journal of tool calls, on PostgreSQL, held against a naive model of it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.settings import PostgresSettings
from infra.stack.local import LocalStack
from tests.broker.tooling import tools_stack
from workers.tools import sessions
from workers.tools.calls import Wanted
from workers.tools.journal import BITE, Began, Entry, Journal, State, open_journal
from workers.tools.sessions import JournalUnreachable, Sessions

__all__ = ["tools_stack"]

pytestmark = pytest.mark.stack

OVER, LONG = timedelta(0), timedelta(hours=1)
DATABASE = "journal_tests"


def where(stack: LocalStack) -> PostgresSettings:
    return PostgresSettings(
        port=stack.settings.postgres_port, password=stack.environment()["POSTGRES_PASSWORD"]
    )


@pytest.fixture
async def journal(tools_stack: LocalStack) -> AsyncIterator[Journal]:
    journal = await open_journal(where(tools_stack), DATABASE)
    yield journal
    await journal.close()


def call(call_id: str | None = None, **changes: object) -> Wanted:
    return Wanted.model_validate(
        {
            "call_id": call_id or uuid4().hex,
            "function": "main.tools.pay",
            "version": 3,
            "arguments": "{}",
            "tenant": "acme",
            "principal": "ann",
            "deadline": datetime(2030, 1, 1, tzinfo=UTC),
            "position": 1,
            **changes,
        }
    )


async def began(journal: Journal, wanted: Wanted, lease: timedelta) -> Began:
    found = await journal.begin(wanted, "reconcile", lease)
    assert isinstance(found, Began)
    return found


async def standing(journal: Journal, wanted: Wanted) -> Entry:
    return (await journal.look([wanted.call_id]))[wanted.call_id]


async def test_of_many_that_begin_a_call_at_the_same_time_one_does(journal: Journal) -> None:
    wanted = call()
    found = await asyncio.gather(*(journal.begin(wanted, "pure", LONG) for _ in range(20)))
    assert [each for each in found if isinstance(each, Began)] == [Began(attempt=1, doubtful=False)]
    others = [each for each in found if isinstance(each, Entry)]
    assert {(each.state, each.over) for each in others} == {(State.STARTED, False)}


async def test_of_many_that_take_a_lost_call_over_one_does(journal: Journal) -> None:
    wanted = call()
    await began(journal, wanted, OVER)
    found = await asyncio.gather(*(journal.begin(wanted, "pure", LONG) for _ in range(20)))
    assert [each for each in found if isinstance(each, Began)] == [Began(attempt=2, doubtful=True)]


@pytest.mark.parametrize(
    "changes", [{"arguments": "[]"}, {"principal": "bob"}, {"version": 4}, {"tenant": "other"}]
)
async def test_another_call_under_the_same_id_is_never_begun(
    journal: Journal, changes: dict[str, object]
) -> None:
    wanted = call()
    await began(journal, wanted, OVER)
    other = call(wanted.call_id, **changes)
    found = await journal.begin(other, "pure", LONG)
    assert isinstance(found, Entry)
    assert found.digest == wanted.digest != other.digest


async def test_whoever_listens_hears_of_calls_that_end_and_are_given_up(journal: Journal) -> None:
    done, given_up = call(), call()
    async with journal.hearing() as heard:
        for wanted in (done, given_up):
            await began(journal, wanted, LONG)
        await journal.finish(done.call_id, 1, "{}")
        await journal.release(given_up.call_id, 1)
        assert [await anext(heard), await anext(heard)] == [done.call_id, given_up.call_id]
    assert (await standing(journal, given_up)).over


async def test_a_person_settles_what_is_left_to_one(journal: Journal) -> None:
    told, again = call(), call()
    for wanted in (told, again):
        await began(journal, wanted, LONG)
        await journal.finish(wanted.call_id, 1, '{"error": 1}', State.UNSETTLED)
        assert isinstance(await journal.begin(wanted, "reconcile", LONG), Entry)
    [left] = [each for each in await journal.unsettled() if each.call_id == told.call_id]
    assert (left.function, left.tenant, left.principal) == ("main.tools.pay@3", "acme", "ann")
    assert left.attempt == 1
    assert timedelta(0) <= datetime.now(UTC) - left.began_at < LONG
    assert await journal.settle(told.call_id, '{"result": 7}')
    assert await journal.settle(again.call_id, None)
    assert not await journal.settle(again.call_id, '{"result": 8}')
    assert (await standing(journal, told)).outcome == '{"result": 7}'
    assert await began(journal, again, LONG) == Began(attempt=2, doubtful=False)


async def test_a_checkpoint_is_there_for_the_next_attempt_and_gone_when_the_call_ends(
    journal: Journal, tools_stack: LocalStack
) -> None:
    done, failed, settled = call(), call(), call()
    for wanted in (done, failed, settled):
        await began(journal, wanted, OVER)
        assert await journal.save(wanted.call_id, 1, '["ü\\u0000"]')
        assert (await began(journal, wanted, LONG)).checkpoint == '["ü\\u0000"]'
        assert not await journal.save(wanted.call_id, 1, '"too late"')
        assert await journal.save(wanted.call_id, 2, '"far"')
    await journal.finish(done.call_id, 2, "{}")
    for wanted, outcome in ((failed, "{}"), (settled, None)):
        await journal.finish(wanted.call_id, 2, "{}", State.UNSETTLED)
        assert await journal.settle(wanted.call_id, outcome)
    ids = [each.call_id for each in (done, failed, settled)]
    sessions = Sessions(where(tools_stack), DATABASE)
    query = "SELECT call_id, checkpoint FROM tessera_tools.calls WHERE call_id = ANY(%(ids)s)"
    kept = {row["call_id"]: row["checkpoint"] for row in await sessions.ask(query, {"ids": ids})}
    assert kept == dict(zip(ids, (None, None, '"far"'), strict=True))
    assert (await began(journal, settled, LONG)).checkpoint == '"far"'
    await sessions.close()


async def test_a_journal_that_was_made_before_there_were_checkpoints_has_them_when_it_is_opened(
    tools_stack: LocalStack,
) -> None:
    name, wanted = f"older_{uuid4().hex[:8]}", call()
    older = await open_journal(where(tools_stack), name)
    await began(older, wanted, OVER)
    async with older._sessions.own() as session:
        await session.execute("ALTER TABLE tessera_tools.calls DROP COLUMN checkpoint")
    journal = await open_journal(where(tools_stack), name)
    assert await journal.save(wanted.call_id, 1, "1")
    assert (await began(journal, wanted, LONG)).checkpoint == "1"
    # And whoever had it open before goes on.
    assert await older.finish(wanted.call_id, 2, "{}")
    for each in (older, journal):
        await each.close()


async def test_what_ended_long_ago_is_forgotten_and_what_a_person_must_see_is_not(
    journal: Journal,
) -> None:
    done, lost, paid, unsettled, running, settled = (call() for _ in range(6))
    for wanted, effect, lease in (
        (done, "pure", LONG),
        (lost, "idempotent", OVER),
        (paid, "reconcile", OVER),
        (unsettled, "reconcile", LONG),
        (running, "pure", LONG),
        (settled, "reconcile", OVER),
    ):
        await journal.begin(wanted, effect, lease)
    await journal.finish(done.call_id, 1, "{}")
    await journal.finish(unsettled.call_id, 1, "{}", State.UNSETTLED)
    await journal.settle(settled.call_id, '{"result": 1}')
    ids = {each.call_id for each in (done, lost, paid, unsettled, running, settled)}
    await journal.purge(LONG)
    assert (await journal.look(ids)).keys() == ids
    await journal.purge(OVER)
    forgotten = {each.call_id for each in (done, lost, settled)}
    assert (await journal.look(ids)).keys() == ids - forgotten


async def test_more_than_one_bite_is_forgotten_at_once(tools_stack: LocalStack) -> None:
    journal = await open_journal(where(tools_stack), f"bites_{uuid4().hex[:8]}")
    async with journal._sessions.own() as session:
        await session.execute(
            "INSERT INTO tessera_tools.calls SELECT n::text, '', '', 1, '', '', 'pure', 'DONE', 1,"
            " false, gen_random_uuid(), now(), '', now(), now() FROM generate_series(0, %s) n",
            (BITE,),
        )
    assert await journal.purge(OVER) == BITE + 1
    await journal.close()


async def test_a_journal_that_many_open_at_the_same_time_is_made_once(
    tools_stack: LocalStack,
) -> None:
    name = f"made_{uuid4().hex[:8]}"
    opened = await asyncio.gather(*(open_journal(where(tools_stack), name) for _ in range(5)))
    wanted = call()
    await began(opened[0], wanted, LONG)
    assert [await standing(each, wanted) for each in opened] == [
        await standing(opened[0], wanted)
    ] * 5
    for each in opened:
        await each.close()


async def test_a_journal_is_opened_beside_somebody_who_reads_it_for_long(
    journal: Journal, tools_stack: LocalStack
) -> None:
    async with journal._sessions.own() as session, session.transaction():
        await session.execute("SELECT FROM tessera_tools.calls")
        other = await open_journal(where(tools_stack), DATABASE)
    await other.close()


async def test_a_database_that_stands_still_is_not_waited_for(
    tools_stack: LocalStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Sessions(where(tools_stack), DATABASE)
    [row] = await held.ask("SELECT pg_backend_pid() AS pid")
    os.kill(row["pid"], signal.SIGSTOP)
    try:
        with monkeypatch.context() as hasty:
            hasty.setattr(sessions, "ANSWER_S", 0.5)
            with pytest.raises(JournalUnreachable):
                await held.ask("SELECT 1")
    finally:
        os.kill(row["pid"], signal.SIGCONT)
    assert await held.ask("SELECT 1 AS one") == [{"one": 1}]
    await held.close()


@dataclass
class Naive:
    """A call as a few words in memory have it."""

    state: str = "NEW"
    attempt: int = 0
    over: bool = False
    outcome: str | None = None
    doubtful: bool = False
    checkpoint: str | None = None

    def begin(self, *, over: bool) -> Began | None:
        lost = self.state == "STARTED" and self.over
        if not (lost or self.state in ("NEW", "OPEN")):
            return None
        self.state, self.attempt = "STARTED", self.attempt + 1
        self.over, self.doubtful = over, lost
        return Began(attempt=self.attempt, doubtful=lost, checkpoint=self.checkpoint)

    def mine(self, attempt: int) -> bool:
        return self.state == "STARTED" and self.attempt == attempt

    def save(self, attempt: int, checkpoint: str) -> bool:
        if mine := self.mine(attempt):
            self.checkpoint = checkpoint
        return mine

    def finish(self, attempt: int, state: str, outcome: str) -> bool:
        if mine := self.mine(attempt):
            self.state, self.outcome = state, outcome
        return mine

    def renew(self, attempt: int, *, over: bool) -> bool:
        if mine := self.mine(attempt):
            self.over = over
        return mine

    def settle(self, outcome: str | None) -> bool:
        lost = self.state == "STARTED" and self.over
        unsettled = self.state == "UNSETTLED" or lost
        if unsettled:
            self.state, self.outcome = ("OPEN" if outcome is None else "DONE"), outcome
        return unsettled


ATTEMPTS = st.integers(1, 4)
STEPS = st.one_of(
    st.tuples(st.just("begin"), st.booleans()),
    st.tuples(st.just("finish"), ATTEMPTS, st.sampled_from(["DONE", "UNSETTLED"])),
    st.tuples(st.just("release"), ATTEMPTS),
    st.tuples(st.just("renew"), ATTEMPTS, st.booleans()),
    st.tuples(st.just("save"), ATTEMPTS),
    st.tuples(st.just("settle"), st.sampled_from([None, "settled"])),
)


@given(st.lists(STEPS, max_size=12))
@settings(max_examples=60)
def test_whatever_happens_in_whatever_order_the_journal_says_what_the_model_says(
    tools_stack: LocalStack, steps: list[tuple[object, ...]]
) -> None:
    asyncio.run(_held_against(tools_stack, steps))


async def _held_against(stack: LocalStack, steps: list[tuple[object, ...]]) -> None:
    journal = await open_journal(where(stack), DATABASE)
    wanted, naive = call(), Naive()
    for number, step in enumerate(steps):
        said, expected = await _taken(journal, wanted, naive, number, step)
        assert said == expected
        entry = (await journal.look([wanted.call_id])).get(wanted.call_id)
        if naive.state == "NEW":
            assert entry is None
            continue
        assert entry is not None
        assert (entry.state, entry.attempt, entry.outcome) == (
            naive.state,
            naive.attempt,
            naive.outcome,
        )
        if naive.state == "STARTED":
            assert entry.over == naive.over
    await journal.close()


async def _taken(
    journal: Journal, wanted: Wanted, naive: Naive, number: int, step: tuple[object, ...]
) -> tuple[object, object]:
    """Takes a step; returns what the journal said, and what the model did."""
    name, *rest = step
    outcome = f"outcome {number}"
    if name == "begin":
        found = await journal.begin(wanted, "reconcile", OVER if rest[0] else LONG)
        return found if isinstance(found, Began) else None, naive.begin(over=bool(rest[0]))
    if name == "settle":
        settled = None if rest[0] is None else outcome
        return await journal.settle(wanted.call_id, settled), naive.settle(settled)
    attempt = rest[0]
    assert isinstance(attempt, int)
    if name == "finish":
        state = State(str(rest[1]))
        said = await journal.finish(wanted.call_id, attempt, outcome, state)
        return said, naive.finish(attempt, state, outcome)
    if name == "save":
        checkpoint = f'"checkpoint {number}"'
        said = await journal.save(wanted.call_id, attempt, checkpoint)
        return said, naive.save(attempt, checkpoint)
    if name == "release":
        await journal.release(wanted.call_id, attempt)
        naive.renew(attempt, over=True)
        return None, None
    lease = OVER if rest[1] else LONG
    said = await journal.renew(wanted.call_id, attempt, lease)
    return said, naive.renew(attempt, over=bool(rest[1]))
