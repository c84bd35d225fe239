"""What a search retrieved: an answer came from chunks, those from states of rows, of tables. Pure.

Told by the row of the answer, which has the hits without their vectors. A chunk is named by its id,
so that whoever may not see a row does not learn its key from it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import ValidationError

from schemas.chunks import canonical, chunk_id, document_id
from schemas.events import InferenceRecorded
from schemas.search import Hit

# Of a row's name; a key that is longer has no edges.
MOST_NAME = 4096


class Retrieved(NamedTuple):
    """A chunk that an answer was made of.

    Attributes:
        chunk: Its id.
        position: Which chunk of its row it is, from 0.
        score: How well it fits; None where nothing was scored.
        row: Name of the row's state: ``table/key@version``.
        version: That state.
        table: The table of the row; None where callers wrote it to the index.
    """

    chunk: str
    position: int
    score: float | None
    row: str
    version: str
    table: str | None


def retrieved(row: InferenceRecorded) -> Iterator[Retrieved]:
    """Yields what an answer of an index holds, each chunk once; nothing of other answers."""
    seen: set[str] = set()
    for hit in _hits(row.response):
        key = _named(hit.key)
        chunk = chunk_id(document_id(row.endpoint, hit.key), hit.position)
        if chunk in seen or len(key) > MOST_NAME:
            continue
        seen.add(chunk)
        yield Retrieved(
            chunk=chunk,
            position=hit.position,
            score=hit.score,
            row=f"{hit.source or row.endpoint}/{key}@{hit.version}",
            version=hit.version,
            table=hit.source,
        )


def _hits(response: str | None) -> Iterator[Hit]:
    if response is None or '"found"' not in response:
        return
    try:
        found = json.loads(response).get("found")
    except (AttributeError, RecursionError, ValueError):
        return
    hits = found.get("hits", ()) if isinstance(found, dict) else ()
    for each in hits if isinstance(hits, list) else ():
        try:
            yield Hit.model_validate(each)
        except ValidationError:
            # A policy may have masked what it cannot be read without.
            continue


def _named(key: dict[str, Any]) -> str:
    """Returns a key as it stands in the name of a row: its one value, or else all of it."""
    values = list(key.values())
    if len(values) == 1 and isinstance(values[0], int | str):
        return json.dumps(values[0], ensure_ascii=False).strip('"')
    return canonical(key)
