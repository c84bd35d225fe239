"""What every provider keeps to that embeds, and what our own model makes of texts."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import cast

import pytest

from infra.bootstrap import ROOT, python_of
from infra.models import CARRIED
from infra.stack.workers import EMBEDDER, VLLM
from schemas.events import FinishReason, InferenceRequested, Reason, Task
from tests.contract.asking import Subject, ask, completion, hear, refused, stream
from tests.contract.conftest import on_the_session_loop
from tests.contract.connections import connected
from tests.contract.openai_servers import CHAT
from tests.contract.scripted_server import scripted_server

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(1200)]

MOST = 2048
LIMIT = 256
# What a model of sentences must keep apart: the first two of each are near, the third is far.
NEAR = [
    ("A cat sat on the mat.", "A kitten is resting on a rug.", "The bank raised its rates."),
    ("How do I reset my password?", "I forgot my login credentials.", "Boil the eggs for long."),
    ("The match ended in a draw.", "Neither team won the game.", "Granite is an igneous rock."),
]
# Each fault of a start, and of weights that went bad; torch is imported once for all of them.
FAULTS = """
import asyncio, json, sys
from infra.settings import InferenceSettings
from tests.contract.asking import ask
from dataclasses import replace
from schemas.events import Route, Task
from workers.providers import ProviderBroken
from workers.providers.embedding import open_embedding

GOOD = sys.argv[1]

async def fault(model, **engine):
    try:
        await open_embedding(InferenceSettings(model=model, model_name="m", engine=engine))
    except ValueError as problem:
        return str(problem)

async def gone_bad():
    provider = await open_embedding(InferenceSettings(model=GOOD, model_name="m"))
    provider.encoder._model.embeddings.word_embeddings.weight.data.fill_(float("nan"))
    request = replace(ask(), task=Task.EMBEDDING, messages=(), inputs=("a text",))
    try:
        async for _ in provider.complete(request, Route(name="r", pool="p", model="m")):
            return "it was answered"
    except ProviderBroken as broken:
        return str(broken)

async def main():
    print(json.dumps([
        await fault(""),
        await fault("/nowhere"),
        await fault("package:no_such_package"),
        await fault(GOOD, dtipe="float32"),
        await fault(GOOD, dtype="int8"),
        await fault(GOOD, device="cuda:99"),
        await fault(GOOD, max_model_len=1024),
        await gone_bad(),
    ]))

asyncio.run(main())
"""


def embed(*texts: str) -> InferenceRequested:
    return replace(ask(), task=Task.EMBEDDING, messages=(), inputs=texts)


def alike(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


@on_the_session_loop
async def outside_embeds() -> AsyncIterator[Subject]:
    async with (
        scripted_server(CHAT) as server,
        connected("embeds", server.idle, "openai", server.base_url) as subject,
    ):
        yield subject


every_embedder = pytest.mark.parametrize(
    "name", ["echo", "outside_embeds", pytest.param("embedding", marks=pytest.mark.model)]
)


@pytest.fixture
def subject(name: str, request: pytest.FixtureRequest) -> Subject:
    return cast(Subject, request.getfixturevalue(name))


@every_embedder
async def test_each_text_has_its_vector_and_tokens_are_counted(subject: Subject) -> None:
    heard = await hear(subject, embed("a", "three of them", "", "a"))
    [told] = heard.completions
    assert not heard.deltas
    assert len(told.vectors) == 4
    assert len({len(vector) for vector in told.vectors}) == 1
    assert told.vectors[0] == pytest.approx(told.vectors[3], abs=1e-6)
    assert told.vectors[0] != pytest.approx(told.vectors[1], abs=1e-2)
    assert told.finish_reason is FinishReason.STOP
    assert told.usage.prompt_tokens > 0
    assert told.usage.completion_tokens == 0


@every_embedder
async def test_as_many_texts_as_the_gateway_takes_keep_their_order(subject: Subject) -> None:
    texts = [f"{'number ' * (number % 3)}{number}" for number in range(MOST)]
    vectors = (await completion(subject, embed(*texts))).vectors
    assert len(vectors) == MOST
    for place in (0, 1, 1000, MOST - 1):
        [alone] = (await completion(subject, embed(texts[place]))).vectors
        assert vectors[place] == pytest.approx(alone, abs=1e-5)


@every_embedder
async def test_a_cancelled_embedding_frees_what_it_held(subject: Subject) -> None:
    async def consume() -> None:
        async with aclosing(stream(subject, embed(*["a long sentence " * 20] * MOST))) as events:
            async for _ in events:
                await asyncio.Event().wait()

    task = asyncio.create_task(consume())
    # It is under way once others have been answered beside it.
    await completion(subject, embed("beside"))
    task.cancel()
    async with asyncio.timeout(30):
        await asyncio.wait([task])
    async with asyncio.timeout(30):
        await subject.idle()


@pytest.mark.model
@pytest.mark.parametrize(("text", "near", "far"), NEAR)
async def test_near_texts_are_nearer_than_far_ones(
    embedding: Subject, text: str, near: str, far: str
) -> None:
    one, two, three = (await completion(embedding, embed(text, near, far))).vectors
    assert alike(one, one) == pytest.approx(1, abs=1e-5)
    assert alike(one, two) > alike(one, three) + 0.2


@pytest.mark.model
async def test_a_vector_does_not_depend_on_what_is_embedded_beside_it(embedding: Subject) -> None:
    text = "The same text, whatever lies beside it."
    [alone] = (await completion(embedding, embed(text))).vectors
    others = ["word " * number for number in range(60)]
    for place in (0, 30, 60):
        beside = [*others[:place], text, *others[place:]]
        vectors = (await completion(embedding, embed(*beside))).vectors
        assert vectors[place] == pytest.approx(alone, abs=1e-5)


@pytest.mark.model
async def test_many_requests_at_once_get_their_own_vectors(embedding: Subject) -> None:
    texts = [f"This is about the number {number}." for number in range(100)]
    together = (await completion(embedding, embed(*texts))).vectors
    answers = await asyncio.gather(*(completion(embedding, embed(text)) for text in texts))
    for vector, answer in zip(together, answers, strict=True):
        assert answer.vectors[0] == pytest.approx(vector, abs=1e-5)


@pytest.mark.model
async def test_what_is_too_long_is_cut_and_said_to_be(embedding: Subject) -> None:
    whole = await completion(embedding, embed("word " * (LIMIT - 2)))
    assert (whole.finish_reason, whole.usage.prompt_tokens) == (FinishReason.STOP, LIMIT)
    cut = await completion(embedding, embed("word " * 5000, "short"))
    assert (cut.finish_reason, cut.usage.prompt_tokens) == (FinishReason.LENGTH, LIMIT + 3)
    assert cut.vectors[0] == pytest.approx(whole.vectors[0], abs=1e-5)


@pytest.mark.model
async def test_what_it_does_not_do_is_refused(embedding: Subject) -> None:
    assert (await refused(embedding, ask())).reason is Reason.ROUTE_UNFIT
    ranking = replace(embed("a"), task=Task.RERANK, query="b")
    assert (await refused(embedding, ranking)).reason is Reason.ROUTE_UNFIT
    assert (await refused(embedding, embed())).field == "inputs"
    other = await refused(replace(embedding, model="another"), embed("a"))
    assert other.reason is Reason.PROVIDER_FAILED
    assert "embeds" in other.message


@pytest.mark.model
async def test_a_fault_is_told_at_the_start_and_bad_weights_end_the_process() -> None:
    ended = await asyncio.to_thread(
        subprocess.run,
        [str(python_of("worker")), "-c", FAULTS, f"package:{CARRIED[EMBEDDER]}"],
        cwd=ROOT,
        env={**os.environ, **VLLM},
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(ended.stdout.splitlines()[-1])
    expected = [
        "INFERENCE_MODEL names no folder",
        "INFERENCE_MODEL names no folder",
        "no package no_such_package",
        "has no dtipe",
        "dtype is one of",
        "no device cuda:99",
        "max_model_len lies from 3 to 512",
        "the model failed: its vectors are no numbers",
    ]
    assert len(told) == len(expected)
    for said, part in zip(told, expected, strict=True):
        assert part in said
