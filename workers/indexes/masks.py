"""Masks: what somebody sees of the columns that the catalog masks for them. Pure.

A masked column can neither be filtered nor sorted by, nor counted: what a search answers would
tell what is in it. A text that is made of one is withheld whole, with its vector, and its words
cannot be searched for.

``hash`` is the SHA-256 of a value as JSON, so that equal values can be told, ``last4`` shows the
last four characters of a longer text, ``null`` shows nothing. What has no value shows so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any

from infra.conditions import Condition
from infra.conditions.tree import columns_of
from infra.documents.content import texts_of
from schemas.indexes import IndexSpec
from schemas.search import Found, Hit, Search

LAST = 4
HIDDEN = "****"

Masks = Mapping[str, str]


class MaskHides(ValueError):
    """A search asks for what is masked; the message says what to leave out."""


def check(search: Search, filters: Condition | None, spec: IndexSpec, masks: Masks) -> None:
    """Returns if a search gives away nothing that is masked.

    Args:
        search: What is asked.
        filters: What the caller filters by.
        spec: The index.
        masks: By column.

    Raises:
        MaskHides: It would.
    """
    if not masks:
        return
    for use, columns in (
        ("filters", {} if filters is None else columns_of(filters)),
        ("sort", {each.column for each in search.sort}),
        ("facets", search.facets),
        ("keys", {name for key in search.keys for name in key}),
    ):
        if hidden := sorted(set(columns) & masks.keys()):
            raise MaskHides(f"{use}: {', '.join(hidden)} is masked for you: leave it out")
    if hides_text(spec, masks) and (search.mode != "vector" or search.rerank):
        raise MaskHides(
            "mode: the text is made of columns that are masked for you: search by vector, and "
            "without reranking"
        )


def masked(found: Found, spec: IndexSpec, masks: Masks) -> Found:
    """Returns what was found as it may be seen.

    Raises:
        MaskHides: It is a page of a scan, whose order and end tell what its keys are.
    """
    if not masks:
        return found
    if found.next is not None and any(not masks.keys().isdisjoint(hit.key) for hit in found.hits):
        raise MaskHides("scan: the keys are masked for you: search instead")
    withheld = hides_text(spec, masks)
    hits = tuple(_hit(each, masks, withheld=withheld) for each in found.hits)
    return found.model_copy(update={"hits": hits})


def hides_text(spec: IndexSpec, masks: Masks) -> bool:
    """Returns whether the text of an index is made of a column that is masked."""
    return not masks.keys().isdisjoint(texts_of(spec))


def _hit(hit: Hit, masks: Masks, *, withheld: bool) -> Hit:
    changed: dict[str, Any] = {
        "columns": _values(hit.columns, masks),
        "key": _values(hit.key, masks),
    }
    if withheld:
        changed |= {"text": "", "vector": None}
    return hit.model_copy(update=changed)


def _values(values: Mapping[str, Any], masks: Masks) -> dict[str, Any]:
    return {
        column: MASKS[masks[column]](value) if column in masks and value is not None else value
        for column, value in values.items()
    }


def _digest(value: Any) -> str:
    return sha256(json.dumps(value, ensure_ascii=False, sort_keys=True).encode()).hexdigest()


def _last(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return HIDDEN + (text[-LAST:] if len(text) > LAST else "")


def _nothing(value: Any) -> None:
    return None


MASKS: dict[str, Callable[[Any], str | None]] = {
    "hash": _digest,
    "last4": _last,
    "null": _nothing,
}
