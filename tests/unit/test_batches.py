"""Texts of many requests, embedded together; the model is a few lines that can be held up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.providers import ProviderBroken
from workers.providers.batches import ROOM, WIDEST, Batches, ModelUnsound, Tokens, Vector

MOST = 8


class Lengths:
    """A token is a character, a vector how many there are and the first of them.

    Attributes:
        batches: What was computed.
        fault: What goes wrong, if anything.
    """

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.fault: Exception | None = None
        self.free = threading.Event()
        self.free.set()
        self.busy = threading.Event()

    def read(self, texts: Sequence[str]) -> list[Tokens]:
        return [Tokens([*map(ord, text)], cut=text.endswith("~")) for text in texts]

    def embed(self, batch: Sequence[Sequence[int]]) -> list[Vector]:
        self.busy.set()
        assert self.free.wait(30)
        if self.fault:
            raise self.fault
        self.batches.append(["".join(map(chr, ids)) for ids in batch])
        return [(float(len(ids)), float(ids[0])) for ids in batch]

    async def held(self, batches: Batches) -> asyncio.Task[object]:
        """Gives the model something to compute, and holds it there."""
        self.free.clear()
        task: asyncio.Task[object] = asyncio.create_task(batches.embed(["0"]))
        assert await asyncio.to_thread(self.busy.wait, 30)
        return task


@asynccontextmanager
async def opened(
    encoder: Lengths, widest: float = WIDEST, lanes: int = 1
) -> AsyncIterator[Batches]:
    batches = Batches(encoder, MOST, widest, lanes)
    try:
        yield batches
    finally:
        encoder.free.set()
        await batches.close()


async def waiting(batches: Batches, *requests: Sequence[str]) -> list[asyncio.Task[object]]:
    """Asks, and returns when all of it waits for the model."""
    tasks: list[asyncio.Task[object]] = []
    for texts in requests:
        tasks.append(asyncio.create_task(batches.embed(texts)))
        expected = len(batches._waiting) + len(texts)
        while len(batches._waiting) != expected:
            await asyncio.sleep(0)
    return tasks


async def test_vectors_come_in_the_order_of_their_texts_with_what_was_read() -> None:
    async with opened(Lengths()) as batches:
        embedded = await batches.embed(["bbb", "a", "cc~"])
    assert embedded.vectors == ((3.0, 98.0), (1.0, 97.0), (3.0, 99.0))
    assert embedded.tokens == 7
    assert embedded.cut


async def test_no_texts_are_no_vectors() -> None:
    async with opened(Lengths()) as batches:
        assert (await batches.embed([])).vectors == ()


async def test_small_requests_that_wait_are_computed_together() -> None:
    encoder = Lengths()
    async with opened(encoder) as batches:
        first = await encoder.held(batches)
        tasks = await waiting(batches, *([letter] for letter in "abcdefgh"))
        encoder.free.set()
        await asyncio.gather(first, *tasks)
    assert [sorted(batch) for batch in encoder.batches] == [["0"], [*"abcdefgh"]]


async def test_each_core_computes_a_batch_of_its_own_at_the_same_time() -> None:
    together = threading.Barrier(2)

    class Meeting(Lengths):
        def embed(self, batch: Sequence[Sequence[int]]) -> list[Vector]:
            # Nobody goes on before the other has come.
            together.wait(30)
            return super().embed(batch)

    encoder = Meeting()
    async with opened(encoder, lanes=2) as batches:
        texts = [*"abcdefgh", *"ijklmnop"]
        embedded = await batches.embed(texts)
    assert embedded.vectors == tuple((1.0, float(ord(text))) for text in texts)
    assert sorted(map(len, encoder.batches)) == [MOST, MOST]


async def test_whoever_leaves_takes_its_texts_along_and_harms_nobody() -> None:
    encoder = Lengths()
    async with opened(encoder) as batches:
        first = await encoder.held(batches)
        leaving, staying = await waiting(batches, ["x", "xx"], ["y", "yy"])
        first.cancel()
        leaving.cancel()
        await asyncio.wait([first, leaving])
        encoder.free.set()
        assert (await batches.embed(["zz"])).vectors == ((2, 122),)
        await staying
    assert sorted(chain(*encoder.batches[1:])) == ["y", "yy", "zz"]


async def test_a_query_does_not_wait_for_all_documents_before_it() -> None:
    encoder = Lengths()
    async with opened(encoder) as batches:
        first = await encoder.held(batches)
        tasks = await waiting(batches, ["d" * 200] * 10 * MOST, ["query"])
        encoder.free.set()
        await asyncio.gather(first, *tasks)
    assert ["query"] in encoder.batches[1:4]


async def test_documents_do_not_wait_for_all_queries_after_them() -> None:
    encoder = Lengths()
    async with opened(encoder) as batches:
        first = await encoder.held(batches)
        queries = (["q"] for _ in range(10 * MOST))
        tasks = await waiting(batches, ["d" * 200] * MOST, *queries)
        encoder.free.set()
        await asyncio.gather(first, *tasks)
    assert ["d" * 200] * MOST in encoder.batches[1:4]


@given(
    st.lists(st.lists(st.integers(1, 300), min_size=1, max_size=20), min_size=1, max_size=6),
    st.sampled_from([1.0, 1.1, WIDEST]),
)
async def test_a_batch_is_of_texts_that_are_about_as_long(
    lengths: list[list[int]], widest: float
) -> None:
    encoder = Lengths()
    async with opened(encoder, widest) as batches:
        asked = [["t" * length for length in request] for request in lengths]
        answers = await asyncio.gather(*map(batches.embed, asked))
    for request, answer in zip(lengths, answers, strict=True):
        assert [vector[0] for vector in answer.vectors] == request
        assert answer.tokens == sum(request)
    for batch in encoder.batches:
        assert len(batch) <= MOST
        assert max(map(len, batch)) <= widest * min(map(len, batch)) + ROOM


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (ModelUnsound("its vectors are no numbers"), "its vectors are no numbers"),
        (RuntimeError("about: a text"), "RuntimeError"),
        (IndexError("about: a text"), "IndexError"),
    ],
)
async def test_a_broken_model_is_broken_for_everybody(fault: Exception, told: str) -> None:
    encoder = Lengths()
    async with opened(encoder) as batches:
        first = await encoder.held(batches)
        [second] = await waiting(batches, ["b"])
        encoder.fault = fault
        encoder.free.set()
        for asking in (first, second, batches.embed(["c"])):
            with pytest.raises(ProviderBroken, match=f"^the model failed: {told}$"):
                await asking


async def test_whoever_waits_when_it_closes_is_told() -> None:
    encoder = Lengths()
    async with opened(encoder) as batches:
        first = await encoder.held(batches)
    with pytest.raises(ProviderBroken, match="closed"):
        await first
