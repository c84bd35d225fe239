"""What is stored of a row after a change; the same change is always the same document."""

from __future__ import annotations

from infra.changes.rows import Change, Op
from infra.documents.content import RowInvalid, chunks_of, columns_of, inputs_of, texts_of
from infra.vectors import Document, document_id
from schemas.indexes import IndexSpec

__all__ = ["RowInvalid", "document_of"]


def document_of(index: str, spec: IndexSpec, change: Change) -> Document:
    """Returns what an index stores of a row after a change, its chunks without vectors.

    A column that the row does not have is null: its table may have got it later.

    Args:
        index: Full name of the index.
        spec: What it is made of; it has no ``problems``.
        change: The change; values that did not change and were left out are filled in.

    Raises:
        RowInvalid: A value is not of its column's type, or is still left out.
    """
    gone = change.op is not Op.UPSERT
    _complete(spec, change)
    return Document(
        id=document_id(index, change.key),
        key=change.key,
        version=change.version,
        columns={} if gone else columns_of(spec, change.row),
        inputs={} if gone else inputs_of(spec, change.row),
        chunks=() if gone else chunks_of(spec, change.row),
        committed_at=change.committed_at,
        deleted=gone,
    )


def _complete(spec: IndexSpec, change: Change) -> None:
    used = {*texts_of(spec), *(each.name for each in spec.columns)}
    if missing := sorted(used & change.unavailable):
        raise RowInvalid(
            f'column "{missing[0]}" did not change and was left out, and what it was is not known: '
            "if the source still has the row, update it there, or build the index anew"
        )
