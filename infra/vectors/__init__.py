"""The vector store: the only place that knows that it is Weaviate.

Documents go in whole and come out as chunks. A place (one generation of one index) has two
collections: its chunks, which are searched, and a head for each document, which tells what is
stored of it and stays when the document is deleted.
"""

from __future__ import annotations

from infra.vectors.documents import (
    Chunk,
    Document,
    Head,
    Place,
    Vector,
    canonical,
    chunk_id,
    document_id,
    supersedes,
)
from infra.vectors.errors import (
    DimensionsWrong,
    PlaceUnknown,
    SearchInvalid,
    VectorsRefused,
    VectorsUnreachable,
)
from infra.vectors.store import Counted, Vectors

__all__ = [
    "Chunk",
    "Counted",
    "DimensionsWrong",
    "Document",
    "Head",
    "Place",
    "PlaceUnknown",
    "SearchInvalid",
    "Vector",
    "Vectors",
    "VectorsRefused",
    "VectorsUnreachable",
    "canonical",
    "chunk_id",
    "document_id",
    "supersedes",
]
