"""Token deltas that come close together travel together."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.events import Delta, ToolCallDelta
from tests.harness import soon
from workers.inference import LONGEST_WINDOW_S, Coalescer, Pace

WINDOW_S = 0.02
# Long enough that it cannot pass while a test runs.
ENDLESS_S = 3600.0
# More parts a second than any test has.
MANY = 1e6


def said(*contents: str) -> list[Delta]:
    return [Delta(content=content) for content in contents]


def forget(delta: Delta) -> None:
    """Sends nowhere."""


def coalescing(window_s: float, sent: list[Delta]) -> Coalescer:
    return Coalescer(Pace(window_s, MANY), sent.append)


async def test_the_first_delta_goes_at_once() -> None:
    sent: list[Delta] = []
    coalescer = coalescing(ENDLESS_S, sent)
    coalescer.add(Delta(content="a"))
    assert sent == said("a")
    coalescer.close()


async def test_deltas_within_the_window_are_joined() -> None:
    sent: list[Delta] = []
    coalescer = coalescing(ENDLESS_S, sent)
    for content in "abcd":
        coalescer.add(Delta(content=content))
    assert sent == said("a")
    coalescer.flush()
    assert sent == said("a", "bcd")
    coalescer.close()


async def test_what_waits_goes_at_the_end_of_the_window_though_nothing_more_comes() -> None:
    sent: list[Delta] = []
    coalescer = coalescing(WINDOW_S, sent)
    started = asyncio.get_running_loop().time()
    for content in "abc":
        coalescer.add(Delta(content=content))

    async def all_sent() -> bool:
        return len(sent) == 2

    await soon(all_sent, what="the end of the window")
    # The loop's clock is coarser than the timer.
    assert asyncio.get_running_loop().time() - started > WINDOW_S * 0.9
    assert sent == said("a", "bc")


async def test_after_a_silent_window_a_delta_goes_at_once_again() -> None:
    sent: list[Delta] = []
    coalescer = coalescing(WINDOW_S, sent)
    coalescer.add(Delta(content="a"))

    async def at_once() -> bool:
        before = len(sent)
        coalescer.add(Delta(content="b"))
        went = len(sent) == before + 1
        await asyncio.sleep(2 * WINDOW_S)
        return went

    await soon(at_once, what="a silent window")


async def test_what_waits_when_it_closes_is_never_sent() -> None:
    sent: list[Delta] = []
    coalescer = coalescing(0, sent)
    coalescer.add(Delta(content="a"))
    coalescer.add(Delta(content="b"))
    coalescer.close()
    # A timer set now fires after any that the coalescer could have left behind.
    passed = asyncio.Event()
    asyncio.get_running_loop().call_later(WINDOW_S, passed.set)
    await passed.wait()
    assert sent == said("a")


async def test_the_window_grows_with_the_streams_that_say_something_and_has_a_bound() -> None:
    pace = Pace(WINDOW_S, most_per_s=1000)
    streams = [Coalescer(pace, forget) for _ in range(1000)]
    windows: list[float] = []
    for stream in streams:
        stream.add(Delta(content="a"))
        stream.add(Delta(content="b"))
        windows.append(pace.window_s)
    assert windows[0] == windows[19] == WINDOW_S
    assert windows[99] == 0.1
    assert windows[-1] == LONGEST_WINDOW_S
    for stream in streams:
        stream.close()
        stream.close()
    assert pace.window_s == WINDOW_S


async def test_a_stream_that_has_fallen_silent_makes_nobody_wait() -> None:
    pace = Pace(0, most_per_s=10)
    stream = Coalescer(pace, forget)
    stream.add(Delta(content="a"))
    assert pace.window_s == 0.1

    async def alone() -> bool:
        return pace.window_s == 0

    await soon(alone, what="a silent window")
    stream.close()
    assert pace.window_s == 0


async def test_a_stream_that_cannot_send_makes_nobody_wait_once_it_is_closed() -> None:
    def refuse(delta: Delta) -> None:
        raise ValueError(delta)

    pace = Pace(WINDOW_S, most_per_s=1)
    stream = Coalescer(pace, refuse)
    with pytest.raises(ValueError, match="a"):
        stream.add(Delta(content="a"))
    stream.close()
    assert pace.window_s == WINDOW_S


async def test_streams_together_send_as_many_parts_a_second_as_they_may() -> None:
    pace, sent = Pace(0.001, most_per_s=500), list[float]()
    loop = asyncio.get_running_loop()
    streams = [Coalescer(pace, lambda _: sent.append(loop.time())) for _ in range(50)]
    began = loop.time()

    async def half_a_second() -> bool:
        for stream in streams:
            stream.add(Delta(content="a"))
        return loop.time() - began > 0.5

    await soon(half_a_second, what="half a second")
    for stream in streams:
        stream.close()
    # Each sends its first delta at once, and its second before all the others have begun.
    assert len(sent) - 2 * len(streams) <= 500 * (loop.time() - began)


CALLS = st.lists(
    st.builds(
        ToolCallDelta,
        index=st.integers(0, 3),
        id=st.text(max_size=3),
        arguments=st.text(max_size=5),
    ),
    max_size=3,
).map(tuple)
DELTAS = st.builds(Delta, content=st.text(max_size=5), tool_calls=CALLS)
FLUSH = st.just("flush")
PAUSE = st.floats(min_value=0, max_value=0.003)


@given(script=st.lists(DELTAS | FLUSH | PAUSE, max_size=25))
@settings(deadline=None, max_examples=60)
def test_content_and_tool_calls_come_out_whole_and_in_order(
    script: list[Delta | str | float],
) -> None:
    sent: list[Delta] = []

    async def follow() -> None:
        coalescer = coalescing(0.001, sent)
        for each in script:
            if isinstance(each, Delta):
                coalescer.add(each)
            elif isinstance(each, float):
                await asyncio.sleep(each)
            else:
                coalescer.flush()
        coalescer.flush()
        coalescer.close()

    asyncio.run(follow())
    given_in = [each for each in script if isinstance(each, Delta)]
    assert "".join(delta.content for delta in sent) == "".join(each.content for each in given_in)
    assert [call for delta in sent for call in delta.tool_calls] == [
        call for each in given_in for call in each.tool_calls
    ]
    assert len(sent) <= len(given_in)
