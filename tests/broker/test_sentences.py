"""Sentences embedded over the bus by the real model, and what is recorded of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.lake import QueryInvalid, query
from infra.stack import workers
from infra.stack.local import LocalStack
from infra.stack.settings import StackSettings
from streams.client import Client
from tests.harness import Bus, Process, eventually, running
from tests.seed import changes, publish

pytestmark = [
    pytest.mark.model,
    pytest.mark.stack,
    pytest.mark.timeout(1800),
    pytest.mark.usefixtures("gateway", "recorder"),
]

SENTENCES = "main.tests.sentences"
MOST = 2048


@pytest.fixture(scope="module")
def worker(stack: LocalStack, bus: Bus, folder: Path) -> Iterator[Process]:
    """A worker with the packaged sentence encoder, in its own environment."""
    stack.prepare(["embedding"])
    service = workers.embedding(StackSettings())
    route = {"name": "local", "pool": "embedding", "model": workers.EMBEDDER}
    publish(bus, *changes([{"kind": "endpoint", "name": SENTENCES, "spec": {"routes": [route]}}]))
    python, *command = service.command
    environment = {**service.environment, **bus.environment}
    with running(bus, command, folder, python=python, start_s=600, **environment) as process:
        yield process
        assert process.stop() == 0


@pytest.fixture
async def client(bus: Bus, worker: Process) -> AsyncIterator[Client]:
    async with Client(tenant="model", kafka=bus.kafka, registry=bus.registry_settings) as client:
        yield client


async def test_what_means_the_same_is_near_and_the_row_has_its_tokens_but_no_vector(
    client: Client, folder: Path
) -> None:
    texts = ["A cat sat on the mat.", "A kitten rests on a rug.", "The bank raised its rates."]
    cat, kitten, bank = await client.embed(SENTENCES, texts, tags={"about": "cats"})
    assert len(cat) == 384

    def alike(one: tuple[float, ...], other: tuple[float, ...]) -> float:
        return sum(a * b for a, b in zip(one, other, strict=True))

    assert alike(cat, kitten) > alike(cat, bank) + 0.2

    def rows() -> list[dict[str, Any]]:
        asked = f"select * from inferences where endpoint = '{SENTENCES}'"
        try:
            found: list[dict[str, Any]] = query(folder / "lake", asked).to_pylist()
        except QueryInvalid:  # The table appears with its first event.
            return []
        return [row for row in found if dict(row["tags"]) == {"about": "cats"}]

    await asyncio.to_thread(eventually, rows, what="the row")
    [row] = rows()
    assert json.loads(row["request"])["input"] == texts
    answer = json.loads(row["response"])
    assert [each["embedding"] for each in answer["data"]] == [[], [], []]
    assert (row["prompt_tokens"], row["finish_reason"]) == (26, "STOP")


async def test_many_requests_and_one_with_all_their_texts_get_the_same_vectors(
    client: Client,
) -> None:
    texts = [f"This is about {'very ' * (number % 9)}number {number}." for number in range(MOST)]
    together = await client.embed(SENTENCES, texts, timeout=900)
    assert len(together) == MOST
    some = range(0, MOST, 40)
    alone = await asyncio.gather(
        *(client.embed(SENTENCES, [texts[at]], timeout=900) for at in some)
    )
    for at, [vector] in zip(some, alone, strict=True):
        assert vector == pytest.approx(together[at], abs=1e-5)
