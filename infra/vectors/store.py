"""``Vectors``: the store, opened; what may be asked of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from infra.settings import VectorSettings
from infra.vectors.documents import Document, Head, Place
from schemas.indexes import IndexSpec


@dataclass(frozen=True, slots=True)
class Counted:
    """How much a place holds: documents that are not deleted, and chunks."""

    rows: int
    chunks: int


class Vectors:
    """The vector store. All calls may raise ``VectorsUnreachable``; none retries."""

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: VectorSettings) -> AsyncIterator[Vectors]:
        """Connects for as long as the block lasts."""
        yield cls()

    async def ensure(self, place: Place, spec: IndexSpec, dimensions: int) -> None:
        """Makes what a place needs, where it is missing.

        Raises:
            DimensionsWrong: It exists with vectors of another length.
        """
        raise NotImplementedError

    async def drop(self, place: Place) -> None:
        """Removes a place with all that it holds; one that does not exist is no error."""
        raise NotImplementedError

    async def places(self) -> frozenset[Place]:
        """Returns all places that exist."""
        raise NotImplementedError

    async def heads(self, place: Place, ids: Iterable[str]) -> dict[str, Head]:
        """Returns the heads that there are, by document id."""
        raise NotImplementedError

    async def floor(self, place: Place) -> str:
        """Returns the version of the last truncation, empty without one."""
        raise NotImplementedError

    async def store(
        self, place: Place, documents: Sequence[Document], *, again: bool = False
    ) -> Mapping[str, str]:
        """Stores one batch: chunks first, heads last; no version is compared.

        Args:
            place: Where.
            documents: Each id at most once.
            again: Whether chunks are deleted before they are inserted, which closes the holes that
                a crash may have left in the graph.

        Returns:
            Why a document was not stored, by its id; it keeps the head that it had.
        """
        raise NotImplementedError

    async def truncate(self, place: Place, version: str) -> None:
        """Removes every document that is not newer, and sets the floor; it never goes down."""
        raise NotImplementedError

    async def count(self, place: Place) -> Counted:
        """Returns how much there is."""
        raise NotImplementedError
