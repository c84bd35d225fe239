"""What is typed of indexes as definitions, and what is told of them as people read it."""

from __future__ import annotations

import asyncio
import doctest
import json
import shlex
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from catalog.declared.problems import Invalid
from catalog.operator import definitions, indexes, reports, watching
from catalog.operator.definitions import Words, defined, differences, fits, other
from catalog.operator.reports import Pace, built, followed, gone, holds, line, resumed
from catalog.operator.watching import Board, Reports, Screen
from catalog.operator.words import Unclear
from schemas.events import IndexReported, IndexState
from schemas.indexes import IndexSpec
from schemas.tables import TableSpec

NAME = "main.lab.docs"
NOTES = "main.lab.notes"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
TYPED = Words(source=NOTES, text="{title}: {body}", columns=["price:long", "lang"])


def told(state: IndexState = IndexState.READY, seconds: float = 0, **more: Any) -> IndexReported:
    at = NOON + timedelta(seconds=seconds)
    return IndexReported(**{"index": NAME, "state": state, "reported_at": at, **more})


def pace_of(*told_of: IndexReported) -> Pace:
    pace = Pace()
    for report in told_of:
        pace.take(report)
    return pace


def test_what_is_typed_is_a_definition_and_the_rest_as_it_is_by_default() -> None:
    spec = defined(TYPED)
    assert (spec.source, spec.text) == (NOTES, "{title}: {body}")
    assert [(each.name, each.type) for each in spec.columns] == [
        ("price", "long"),
        ("lang", "string"),
    ]
    assert spec == IndexSpec(source=spec.source, text=spec.text, columns=spec.columns)
    cut = defined(Words(source=NOTES, text="body", chunking="tokens", size=64, overlap=8))
    assert (cut.chunking.by, cut.chunking.size, cut.chunking.overlap) == ("tokens", 64, 8)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (Words(source=NOTES), "--text"),
        (Words(source=NOTES, text="{title"), "{"),
        (Words(source=NOTES, text="{{}}"), "names no column"),
        (Words(text="body", sync="triggered"), "--source"),
        (Words(source=NOTES, text="body", size=64), "--chunking"),
        (Words(source=NOTES, text="body", chunking="sentence", overlap=8), "--overlap"),
        (Words(source=NOTES, text="b", chunking="tokens", size=64, overlap=60), "at most half"),
    ],
)
def test_words_that_make_no_definition_are_told_what_to_say(words: Words, said: str) -> None:
    with pytest.raises(Unclear) as unclear:
        defined(words)
    assert said in str(unclear.value)


@pytest.mark.parametrize(
    ("words", "place"),
    [
        (Words(source="notes", text="body"), "spec.source"),
        (Words(source=NOTES, text="body", columns=["price:money"]), "spec.columns[0].type"),
        (Words(source=NOTES, text="body", chunking="token"), "spec.chunking.by"),
        (Words(source=NOTES, text="body", sync="always"), "spec.sync"),
        (Words(source=NOTES, text="body", distance="near"), "spec.distance"),
    ],
)
def test_a_word_that_is_none_of_those_known_is_named_with_its_place(
    words: Words, place: str
) -> None:
    with pytest.raises(Invalid) as invalid:
        defined(words)
    assert str(invalid.value).startswith(f"{place}: ")


def test_a_table_without_the_columns_or_without_a_topic_is_refused_before_anything_is_made() -> (
    None
):
    wanted = defined(TYPED)
    columns = [{"name": each} for each in ("title", "lang", "price")]
    table = {"location": "public.notes", "connection": "main.lab.shop", "capture": {}}
    fits(wanted, TableSpec.model_validate(table))
    fits(wanted, TableSpec.model_validate({"location": "topic:notes"}))
    with pytest.raises(Unclear, match="text names body, but the source has only"):
        fits(wanted, TableSpec.model_validate({**table, "columns": columns}))
    with pytest.raises(Unclear, match=f"tessera source create {NOTES} --connection main.lab.shop"):
        fits(wanted, TableSpec.model_validate({**table, "capture": None}))


def test_how_an_index_runs_and_who_sees_it_makes_no_difference() -> None:
    there = defined(TYPED)
    running = there.model_copy(update={"generation": 3, "paused": True, "trigger": 9})
    assert differences(running, there) == {}


@pytest.mark.parametrize(
    ("more", "generation"), [({"sync": "triggered"}, 3), ({"text": "it's {body}"}, 4)]
)
def test_what_is_advised_instead_of_another_definition_makes_just_that(
    more: dict[str, Any], generation: int
) -> None:
    there = defined(TYPED).model_copy(update={"generation": 3, "trigger": 2})
    wanted = defined(TYPED).model_copy(update=more)
    advice = other(NAME, there, wanted, differences(there, wanted))
    assert next(iter(more)) in advice
    [command] = [each for each in advice.splitlines() if "tessera catalog update" in each]
    spec = IndexSpec.model_validate(json.loads(shlex.split(command)[-1]))
    assert spec == wanted.model_copy(update={"generation": generation, "trigger": 2})


def test_of_another_table_an_index_is_dropped_first_or_has_another_name() -> None:
    there = defined(TYPED)
    wanted = there.model_copy(update={"source": "main.lab.others"})
    advice = other(NAME, there, wanted, differences(there, wanted))
    assert f"tessera index drop {NAME}" in advice
    assert "catalog update" not in advice


def test_a_pace_is_of_lately_and_of_the_generation_that_is_being_built() -> None:
    building: dict[str, Any] = {"state": IndexState.BUILDING, "building": 1}
    slow = [told(seconds=each, read=each, waiting=9000, **building) for each in (0, 60, 120)]
    fast = told(seconds=180, read=6120, waiting=3000, **building)
    assert pace_of().rate is None
    assert pace_of(slow[0]).rate is None
    assert pace_of(*slow).rate == 1
    pace = pace_of(*slow, fast)
    assert pace.rate == 100
    assert line(fast, pace) == (
        f"{NAME} is BUILDING generation 1: 6,120 of 9,120 rows (67%), 100 a second, 30 s left"
    )
    anew = told(seconds=181, read=50, waiting=9070, state=IndexState.BUILDING, building=2)
    pace.take(anew)
    assert pace.rate is None


@given(st.lists(st.tuples(st.floats(0.001, 100), st.integers(0, 10**9)), max_size=20))
def test_a_pace_never_goes_backwards(steps: list[tuple[float, int]]) -> None:
    pace, at = Pace(), 0.0
    for elapsed, read in steps:
        at += elapsed
        pace.take(told(seconds=at, read=read))
        assert pace.rate is None or pace.rate > 0


def test_a_line_says_what_is_there_or_what_is_wrong_and_what_to_do() -> None:
    ready = told(rows=1200, chunks=3400, freshness_ms=840, generation=1)
    assert line(ready, Pace()) == (
        f"{NAME} is READY: 1,200 rows in 3,400 chunks; the latest change was found after 840 ms"
    )
    failed = told(IndexState.FAILED, reason="no such topic", remedy="make it")
    assert line(failed, Pace()) == f"{NAME} is FAILED: no such topic\n  what to do: make it"
    rebuilt = told(IndexState.BUILDING, generation=1, building=2)
    assert line(rebuilt, Pace()) == f"{NAME} is BUILDING generation 2, queries see generation 1"
    assert line(told(IndexState.UNKNOWN), Pace()) == f"{NAME} is gone"


def test_a_goal_is_reached_by_what_was_asked_for_and_by_nothing_before() -> None:
    before = told(generation=1)
    assert built(1)(before)
    assert not built(2)(before)
    assert not built(2)(told(IndexState.FAILED, generation=1))
    assert built(2)(told(IndexState.FAILED, generation=1, building=2))
    assert not built(2)(told(IndexState.BUILDING, generation=1, building=2))
    assert built(2)(told(generation=2))
    assert not followed(3)(told(triggered=2))
    assert followed(3)(told(triggered=3))
    assert resumed(told(IndexState.DEGRADED))
    assert not resumed(told(IndexState.PAUSED))
    assert gone(told(IndexState.UNKNOWN))
    assert holds(told(generation=1))
    assert not holds(told(IndexState.FAILED, reason="no such topic"))
    assert not holds(None)


async def news_of(*told_of: IndexReported) -> AsyncGenerator[IndexReported | None, None]:
    for report in told_of:
        yield report
    await asyncio.Event().wait()


async def test_waiting_goes_by_one_index_and_shows_a_line_for_each_tenth(
    capsys: pytest.CaptureFixture[str],
) -> None:
    building: dict[str, Any] = {"state": IndexState.BUILDING, "building": 1}
    steps = [told(seconds=n, read=n, waiting=100 - n, **building) for n in range(100)]
    other_one = replace(told(generation=1), index="main.lab.other")
    end = told(seconds=101, generation=1, read=100)
    async with aclosing(news_of(other_one, *steps, end)) as events:
        waiting = Reports(NAME, [], events, Screen(quiet=False))
        assert await waiting.until(built(1), "left") == end
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 10
    assert f"{NAME} is BUILDING generation 1: 50 of 100 rows (50%)" in said
    assert "1.0 a second, 50 s left" in said


async def test_who_leaves_is_told_at_once_that_it_goes_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with aclosing(news_of(told(IndexState.BUILDING, building=1))) as events:
        waiting = Reports(NAME, [], events, Screen(quiet=False))
        task = asyncio.create_task(waiting.until(built(1), "look again so"))
        while waiting.last is None:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert capsys.readouterr().err.endswith("look again so\n")


async def test_silence_names_what_was_told_last_and_how_to_start_what_tells(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "SILENT_S", 0.01)
    monkeypatch.setattr(watching, "GIVE_UP_S", 0.1)
    before = [told(IndexState.FAILED, reason="no such topic")]
    async with aclosing(news_of()) as events:
        waiting = Reports(NAME, before, events, Screen(quiet=False))
        with pytest.raises(Unclear, match="tessera up --only indexer"):
            await waiting.until(built(1), "left")
    said = capsys.readouterr().err
    assert "FAILED: no such topic" in said
    assert "tessera up --only indexer" in said


async def test_a_board_takes_up_what_is_made_and_lets_go_what_is_gone() -> None:
    made = replace(told(IndexState.BUILDING, building=1), index="main.lab.new")
    hidden = replace(told(), index="main.lab.hidden")
    end = told(IndexState.UNKNOWN)

    async def names() -> set[str]:
        return {NAME, "main.lab.new"}

    board = Board({NAME}, [told(generation=1, rows=5)])
    shown = []
    async with aclosing(news_of(hidden, made, end)) as events:
        async for report in board.follow(events, names):
            shown.append(report)
            if report == end:
                break
    assert shown == [made, end]
    assert board.line(made) == "main.lab.new is BUILDING generation 1"


@pytest.mark.parametrize("module", [reports, definitions])
def test_the_examples_of_the_command_are_true(module: Any) -> None:
    assert doctest.testmod(module).failed == 0


def test_what_is_typed_wrong_reaches_no_topic() -> None:
    for words, said in (
        (["create", "docs", "--source", NOTES, "--text", "body"], "three levels"),
        (["create", NAME, "--source", NOTES], "--text"),
    ):
        refused = CliRunner().invoke(indexes.app, words)
        assert isinstance(refused.exception, Unclear)
        assert said in str(refused.exception)
