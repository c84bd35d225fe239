"""Checkpoints of functions in Python: what is saved, when, and what cannot be forged."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.sandboxes import BOUNDS, call, fails, nothing_left_behind, relatives
from workers.tools import Checkpoint, Fault
from workers.tools.sandbox import PACE_S, run

MOST = BOUNDS.checkpoint_bytes
UNREADABLE = "it wrote what is no result: it returns one, and prints nothing"


@pytest.fixture(autouse=True)
def _nothing_stays() -> Iterator[None]:
    with nothing_left_behind():
        yield


class Kept:
    """Keeps checkpoints in memory.

    Args:
        takes_s: How long it takes to make one durable.

    Attributes:
        saved: All of them, in their order.
    """

    def __init__(self, takes_s: float = 0) -> None:
        self.saved: list[Any] = []
        self._takes_s = takes_s

    async def save(self, text: str) -> None:
        """Keeps one."""
        await asyncio.sleep(self._takes_s)
        self.saved.append(json.loads(text))

    def after(self, last: str | None) -> Checkpoint:
        """Returns what a call gets after an attempt that saved this."""
        return Checkpoint(last=last, save=self.save)


class Alarming(Kept):
    """Keeps checkpoints, and alarms who saves the first one while that is not durable."""

    def __init__(self) -> None:
        super().__init__(takes_s=2)
        self._others = relatives()

    async def save(self, text: str) -> None:
        """Keeps one."""
        if not self.saved:
            [saver] = relatives() - self._others
            os.kill(saver, signal.SIGALRM)
        await super().save(text)


STEPS = """
    def act(steps, checkpoint):
        done = [*(checkpoint.last or ())]
        for step in range(len(done), steps):
            done.append(step)
            checkpoint.save(done)
        return {"last": checkpoint.last, "done": done}
"""


async def test_a_function_saves_checkpoints_and_goes_on_from_the_last_one() -> None:
    kept = Kept()
    assert await call(STEPS, checkpoint=kept.after(None), steps=2) == {"last": None, "done": [0, 1]}
    assert kept.saved == [[0], [0, 1]]
    said = await call(STEPS, checkpoint=kept.after("[0, 1]"), steps=3)
    assert (said, kept.saved[2:]) == ({"last": [0, 1], "done": [0, 1, 2]}, [[0, 1, 2]])


async def test_any_json_value_comes_back_as_it_was_saved() -> None:
    kept = Kept()
    values = [None, 0.1, "ü€\n\u0000", {"ok": [True, {}]}, "x" * (MOST - 2)]
    source = """
        def act(values, checkpoint):
            for value in values:
                checkpoint.save(value)
            return checkpoint.last
    """
    last = await call(source, checkpoint=kept.after(json.dumps(values)), values=values)
    assert last == kept.saved == values


async def test_a_checkpoint_is_no_argument_of_the_callers() -> None:
    mine, forged = Kept().after('"mine"'), {"checkpoint": {"last": "forged"}}
    takes = "def act(checkpoint): return checkpoint.last"
    assert await run(takes, "act", forged, BOUNDS, "", checkpoint=mine) == "mine"
    assert await call("def act(): return 1", checkpoint=mine) == 1
    assert (await fails(takes)).fault is Fault.ARGUMENTS


async def test_saving_returns_when_it_is_durable() -> None:
    kept = Kept(takes_s=0.3)
    source = """
        import time

        def act(checkpoint):
            began = time.monotonic()
            checkpoint.save(1)
            return time.monotonic() - began
    """
    assert await call(source, checkpoint=kept.after(None)) >= 0.3
    assert kept.saved == [1]


async def test_threads_and_coroutines_save_side_by_side() -> None:
    kept = Kept()
    source = """
        import asyncio

        async def act(checkpoint):
            checkpoint.save(-1)
            saves = (asyncio.to_thread(checkpoint.save, number) for number in range(20))
            await asyncio.gather(*saves)
            return "done"
    """
    assert await call(source, checkpoint=kept.after(None)) == "done"
    assert sorted(kept.saved) == list(range(-1, 20))


async def test_a_wait_that_a_signal_cuts_short_does_not_end_the_next_one_early() -> None:
    kept = Alarming()
    source = """
        import signal, time

        def stop(*_):
            raise TimeoutError

        def act(checkpoint):
            signal.signal(signal.SIGALRM, stop)
            try:
                checkpoint.save("first")
            except TimeoutError:
                began = time.monotonic()
                checkpoint.save("second")
                return time.monotonic() - began
    """
    assert await call(source, checkpoint=kept.after(None)) >= 2
    assert kept.saved == ["first", "second"]


async def test_a_signal_handler_saves_nothing_while_its_thread_saves() -> None:
    kept = Alarming()
    source = """
        import signal

        def act(checkpoint):
            refused = []

            def save(*_):
                try:
                    checkpoint.save("within")
                except RuntimeError as error:
                    refused.append(str(error))

            signal.signal(signal.SIGALRM, save)
            checkpoint.save("first")
            checkpoint.save("second")
            return refused
    """
    [refused] = await call(source, checkpoint=kept.after(None))
    assert "it saves a checkpoint already" in refused
    assert kept.saved == ["first", "second"]


@pytest.mark.parametrize(
    ("value", "fault", "words"),
    [
        (f"'x' * {MOST - 1}", Fault.LIMIT, f"its checkpoint is larger than {MOST} bytes"),
        ("'x' * (1 << 22)", Fault.LIMIT, f"its checkpoint is larger than {MOST} bytes"),
        ("object()", Fault.RAISED, "TypeError: Object of type object is not JSON serializable"),
        ("float('nan')", Fault.RAISED, "ValueError: Out of range float values"),
        ("'\\ud800'", Fault.RAISED, "UnicodeEncodeError"),
    ],
)
async def test_what_is_no_checkpoint_is_not_saved_and_told(
    value: str, fault: Fault, words: str
) -> None:
    kept = Kept()
    failed = await fails(
        f"def act(checkpoint): checkpoint.save({value})", checkpoint=kept.after(None)
    )
    assert (failed.fault, words in failed.message) == (fault, True), failed
    caught = f"""
        def act(checkpoint):
            try:
                checkpoint.save({value})
            except (TypeError, ValueError):
                checkpoint.save("small")
    """
    await call(caught, checkpoint=kept.after(None))
    assert kept.saved == ["small"]


ON_EVERY_DESCRIPTOR = """
    import os

    def act(checkpoint, said):
        for descriptor in range(3, 64):
            try:
                os.write(descriptor, said.encode("latin-1"))
            except OSError:
                pass
        checkpoint.save("honest")
        return "a result"
"""


@pytest.mark.parametrize(
    "said",
    [
        "\n",
        "garbage\n",
        "7\n",
        "1\n2\n3\n",
        "[]\n",
        "{}\n",
        '{"result": 1}\n',
        '{"checkpoint": 1}\n',
        '{"number": "1", "checkpoint": 1}\n',
        '{"number": 1, "checkpoint": NaN}\n',
        '{"number": 1, "checkpoint": 1e999}\n',
        '{"number": 1, "checkpoint": "\\ud800"}\n',
        '{"number": 1, "checkpoint": ' + "[" * 30_000 + "]" * 30_000 + "}\n",
        '{"number": ' + "9" * 5000 + ', "checkpoint": 1}\n',
        '{"number": 1, ',
        "\xff\n",
    ],
)
async def test_what_a_function_writes_in_place_of_a_checkpoint_cannot_harm(said: str) -> None:
    kept = Kept()
    failed = await fails(ON_EVERY_DESCRIPTOR, checkpoint=kept.after(None), said=said)
    assert (failed.fault, failed.message) == (Fault.RAISED, UNREADABLE)
    assert kept.saved == []


@pytest.mark.parametrize(
    ("size", "words"),
    [(MOST, "its checkpoint is larger"), (BOUNDS.output_bytes + MOST, "its result is larger")],
)
async def test_what_it_writes_itself_is_bounded_too(size: int, words: str) -> None:
    kept = Kept()
    said = '{"number": 1, "checkpoint": "' + "x" * size + '"}\n'
    source = ON_EVERY_DESCRIPTOR.replace('said.encode("latin-1")', "said.encode()")
    failed = await fails(source, checkpoint=kept.after(None), said=said)
    assert (failed.fault, words in failed.message) == (Fault.LIMIT, True), failed
    assert kept.saved == []


async def test_what_saves_without_end_is_paced_and_ends_with_its_time() -> None:
    kept = Kept()
    bounds = replace(BOUNDS, wall_s=10)
    endless = "def act(checkpoint):\n    while True: checkpoint.save('x' * 60_000)"
    began = time.monotonic()
    failed = await fails(endless, bounds, checkpoint=kept.after(None))
    assert (failed.fault, failed.message) == (Fault.LIMIT, "it took longer than 10 s")
    assert time.monotonic() - began < 60
    assert 1 <= len(kept.saved) <= 10 / PACE_S


async def test_what_hears_no_answer_still_waits_for_no_more_than_its_time() -> None:
    source = """
        import os

        def act(checkpoint):
            for descriptor in range(3, 64):
                try:
                    while True:
                        os.write(descriptor, b'{"number": 1, "checkpoint": 1}\\n')
                except OSError:
                    pass
    """
    kept = Kept()
    failed = await fails(source, replace(BOUNDS, wall_s=2), checkpoint=kept.after(None))
    assert failed.fault is Fault.LIMIT
    assert len(kept.saved) <= 2 / PACE_S


async def test_a_function_that_gives_its_channel_up_learns_that_nothing_is_saved() -> None:
    source = """
        import os

        def act(checkpoint):
            for descriptor in range(3, 64):
                try:
                    os.read(descriptor, 0)
                    os.dup2(0, descriptor)
                except OSError:
                    pass
            checkpoint.save(1)
    """
    kept = Kept()
    failed = await fails(source, checkpoint=kept.after(None))
    assert (failed.fault, "nobody saves its checkpoints" in failed.message) == (Fault.RAISED, True)


async def test_a_call_whose_checkpoint_cannot_be_saved_ends_with_what_went_wrong() -> None:
    async def lost(_: str) -> None:
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        await call(STEPS, checkpoint=Checkpoint(last=None, save=lost), steps=1)
