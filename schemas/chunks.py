"""Ids of what an index keeps of rows: they follow from the rows' keys alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5


def canonical(key: Mapping[str, Any]) -> str:
    """Returns a key as JSON that is the same for the same values.

    Example:
        >>> canonical({"b": 1, "a": "é"})
        '{"a":"é","b":1}'
    """
    return json.dumps(key, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def document_id(index: str, key: Mapping[str, Any]) -> str:
    """Returns the id of the document that an index keeps of a row.

    Args:
        index: Full name of the index.
        key: Values of the key columns.
    """
    return str(uuid5(NAMESPACE_URL, f"{index}/{canonical(key)}"))


def chunk_id(document: str, position: int) -> str:
    """Returns the id of a chunk of the document with an id."""
    return str(uuid5(UUID(document), str(position)))
