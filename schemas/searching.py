"""What of a search, a write or an answer to one can be read: its texts, out of the JSON and back.

Texts travel as one JSON text: an object with the hits, rows, keys, filters and counts that there
are. Columns' names, vectors and what only says how to search are none of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from schemas.openai import parsed

# What of a hit says something.
OF_HIT = ("key", "text", "columns")
VECTOR = "vector"
# What of a hit or a row is none of its texts.
ASIDE: dict[str, Callable[[str], bool]] = {
    "hits": lambda name: name not in OF_HIT,
    "rows": lambda name: name == VECTOR,
}

_FORM = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))

Document = Mapping[str, Any]


def texts_of(document: str | None) -> str:
    """Returns the texts of a Search, Write, Found or Written; empty where it has none.

    What is no JSON object is all text.
    """
    said = parsed(document or "")
    if not isinstance(said, dict):
        return document or ""
    found = dict(_parts(said))
    return _FORM.encode(found) if found else ""


def with_texts(document: str, texts: str) -> str:
    """Returns a document with others for the texts that ``texts_of`` returns.

    Raises:
        ValueError: They are not the same parts, rows or hits.
    """
    said, changed = parsed(document), parsed(texts)
    if not isinstance(said, dict):
        return texts
    before = dict(_parts(said))
    if not before and not texts:
        return document
    if not isinstance(changed, dict) or changed.keys() != before.keys():
        raise ValueError("a search keeps the parts that its texts are in")
    after = dict(said)
    for part, value in changed.items():
        after[part] = _merged(part, said[part], value) if part in ASIDE else value
    return _FORM.encode(after)


def without_vectors(document: str) -> str:
    """Returns a document without the vectors in it: whoever wants them again has the texts."""
    said = parsed(document)
    if not isinstance(said, dict) or f'"{VECTOR}"' not in document:
        return document
    plain = {part: value for part, value in said.items() if part != VECTOR}
    for part in ("hits", "rows"):
        if isinstance(plain.get(part), list):
            plain[part] = [_without_vector(each) for each in plain[part]]
    return _FORM.encode(plain)


def _parts(said: Document) -> Iterator[tuple[str, Any]]:
    for part in ("facets", "failed", "filters", "keys"):
        if said.get(part):
            yield part, said[part]
    if hits := said.get("hits"):
        yield "hits", [{name: each[name] for name in OF_HIT if name in each} for each in hits]
    if rows := said.get("rows"):
        yield "rows", [_without_vector(each) for each in rows]


def _merged(part: str, before: list[Any], changed: Any) -> list[Any]:
    if not isinstance(changed, list) or len(changed) != len(before):
        raise ValueError("a search keeps the number of its rows and hits")
    if not all(isinstance(each, dict) for each in changed):
        raise ValueError("a search keeps its rows and hits as objects")
    # What stands beside the texts wins, so that nothing else can be put in its place.
    return [
        {**other, **{name: value for name, value in each.items() if ASIDE[part](name)}}
        for each, other in zip(before, changed, strict=True)
    ]


def _without_vector(each: Any) -> Any:
    if not isinstance(each, dict):
        return each
    return {name: value for name, value in each.items() if name != VECTOR}
