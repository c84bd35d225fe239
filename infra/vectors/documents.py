"""What is stored: documents, their chunks and heads, under ids that follow from their keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from schemas.chunks import canonical, chunk_id, document_id

__all__ = [
    "Chunk",
    "Document",
    "Head",
    "Place",
    "Vector",
    "canonical",
    "chunk_id",
    "document_id",
    "supersedes",
]

# Float32, little-endian, or numbers.
Vector = tuple[float, ...] | bytes


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A generation of an index: where documents are stored.

    Attributes:
        index: Full name of the index.
        generation: From 1.
    """

    index: str
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A piece of a document's text with its vector.

    Attributes:
        position: Which piece it is, from 0 and without gaps.
        text: What is found and returned.
        digest: Of what was embedded: tells whether it has changed.
        vector: As long as the place's vectors are.
    """

    position: int
    text: str
    digest: str
    vector: Vector


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A row as it is stored.

    Attributes:
        id: ``document_id`` of its key.
        key: Values of the key columns.
        version: Text that sorts as the source's log does.
        columns: What is kept beside, by column; what is missing is null.
        inputs: Values of the text's columns, so that a later change need not repeat them.
        chunks: None where it is deleted, or has no text.
        committed_at: When the source committed this state, in milliseconds since 1970.
        deleted: Whether this is what remains of a row that is gone.
    """

    id: str
    key: Mapping[str, Any]
    version: str
    columns: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    chunks: tuple[Chunk, ...] = ()
    committed_at: int | None = None
    deleted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What is known of a stored document without reading its chunks.

    Attributes:
        version: Of the state that is stored.
        deleted: Whether only the head is left.
        inputs: Values of the text's columns.
        digests: Of its chunks, by position.
    """

    version: str
    deleted: bool = False
    inputs: Mapping[str, Any] = field(default_factory=dict)
    digests: tuple[str, ...] = ()


def supersedes(version: str, head: Head | None, floor: str) -> bool:
    """Returns whether a state of a document may be stored over what is there.

    Args:
        version: Of the state; an older or equal one never overwrites.
        head: What is stored of the document.
        floor: Version of the last truncation: what is not newer is gone.
    """
    return version > floor and (head is None or version > head.version)
