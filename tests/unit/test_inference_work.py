"""One try at answering one request: parts on the way, one conclusion."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from infra.settings import InferenceSettings
from infra.telemetry import now
from infra.tokens import estimate
from schemas.events import (
    AuditOutcome,
    AuditRecorded,
    Completion,
    Delta,
    InferenceCompleted,
    InferencePart,
    InferenceReplied,
    InferenceRequested,
    InferenceRouted,
    Reason,
    Refusal,
    Route,
    Usage,
)
from schemas.topics import AUDIT_RECORDED, INFERENCE_COMPLETED, INFERENCE_PARTS, Outgoing
from tests.harness import soon
from tests.routed import routed
from tests.scripted import Scripted
from workers.inference import Inference
from workers.providers import Provider, ProviderRefused, SecretUsed
from workers.worker import WorkerBroken

GONE = Refusal(reason=Reason.CANCELLED, message="nobody waits")


class Tried:
    """What came of one try."""

    def __init__(self, event: InferenceRouted, provider: Provider) -> None:
        self.emitted: list[Outgoing] = []
        self.job = Inference(provider, InferenceSettings(coalesce_ms=1)).begin(event, now())

    async def perform(self) -> InferenceCompleted:
        return concluded(await self.job.perform(self.emitted.append))

    @property
    def parts(self) -> list[InferencePart | InferenceReplied]:
        return [
            event
            for _, event in self.emitted
            if isinstance(event, InferencePart | InferenceReplied)
        ]

    @property
    def text(self) -> str:
        return "".join(part.delta.content for part in self.parts if part.delta)


def concluded(outgoing: Iterable[Outgoing]) -> InferenceCompleted:
    [(topic, event)] = outgoing
    assert topic is INFERENCE_COMPLETED
    assert isinstance(event, InferenceCompleted)
    return event


@pytest.fixture
def provider(tmp_path: Path) -> Scripted:
    return Scripted(tmp_path / "journal")


class Silent:
    """Ends without a completion."""

    async def complete(
        self, request: InferenceRequested, route: Route
    ) -> AsyncGenerator[Delta | Completion, None]:
        yield Delta(content="and then")

    async def close(self) -> None:
        """Holds nothing."""


async def test_parts_are_numbered_from_zero_without_gaps_and_hold_the_whole_text(
    provider: Scripted,
) -> None:
    event = routed({"words": 40, "gap_s": 0.002}, stream=True, attempt=3)
    tried = Tried(event, provider)
    completed = await tried.perform()
    assert completed.completion is not None
    assert tried.text == completed.completion.content
    assert len(tried.parts) > 2
    assert [part.seq for part in tried.parts] == list(range(len(tried.parts)))
    assert completed.parts == len(tried.parts)
    assert {part.attempt for part in tried.parts} == {3}
    assert len({part.epoch for part in tried.parts}) == 1
    assert completed.refusal is None
    assert completed.routed == event
    assert completed.first_token_at is not None
    assert completed.started_at <= completed.first_token_at <= completed.completed_at


async def test_a_second_try_has_a_later_epoch(provider: Scripted) -> None:
    event = routed({"words": 3}, stream=True)
    first = Tried(event, provider)
    await first.perform()
    ended = now()

    async def later() -> bool:
        return now() > ended

    await soon(later, what="a later millisecond")
    second = Tried(event, provider)
    await second.perform()
    assert second.parts[0].seq == 0
    assert second.parts[0].epoch > first.parts[0].epoch


async def test_parts_go_through_the_gateway_where_no_address_is_given(provider: Scripted) -> None:
    event = routed({"words": 3}, stream=True)
    tried = Tried(event, provider)
    await tried.perform()
    assert {topic for topic, _ in tried.emitted} == {INFERENCE_PARTS}
    for part in tried.parts:
        assert isinstance(part, InferencePart)
        assert part.request_id == event.request.request_id
        assert part.reply_to == event.request.reply_to
        assert part.tenant == event.request.tenant
        assert part.deadline == event.request.deadline


async def test_parts_go_where_the_request_says_and_not_where_its_answer_goes(
    provider: Scripted,
) -> None:
    event = routed({"words": 3}, stream=True)
    elsewhere = replace(event.request, parts_to="reply.v1.elsewhere")
    tried = Tried(replace(event, request=elsewhere), provider)
    await tried.perform()
    said = {part.reply_to for part in tried.parts if isinstance(part, InferencePart)}
    assert said == {"reply.v1.elsewhere"}


async def test_parts_go_straight_to_the_address_that_the_gateway_gave(provider: Scripted) -> None:
    event = routed({"words": 3}, stream=True, parts_to="reply.v1.elsewhere")
    tried = Tried(event, provider)
    await tried.perform()
    assert {topic.name for topic, _ in tried.emitted} == {"reply.v1.elsewhere"}
    for part in tried.parts:
        assert isinstance(part, InferenceReplied)
        assert part.request_id == event.request.request_id
        assert part.completion is None
        assert part.refusal is None


async def test_who_asked_for_no_parts_gets_none(provider: Scripted) -> None:
    tried = Tried(routed({"words": 5}, stream=False, parts_to="reply.v1.acme"), provider)
    completed = await tried.perform()
    assert tried.emitted == []
    assert completed.parts == 0
    assert completed.completion is not None


async def test_streams_that_are_under_way_together_share_the_parts_of_a_second(
    provider: Scripted,
) -> None:
    most = 20
    work = Inference(provider, InferenceSettings(coalesce_ms=1, parts_per_s=most))
    emitted: list[Outgoing] = []
    event, loop = routed({"words": 100, "gap_s": 0.01}, stream=True), asyncio.get_running_loop()
    began = loop.time()
    await asyncio.gather(*(work.begin(event, now()).perform(emitted.append) for _ in range(2)))
    # Besides, each has a first part at once, one before the other begins, and a last one at once.
    assert 2 * 2 < len(emitted) <= most * (loop.time() - began) + 2 * 3


async def test_a_refusal_after_some_words_concludes_with_it_and_tells_of_the_parts(
    provider: Scripted,
) -> None:
    tried = Tried(routed({"words": 3, "refuse": "STREAM_CUT"}, stream=True), provider)
    completed = await tried.perform()
    assert completed.completion is None
    assert completed.refusal is not None
    assert completed.refusal.reason is Reason.STREAM_CUT
    assert tried.text == "w0 w1 w2 "
    assert completed.parts == len(tried.parts)


async def test_a_try_that_is_given_up_midway_tells_of_the_parts_that_went_before(
    provider: Scripted,
) -> None:
    tried = Tried(routed({"words": 1000, "gap_s": 0.01}, stream=True), provider)
    performing = asyncio.ensure_future(tried.perform())

    async def two_parts() -> bool:
        return len(tried.parts) >= 2

    await soon(two_parts, what="two parts")
    performing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await performing
    completed = concluded(tried.job.give_up(GONE))
    assert completed.refusal == GONE
    assert completed.completion is None
    assert completed.parts == len(tried.parts)


async def test_what_is_given_up_before_the_first_word_has_used_its_input_at_least(
    provider: Scripted, tmp_path: Path
) -> None:
    event = routed({"delay_s": 60})
    tried = Tried(event, provider)
    performing = asyncio.ensure_future(tried.perform())

    async def is_asked() -> bool:
        return (tmp_path / "journal").exists()

    await soon(is_asked, what="the provider is asked")
    performing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await performing
    used = concluded(tried.job.give_up(GONE)).usage
    assert used == Usage(prompt_tokens=estimate(event.request), estimated=True)


async def test_a_provider_that_refuses_at_once_has_used_nothing(provider: Scripted) -> None:
    tried = Tried(routed({"refuse": "RATE_LIMITED", "words": 0}), provider)
    completed = await tried.perform()
    assert completed.refusal is not None
    assert completed.usage is None


async def test_a_try_can_be_given_up_before_it_begins(provider: Scripted) -> None:
    completed = concluded(Tried(routed(), provider).job.give_up(GONE))
    assert completed.refusal == GONE
    assert completed.parts == 0
    assert completed.first_token_at is None


async def test_a_dead_engine_ends_the_worker_and_not_only_the_request(provider: Scripted) -> None:
    with pytest.raises(WorkerBroken, match="the script says so"):
        await Tried(routed({"broken": True}), provider).perform()


async def test_a_provider_that_ends_without_a_completion_never_yields_half_an_answer() -> None:
    with pytest.raises(RuntimeError, match="without a completion"):
        await Tried(routed(stream=True), Silent()).perform()


class Unlocking:
    """Uses one secret that is there and one that is not."""

    async def complete(
        self, request: InferenceRequested, route: Route
    ) -> AsyncGenerator[Delta | Completion | SecretUsed, None]:
        yield SecretUsed(reference="env:KEY")
        yield SecretUsed(reference="file:/gone", failure="file:/gone cannot be read")
        raise ProviderRefused(GONE)

    async def close(self) -> None:
        """Holds nothing."""


async def test_each_use_of_a_secret_goes_into_the_audit_once() -> None:
    event = routed({}, attempt=1)
    tried = Tried(event, Unlocking())
    assert (await tried.perform()).first_token_at is None
    [first, second] = [found for topic, found in tried.emitted if topic is AUDIT_RECORDED]
    assert isinstance(first, AuditRecorded)
    assert isinstance(second, AuditRecorded)
    request = event.request
    assert (first.action, first.source) == ("secret.used", "inference")
    assert (first.name, first.outcome, first.reason) == ("env:KEY", AuditOutcome.DONE, None)
    assert (first.tenant, first.request_id) == (request.tenant, request.request_id)
    assert second.outcome is AuditOutcome.FAILED
    assert second.reason == "file:/gone cannot be read"
    assert first.audit_id != second.audit_id
