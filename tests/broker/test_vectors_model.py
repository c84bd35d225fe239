"""Whatever is stored, deleted and truncated, the store holds what a dictionary does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.stack.local import LocalStack
from infra.vectors import Counted, Document, Head, Place, Vectors, supersedes
from tests.broker.storing import document, everything, placed, settings_of

pytestmark = pytest.mark.stack

VERSIONS = st.integers(0, 9).map("{:03d}".format)


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one batch: which, in which state (the texts of its chunks), and whether again."""

    rows: dict[int, tuple[str, tuple[str, ...] | None]]
    again: bool


@dataclass(frozen=True, slots=True)
class Truncation:
    """All rows are removed."""

    version: str


Step = Batch | Truncation
STATES = st.none() | st.lists(st.sampled_from(["a", "b", "c"]), max_size=4).map(tuple)
STEPS = st.one_of(
    st.builds(
        Batch,
        st.dictionaries(st.integers(0, 4), st.tuples(VERSIONS, STATES), min_size=1),
        st.booleans(),
    ),
    st.builds(Truncation, VERSIONS),
)


@dataclass(slots=True)
class Model:
    """What a place should hold."""

    documents: dict[int, Document] = field(default_factory=dict)
    floor: str = ""

    def take(self, number: int, new: Document) -> None:
        """A row changes, unless what is known is newer."""
        old = self.documents.get(number)
        if new.version > self.floor and (old is None or new.version > old.version):
            self.documents[number] = new

    def truncate(self, version: str) -> None:
        """All rows go that are not newer."""
        self.floor = max(self.floor, version)
        self.documents = {
            number: each for number, each in self.documents.items() if each.version > version
        }

    def heads(self) -> dict[str, Head]:
        return {
            each.id: Head(
                version=each.version,
                deleted=each.deleted,
                inputs=each.inputs,
                digests=tuple(chunk.digest for chunk in each.chunks),
            )
            for each in self.documents.values()
        }

    def chunks(self) -> list[tuple[int, int, str, str, int]]:
        return [
            (number, chunk.position, chunk.text, each.version, len(each.chunks))
            for number, each in sorted(self.documents.items())
            for chunk in each.chunks
        ]


def state(place: Place, number: int, version: str, texts: tuple[str, ...] | None) -> Document:
    found = document(place, number, version=version, texts=texts or (), deleted=texts is None)
    return replace(found, columns={"color": texts[0]} if texts else {})


async def store(vectors: Vectors, place: Place, batch: Sequence[Document], again: bool) -> None:
    """Stores what is newer, as whoever keeps an index does."""
    heads = await vectors.heads(place, [each.id for each in batch])
    floor = await vectors.floor(place)
    newer = [each for each in batch if supersedes(each.version, heads.get(each.id), floor)]
    assert await vectors.store(place, newer, again=again) == {}


async def run(vectors: Vectors, steps: Sequence[Step]) -> None:
    model = Model()
    async with placed(vectors) as place:
        for step in steps:
            if isinstance(step, Truncation):
                model.truncate(step.version)
                await vectors.truncate(place, step.version)
                continue
            batch = {
                number: state(place, number, version, texts)
                for number, (version, texts) in step.rows.items()
            }
            for number, each in batch.items():
                model.take(number, each)
            await store(vectors, place, list(batch.values()), step.again)
        every = [document(place, number).id for number in range(5)]
        assert await vectors.heads(place, every) == model.heads()
        assert await vectors.floor(place) == model.floor
        hits = (await everything(vectors, place)).hits
        assert [
            (hit.key["id"], hit.position, hit.text, hit.version, hit.chunks) for hit in hits
        ] == model.chunks()
        rows = sum(not each.deleted for each in model.documents.values())
        assert await vectors.count(place) == Counted(rows=rows, chunks=len(model.chunks()))
        assert await vectors.unreachable(place) == ()


def test_the_store_holds_what_a_dictionary_does(vector_stack: LocalStack) -> None:
    with asyncio.Runner() as runner:
        exits = AsyncExitStack()
        vectors = runner.run(exits.enter_async_context(Vectors.open(settings_of(vector_stack))))

        @settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
        @given(st.lists(STEPS, min_size=1, max_size=8))
        def law(steps: list[Step]) -> None:
            runner.run(run(vectors, steps))

        law()
        runner.run(exits.aclose())
