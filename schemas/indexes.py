"""Indexes: what of a table is searchable by meaning, and how its texts are cut and embedded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from schemas.events import IndexReconciled
from schemas.shapes import FullName, Shape, Spec, Text
from schemas.tables import Column, ColumnMasks, RowFilters

# What Weaviate takes as a property of an object, by our names of types.
ColumnType = Literal["boolean", "date", "double", "long", "string"]
MOST_COLUMNS = 100
MOST_KEYS = 8


class Kept(Column):
    """A column that is kept beside the vector: filtered by, sorted by, returned."""

    type: ColumnType = "string"


class Chunking(Shape):
    """How a text is cut into what is embedded.

    Attributes:
        by: By tokens, at ends of sentences, at Markdown headings, or not at all.
        size: Most tokens of a chunk.
        overlap: Tokens that a chunk repeats of the one before; only where it is cut by tokens.
    """

    by: Literal["heading", "none", "sentence", "tokens"] = "none"
    size: Annotated[int, Field(ge=16, le=8192)] = 256
    overlap: Annotated[int, Field(ge=0, le=4096)] = 32


class IndexSpec(Spec):
    """A vector index over a table, or one that callers fill themselves (no source).

    Attributes:
        source: The table.
        sync: Whether it follows its table all the time, or when told to (``trigger``).
        key_columns: What tells its rows apart; those of the source's key if left out.
        text: Column that is embedded, or a template over several: ``{title}: {body}``.
        columns: What is kept beside.
        chunking: How texts are cut.
        endpoint: Who embeds.
        dimensions: Length of a vector; that of the first one if left out.
        document_prefix: What the embedding model wants in front of a document.
        query_prefix: What it wants in front of a query.
        distance: How vectors are compared.
        paused: Whether it stands still.
        generation: Raised to build it anew; queries see the one before until that is complete.
        reconcile: Raised to compare it with its source at once.
        trigger: Raised to bring a triggered index up to date.
        row_filters: Who sees which rows.
        column_masks: Who sees which columns.
    """

    source: FullName | None = None
    sync: Literal["continuous", "triggered"] = "continuous"
    key_columns: Annotated[tuple[Text, ...], Field(max_length=MOST_KEYS)] = ()
    text: str = ""
    columns: Annotated[tuple[Kept, ...], Field(max_length=MOST_COLUMNS)] = ()
    chunking: Chunking = Chunking()
    endpoint: FullName | None = None
    dimensions: Annotated[int, Field(ge=1, le=65_535)] | None = None
    document_prefix: str = ""
    query_prefix: str = ""
    distance: Literal["cosine", "dot", "l2"] = "cosine"
    paused: bool = False
    generation: Annotated[int, Field(ge=1)] = 1
    reconcile: Annotated[int, Field(ge=0)] = 0
    trigger: Annotated[int, Field(ge=0)] = 0
    row_filters: RowFilters = ()
    column_masks: ColumnMasks = ()

    def references(self) -> Iterator[str]:
        """Yields the source and the embedding endpoint."""
        yield from filter(None, (self.source, self.endpoint))


def drift_of(found: IndexReconciled) -> int:
    """Returns how many rows of an index differ from its source."""
    differ = found.missing + found.stale + found.surplus + found.unreachable
    return differ + (found.missed or 0)
