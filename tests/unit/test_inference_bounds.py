"""How long a try waits, for its turn and for its provider, and what it says was used."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from infra import tokens
from infra.telemetry import now
from schemas.events import (
    Completion,
    Delta,
    FinishReason,
    InferencePart,
    InferenceRequested,
    InferenceRouted,
    Reason,
    Refusal,
    Route,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from tests.harness import soon
from tests.routed import routed
from tests.scripted import Scripted
from tests.unit.test_inference_work import Tried, concluded
from workers.providers import Provider, ProviderRefused

GONE = Refusal(reason=Reason.CANCELLED, message="nobody waits")
CALL = ToolCallDelta(index=0, id="c", name="weather", arguments='{"city": "Paris"}')


def bounded(
    script: object, first_token_ms: int | None = None, idle_ms: int | None = None
) -> InferenceRouted:
    event = routed(script, stream=True)
    route = replace(event.route, first_token_ms=first_token_ms, idle_ms=idle_ms)
    return replace(event, route=route)


@pytest.fixture
def provider(tmp_path: Path) -> Scripted:
    return Scripted(tmp_path / "journal")


class Saying:
    """Says the same to everybody, and how it ends."""

    def __init__(self, *said: Delta | Completion | Exception) -> None:
        self._said = said
        self.closed = False

    async def complete(
        self, request: InferenceRequested, route: Route
    ) -> AsyncGenerator[Delta | Completion, None]:
        try:
            for piece in self._said:
                if isinstance(piece, Exception):
                    raise piece
                yield piece
            await asyncio.Event().wait()
        finally:
            self.closed = True

    async def close(self) -> None:
        """Holds nothing."""


def whole(**more: object) -> Completion:
    given = {"model": "m", "finish_reason": FinishReason.STOP, "usage": Usage(), **more}
    return Completion(**given)  # type: ignore[arg-type]


async def test_a_provider_that_does_not_begin_in_time_is_refused_and_freed() -> None:
    provider = Saying()
    completed = await Tried(bounded({}, first_token_ms=20), provider).perform()
    assert completed.refusal is not None
    assert completed.refusal.reason is Reason.PROVIDER_TIMEOUT
    # It was asked, so it has read the question.
    assert completed.usage is not None
    assert (completed.usage.prompt_tokens > 0, completed.usage.completion_tokens) == (True, 0)
    assert completed.first_token_at is None
    assert provider.closed


async def test_a_provider_that_falls_silent_is_refused_and_freed() -> None:
    provider = Saying(Delta(content="half a"))
    tried = Tried(bounded({}, first_token_ms=60_000, idle_ms=20), provider)
    completed = await tried.perform()
    assert completed.refusal is not None
    assert completed.refusal.reason is Reason.PROVIDER_TIMEOUT
    assert completed.completion is None
    assert tried.text == "half a"
    assert completed.usage is not None
    assert provider.closed


async def test_a_slow_answer_is_no_silence(provider: Scripted) -> None:
    event = bounded({"words": 8, "gap_s": 0.05}, first_token_ms=20_000, idle_ms=20_000)
    assert (await Tried(event, provider).perform()).completion is not None


async def test_without_bounds_a_provider_may_take_its_time() -> None:
    provider = Saying(Delta(content="half a"))
    performing = asyncio.ensure_future(Tried(bounded({}), provider).perform())
    await asyncio.wait([performing], timeout=0.1)
    assert not performing.done()
    performing.cancel()
    with suppress(asyncio.CancelledError):
        await performing
    assert provider.closed


async def test_a_timeout_of_the_providers_own_is_a_surprise() -> None:
    with pytest.raises(TimeoutError):
        await Tried(bounded({}, first_token_ms=60_000), Saying(TimeoutError())).perform()


async def test_a_retry_waits_for_its_turn_and_holds_up_nobody(provider: Scripted) -> None:
    far, due = now() + timedelta(hours=1), now() + timedelta(milliseconds=300)
    held_up = asyncio.ensure_future(Tried(replace(routed(), not_before=far), provider).perform())
    waiting = Tried(replace(routed(stream=True), not_before=due), provider)
    retried = asyncio.ensure_future(waiting.perform())
    assert (await Tried(routed(), provider).perform()).completion is not None
    completed = await retried
    assert completed.started_at >= due
    assert not held_up.done()
    held_up.cancel()
    with suppress(asyncio.CancelledError):
        await held_up
    assert {part.epoch for part in waiting.parts} == {int(completed.started_at.timestamp() * 1000)}


async def test_a_turn_that_has_come_is_not_waited_for(provider: Scripted) -> None:
    event = replace(routed(), not_before=now() - timedelta(hours=1))
    async with asyncio.timeout(60):
        assert (await Tried(event, provider).perform()).completion is not None


async def test_what_was_said_before_a_refusal_is_counted() -> None:
    refused = ProviderRefused(Refusal(reason=Reason.STREAM_CUT, message="cut"))
    said = (Delta(content="half a "), Delta(content="sea", tool_calls=(CALL,)))
    tried = Tried(routed("Tell me."), Saying(*said, refused))
    completed = await tried.perform()
    assert completed.usage == Usage(
        prompt_tokens=tokens.estimate(completed.routed.request),
        completion_tokens=tokens.count(f"half a sea{CALL.arguments}"),
        estimated=True,
    )


async def test_what_the_provider_counted_goes_before_an_estimate() -> None:
    usage = Usage(prompt_tokens=11, completion_tokens=5)
    refused = ProviderRefused(Refusal(reason=Reason.PROVIDER_FAILED, message="no"), usage)
    completed = await Tried(routed(), Saying(Delta(content="half"), refused)).perform()
    assert completed.usage == usage


async def test_a_refusal_before_the_first_word_used_nothing(provider: Scripted) -> None:
    script = {"words": 0, "refuse": "RATE_LIMITED"}
    assert (await Tried(routed(script), provider).perform()).usage is None


async def test_a_try_that_is_given_up_midway_says_what_it_used(provider: Scripted) -> None:
    tried = Tried(routed({"words": 1000, "gap_s": 0.01}, stream=True), provider)
    performing = asyncio.ensure_future(tried.perform())

    async def two_parts() -> bool:
        return len(tried.parts) >= 2

    await soon(two_parts, what="two parts")
    performing.cancel()
    with suppress(asyncio.CancelledError):
        await performing
    usage = concluded(tried.job.give_up(GONE)).usage
    assert usage is not None
    assert usage.estimated
    assert usage.completion_tokens > 0


async def test_a_completion_that_tells_no_usage_gets_an_estimate() -> None:
    call = ToolCall(id="c", name="weather", arguments=CALL.arguments)
    completed = await Tried(
        routed(), Saying(whole(content="the sea", tool_calls=(call,)))
    ).perform()
    assert completed.completion is not None
    usage = completed.completion.usage
    assert usage.estimated
    assert usage.completion_tokens == tokens.count(f"the sea{CALL.arguments}")
    assert usage.prompt_tokens == tokens.estimate(completed.routed.request)
    assert completed.usage is None


async def test_a_completion_that_tells_its_usage_keeps_it() -> None:
    usage = Usage(prompt_tokens=3)
    completed = await Tried(routed(), Saying(whole(usage=usage))).perform()
    assert completed.completion is not None
    assert completed.completion.usage == usage


@pytest.mark.parametrize("parts_to", [None, "reply.v1.acme"])
async def test_a_mirrored_request_is_heard_by_nobody(
    provider: Scripted, parts_to: str | None
) -> None:
    event = replace(routed({"words": 9}, stream=True, parts_to=parts_to), mirrored=True)
    tried = Tried(event, provider)
    completed = await tried.perform()
    assert (tried.emitted, completed.parts) == ([], 0)
    assert completed.completion is not None


async def test_parts_tell_release_whose_policies_hold_and_the_first_what_is_sealed() -> None:
    said = [Delta(content="a"), Delta(content="b")]
    held: Provider = Saying(*said, whole(content="ab"))
    event = replace(routed(json.dumps(""), stream=True), sealed=b"sealed")
    tried = Tried(event, held)
    await tried.perform()
    first, *others = tried.parts
    assert isinstance(first, InferencePart)
    assert (first.endpoint, first.sealed) == (event.request.endpoint, b"sealed")
    assert others
    for part in others:
        assert isinstance(part, InferencePart)
        assert (part.endpoint, part.sealed) == (event.request.endpoint, None)
