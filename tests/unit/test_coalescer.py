"""Token deltas that come close together travel together."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.events import Delta, ToolCallDelta
from tests.harness import soon
from workers.inference import Coalescer

WINDOW_S = 0.02
# Long enough that it cannot pass while a test runs.
ENDLESS_S = 3600.0


def said(*contents: str) -> list[Delta]:
    return [Delta(content=content) for content in contents]


async def test_the_first_delta_goes_at_once() -> None:
    sent: list[Delta] = []
    coalescer = Coalescer(ENDLESS_S, sent.append)
    coalescer.add(Delta(content="a"))
    assert sent == said("a")
    coalescer.close()


async def test_deltas_within_the_window_are_joined() -> None:
    sent: list[Delta] = []
    coalescer = Coalescer(ENDLESS_S, sent.append)
    for content in "abcd":
        coalescer.add(Delta(content=content))
    assert sent == said("a")
    coalescer.flush()
    assert sent == said("a", "bcd")
    coalescer.close()


async def test_what_waits_goes_at_the_end_of_the_window_though_nothing_more_comes() -> None:
    sent: list[Delta] = []
    coalescer = Coalescer(WINDOW_S, sent.append)
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
    coalescer = Coalescer(WINDOW_S, sent.append)
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
    coalescer = Coalescer(0, sent.append)
    coalescer.add(Delta(content="a"))
    coalescer.add(Delta(content="b"))
    coalescer.close()
    # A timer set now fires after any that the coalescer could have left behind.
    passed = asyncio.Event()
    asyncio.get_running_loop().call_later(WINDOW_S, passed.set)
    await passed.wait()
    assert sent == said("a")


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
        coalescer = Coalescer(0.001, sent.append)
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
