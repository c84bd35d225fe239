"""The journal of tool calls, on PostgreSQL, held against a naive model of it."""

from __future__ import annotations

import asyncio
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
from workers.tools.calls import Wanted
from workers.tools.journal import Began, Entry, Journal, State, Unsettled, open_journal

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
    left = Unsettled(
        call_id=told.call_id, function="main.tools.pay@3", tenant="acme", principal="ann"
    )
    assert left in await journal.unsettled()
    assert await journal.settle(told.call_id, '{"result": 7}')
    assert await journal.settle(again.call_id, None)
    assert not await journal.settle(again.call_id, '{"result": 8}')
    assert (await standing(journal, told)).outcome == '{"result": 7}'
    assert await began(journal, again, LONG) == Began(attempt=2, doubtful=False)


async def test_what_ended_long_ago_is_forgotten_and_what_a_person_must_see_is_not(
    journal: Journal,
) -> None:
    done, lost, paid, unsettled, running = (call() for _ in range(5))
    for wanted, effect, lease in (
        (done, "pure", LONG),
        (lost, "idempotent", OVER),
        (paid, "reconcile", OVER),
        (unsettled, "reconcile", LONG),
        (running, "pure", LONG),
    ):
        await journal.begin(wanted, effect, lease)
    await journal.finish(done.call_id, 1, "{}")
    await journal.finish(unsettled.call_id, 1, "{}", State.UNSETTLED)
    ids = {each.call_id for each in (done, lost, paid, unsettled, running)}
    await journal.purge(LONG)
    assert (await journal.look(ids)).keys() == ids
    await journal.purge(OVER)
    assert (await journal.look(ids)).keys() == ids - {done.call_id, lost.call_id}


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


@dataclass
class Naive:
    """A call as a few words in memory have it."""

    state: str = "NEW"
    attempt: int = 0
    over: bool = False
    outcome: str | None = None
    doubtful: bool = False

    def begin(self, *, over: bool) -> Began | None:
        lost = self.state == "STARTED" and self.over
        if not (lost or self.state in ("NEW", "OPEN")):
            return None
        self.state, self.attempt = "STARTED", self.attempt + 1
        self.over, self.doubtful = over, lost
        return Began(attempt=self.attempt, doubtful=lost)

    def mine(self, attempt: int) -> bool:
        return self.state == "STARTED" and self.attempt == attempt

    def finish(self, attempt: int, state: str, outcome: str) -> bool:
        if mine := self.mine(attempt):
            self.state, self.outcome = state, outcome
        return mine

    def renew(self, attempt: int, *, over: bool) -> bool:
        if mine := self.mine(attempt):
            self.over = over
        return mine

    def settle(self, outcome: str | None) -> bool:
        unsettled = self.state == "UNSETTLED"
        if unsettled:
            self.state, self.outcome = ("OPEN" if outcome is None else "DONE"), outcome
        return unsettled


ATTEMPTS = st.integers(1, 4)
STEPS = st.one_of(
    st.tuples(st.just("begin"), st.booleans()),
    st.tuples(st.just("finish"), ATTEMPTS, st.sampled_from(["DONE", "UNSETTLED"])),
    st.tuples(st.just("release"), ATTEMPTS),
    st.tuples(st.just("renew"), ATTEMPTS, st.booleans()),
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
        found = await journal.begin(wanted, "pure", OVER if rest[0] else LONG)
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
    if name == "release":
        await journal.release(wanted.call_id, attempt)
        naive.renew(attempt, over=True)
        return None, None
    lease = OVER if rest[1] else LONG
    said = await journal.renew(wanted.call_id, attempt, lease)
    return said, naive.renew(attempt, over=bool(rest[1]))
