"""Calls of tools from a routed request to its end, with processes killed in the middle."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from infra.secrets import resolve
from schemas.events import InferenceRouted, Reason
from tests.broker.climbing import STEPS, Stair, Step, climbed
from tests.broker.tooling import (
    EFFECTS,
    LOST_LATER,
    LOST_SOON,
    PATIENCE_S,
    VISIBILITY_MS,
    Yard,
    id_of,
    lines,
    tools_bus,
    tools_stack,
    yard,
)
from tests.harness import Process
from workers.tools.calls import RUNNERS

__all__ = ["tools_bus", "tools_stack", "yard"]

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module", autouse=True)
def worker(yard: Yard) -> Iterator[Process]:
    """The worker of the pool, which every test here must leave alive."""
    with yard.worker() as worker:
        yield worker
        assert worker.child.poll() is None


def began(notes: Path) -> int:
    """Returns how often something began."""
    return lines(notes).count("began")


def holder(notes: Path) -> int:
    """Returns the process that began last."""
    told = [line.split() for line in notes.read_text().splitlines()]
    return [int(pid) for what, _, pid in told if what == "began"][-1]


def test_a_call_runs_once_however_often_it_is_delivered(yard: Yard) -> None:
    notes = yard.notes()
    call = yard.call("hookless", notes=notes)
    with yard.executor():
        yard.send(call)
        [first] = yard.answers(call)
        yard.send(call, call)
        assert yard.answers(call, 3) == [first] * 3
    assert first["result"]["key"] == id_of(call)
    assert lines(notes) == ["began", "effect"]


LACKS = "tests.broker.effects:open_nowhere"
SAID = "python cannot be run here: this machine has no effects"


def test_an_executor_serves_all_languages_but_one_that_lacks_something(yard: Yard) -> None:
    runners = json.dumps({"python": LACKS, "sql": EFFECTS})
    here, nowhere = yard.call("other", notes=yard.notes()), yard.call("key")
    with yard.executor(TOOLS_RUNNERS=runners):
        yard.send(nowhere, here)
        [refused], [answered] = yard.answers(nowhere), yard.answers(here)
    assert refused == {"error": {"kind": "source", "message": SAID}}
    assert answered["result"]["key"] == id_of(here)


def test_an_executor_that_can_run_no_language_ends_and_says_why(yard: Yard) -> None:
    runners = json.dumps(dict.fromkeys(RUNNERS, LACKS))
    with pytest.raises(AssertionError, match=SAID), yard.executor(TOOLS_RUNNERS=runners):
        pass


def test_what_cannot_be_called_is_answered_with_what_is_wrong(yard: Yard) -> None:
    notes = yard.notes()
    odd = yard.call("pure", notes=notes, count=3)
    texts = yard.call("pure", notes=notes)
    texts = replace(texts, request=replace(texts.request, inputs=("{",)))
    gone = yard.call("pure", notes=notes)
    gone = replace(gone, route=replace(gone.route, entity="main.tools.pure@7"))
    yard.send(odd, texts, gone)
    kinds = [yard.answers(each)[0]["error"]["kind"] for each in (odd, texts, gone)]
    assert kinds == ["arguments", "arguments", "source"]
    assert "additionalProperties" in yard.answers(odd)[0]["error"]["message"]
    assert lines(notes) == []


def test_an_id_that_was_used_for_another_call_is_refused(yard: Yard) -> None:
    notes = yard.notes()
    call = yard.call("pure", notes=notes)
    with yard.executor():
        yard.send(call)
        yard.answers(call)
    others = [
        replace(call, request=replace(call.request, inputs=(json.dumps({"notes": "other"}),))),
        replace(call, request=replace(call.request, principal="bob")),
    ]
    for number, other in enumerate(others, 2):
        yard.send(other)
        yard.waits_for(lambda number=number: len(yard.ends(call)) >= number, "another end")
    refusals = [each.refusal for each in yard.ends(call) if each.refusal]
    assert [(each.reason, each.field) for each in refusals] == [
        (Reason.REQUEST_INVALID, "request_id")
    ] * 2
    assert lines(notes) == ["began", "effect"]


@pytest.mark.parametrize("function", ["pure", "idempotent"])
def test_what_may_be_repeated_is_begun_once_more_under_its_key_when_its_executor_dies(
    yard: Yard, tmp_path: Path, function: str
) -> None:
    notes, go = yard.notes(), tmp_path / "go"
    call = yard.call(function, notes=notes, until=go)
    with yard.executor(**LOST_SOON) as first, yard.executor(**LOST_SOON) as second:
        yard.send(call)
        yard.waits_for(lambda: began(notes) == 1, "the beginning")
        killed = next(each for each in (first, second) if each.child.pid == holder(notes))
        killed.kill()
        yard.waits_for(lambda: began(notes) == 2, "another beginning")
        go.touch()
        [answer] = yard.answers(call)
    assert answer["result"]["key"] == id_of(call)
    assert lines(notes, call) == ["began", "began", "effect"]


def test_what_needs_a_hook_is_asked_and_not_repeated_where_it_was_done(
    yard: Yard, tmp_path: Path
) -> None:
    notes = yard.notes()
    call = yard.call("hooked", notes=notes, after=tmp_path / "never")
    killed_after(yard, call, notes, "effect")
    with yard.executor():
        assert yard.answers(call) == [{"result": "it was there"}]
    assert lines(notes) == ["began", "effect", "asked"]


def test_what_needs_a_hook_is_repeated_where_it_says_that_nothing_was_done(
    yard: Yard, tmp_path: Path
) -> None:
    notes, go = yard.notes(), tmp_path / "go"
    call = yard.call("hooked", notes=notes, until=go)
    killed_after(yard, call, notes, "began")
    go.touch()
    with yard.executor():
        [answer] = yard.answers(call)
    assert answer["result"]["key"] == id_of(call)
    assert lines(notes) == ["began", "asked", "began", "effect"]


def test_what_has_no_hook_is_left_to_a_person_and_never_repeated(
    yard: Yard, tmp_path: Path
) -> None:
    notes, go = yard.notes(), tmp_path / "go"
    call = yard.call("hookless", notes=notes, until=go)
    killed_after(yard, call, notes, "began")
    go.touch()
    with yard.executor():
        [answer] = yard.answers(call)
        assert answer["error"]["kind"] == "unsettled"
        yard.send(call)
        assert yard.answers(call, 2) == [answer] * 2
    assert lines(notes) == ["began"]


def killed_after(yard: Yard, call: InferenceRouted, notes: Path, what: str) -> None:
    """Has a call run until something happened, and its executor killed then."""
    with yard.executor(**LOST_SOON) as executor:
        yard.send(call)
        yard.waits_for(lambda: what in lines(notes), f"{what} of the call")
        executor.kill()


def test_a_call_three_times_as_long_as_the_queue_waits_runs_in_one_place_and_goes_on_in_another(
    yard: Yard,
) -> None:
    step_s = 3 * VISIBILITY_MS / 1000 / STEPS
    taken: list[tuple[int, int]] = []

    def take(stair: Stair) -> Step:
        step = stair.step()
        until = time.monotonic() + step_s
        yard.waits_for(lambda: time.monotonic() > until, "the time that a step takes")
        taken.append((step.number, step.pid))
        return step

    pair = [yard.executor(TOOLS_RUNNERS="{}", **LOST_LATER) for _ in range(2)]
    with climbed(PATIENCE_S) as stair, pair[0] as first, pair[1] as second:
        call = yard.call("climb", port=stair.port)
        yard.send(call)
        for _ in range(STEPS // 2):
            take(stair).end()
        in_flight = take(stair)
        yard.waits_for(lambda: refused(call, first, second) >= 1, "being given out again")
        killed, other = (first, second) if first.child.pid == in_flight.pid else (second, first)
        killed.kill()
        in_flight.drop()
        for _ in range(STEPS // 2, STEPS):
            take(stair).end()
        assert yard.answers(call) == [{"result": [STEPS // 2, STEPS]}]
        assert stair.empty()
    before = [(number, killed.child.pid) for number in range(STEPS // 2 + 1)]
    after = [(number, other.child.pid) for number in range(STEPS // 2, STEPS)]
    assert taken == before + after


def refused(call: InferenceRouted, *processes: Process) -> int:
    """Returns how often the journal has let nobody begin a call that the queue gave out."""
    logged = [line for each in processes for line in each.log(most=10**8).splitlines()]
    return sum("call not begun again" in line and id_of(call) in line for line in logged)


def test_an_executor_that_must_end_gives_its_call_to_another_at_once(
    yard: Yard, tmp_path: Path
) -> None:
    notes, go = yard.notes(), tmp_path / "go"
    call = yard.call("pure", notes=notes, until=go)
    with yard.executor() as first, yard.executor() as second:
        yard.send(call)
        yard.waits_for(lambda: began(notes) == 1, "the beginning")
        ended = next(each for each in (first, second) if each.child.pid == holder(notes))
        assert ended.stop() == 0
        yard.waits_for(lambda: began(notes) == 2, "another beginning")
        go.touch()
        yard.answers(call)
    assert lines(notes) == ["began", "stopped", "began", "effect"]


def test_a_cancelled_call_is_stopped_and_one_that_waits_is_never_begun(
    yard: Yard, tmp_path: Path
) -> None:
    notes, late = yard.notes(), yard.notes()
    call = yard.call("pure", notes=notes, until=tmp_path / "never")
    waiting = yard.call("pure", notes=late)
    with yard.executor(TOOLS_AT_ONCE="1"):
        yard.send(call)
        yard.waits_for(lambda: began(notes) == 1, "the beginning")
        yard.send(waiting)
        yard.cancel(waiting)
        yard.waits_for(lambda: yard.ends(waiting), "the end of the one that waits")
        yard.cancel(call)
        yard.waits_for(lambda: lines(notes) == ["began", "stopped"], "the stop")
        yard.waits_for(lambda: yard.ends(call), "the end")
        after = yard.call("pure", notes=notes)
        yard.send(after)
        yard.answers(after)
    # Worker and executor both hear of it; who is the first says so.
    [end] = yard.ends(call)
    if end.completion is not None:
        said = {"error": {"kind": "limit", "message": "the caller cancelled it"}}
        assert json.loads(end.completion.content) == said
    else:
        assert end.refusal is not None
        assert end.refusal.reason is Reason.CANCELLED
    assert lines(late) == []


def test_a_function_in_python_knows_its_key_and_its_process_is_gone_with_a_cancelled_call(
    yard: Yard,
) -> None:
    key, nap = yard.call("key"), yard.call("nap")
    with yard.executor(TOOLS_RUNNERS="{}") as executor:
        yard.send(key)
        assert yard.answers(key) == [{"result": id_of(key)}]
        process = psutil.Process(executor.child.pid)
        yard.waits_for(lambda: not process.children(recursive=True), "the end of its process")
        yard.send(nap)
        yard.waits_for(lambda: process.children(recursive=True), "a process of the call")
        yard.cancel(nap)
        yard.waits_for(lambda: not process.children(recursive=True), "the end of that process")
        assert process.is_running()


def test_a_call_ends_with_its_deadline(yard: Yard, tmp_path: Path) -> None:
    notes = yard.notes()
    with yard.executor():
        call = yard.call("pure", 30, notes=notes, until=tmp_path / "never")
        yard.send(call)
        yard.waits_for(lambda: yard.ends(call), "the end")
        yard.waits_for(lambda: lines(notes) == ["began", "stopped"], "the stop")


def test_slow_calls_block_nobody_and_take_neither_threads_nor_sessions(
    yard: Yard, worker: Process, tmp_path: Path
) -> None:
    notes, go = yard.notes(), tmp_path / "go"
    slow = [yard.call("pure", notes=notes, until=go) for _ in range(300)]
    with yard.executor(TOOLS_AT_ONCE="320"):
        yard.send(*slow)
        yard.waits_for(lambda: began(notes) >= 300, "300 beginnings")
        fast = [yard.call("pure", notes=yard.notes()) for _ in range(20)]
        yard.send(*fast)
        for each in fast:
            yard.answers(each)
        assert psutil.Process(worker.child.pid).num_threads() < 150
        assert sessions(yard) <= 2 * 5
        go.touch()
        for each in slow:
            yard.answers(each)
    assert lines(notes).count("effect") >= 300


def test_a_queue_that_loses_all_is_told_again(yard: Yard) -> None:
    notes = yard.notes()
    call = yard.call("hookless", notes=notes)
    with redis.Redis.from_url(yard.settings.broker) as queue:
        # Calls that were given out again may be left, whose executor was gone by then.
        queue.delete("tools")
        yard.send(call)
        yard.waits_for(lambda: queue.llen("tools") == 1, "a call in the queue")
        queue.flushdb()
    with yard.executor():
        yard.answers(call)
    assert lines(notes) == ["began", "effect"]


def test_calls_outlast_a_journal_that_loses_its_sessions(yard: Yard, tmp_path: Path) -> None:
    notes, go = yard.notes(), tmp_path / "go"
    call = yard.call("hookless", notes=notes, until=go)
    with yard.executor():
        yard.send(call)
        yard.waits_for(lambda: began(notes) == 1, "the beginning")
        with superuser(yard) as session:
            session.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                (yard.settings.database,),
            )
        go.touch()
        yard.answers(call)
    assert lines(notes) == ["began", "effect"]


def test_a_stopped_executor_loses_its_call_and_what_it_says_later_counts_no_more(
    yard: Yard, tmp_path: Path
) -> None:
    notes, go = yard.notes(), tmp_path / "go"
    call = yard.call("idempotent", notes=notes, until=go)
    with yard.executor(**LOST_SOON) as first, yard.executor(**LOST_SOON) as second:
        yard.send(call)
        yard.waits_for(lambda: began(notes) == 1, "the beginning")
        frozen = next(each for each in (first, second) if each.child.pid == holder(notes))
        other = second if frozen is first else first
        os.kill(frozen.child.pid, signal.SIGSTOP)
        yard.waits_for(lambda: began(notes) == 2, "another beginning")
        go.touch()
        [answer] = yard.answers(call)
        os.kill(frozen.child.pid, signal.SIGCONT)
        frozen.ready()
        yard.send(call)
        assert yard.answers(call, 2) == [answer] * 2
    assert answer["result"]["pid"] == other.child.pid


def sessions(yard: Yard) -> int:
    """Returns how many sessions there are with the journal."""
    with superuser(yard) as session:
        found = session.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = %s", (yard.settings.database,)
        ).fetchone()
    assert found
    return int(str(found[0]))


def superuser(yard: Yard) -> psycopg.Connection[tuple[object, ...]]:
    """Returns a session beside the journal's."""
    at = yard.postgres
    return psycopg.connect(
        host=at.host,
        port=at.port,
        user=at.user,
        password=resolve(at.password),
        dbname="postgres",
        autocommit=True,
    )
