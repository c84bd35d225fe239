"""Entries of the catalog's log as they are read: in their shapes, or as if they were gone."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

import structlog
from pydantic import BaseModel, ValidationError

from schemas.events import CatalogChanged
from schemas.kinds import Described

N = TypeVar("N", bound=Hashable)
T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)

log = structlog.get_logger()


class Shared(Generic[T]):
    """Names that several kinds share: what stands under one is the entry that changed last."""

    def __init__(self) -> None:
        self._entries: dict[str, dict[str, tuple[int, T]]] = {}

    def put(self, changed: CatalogChanged, value: T | None) -> T | None:
        """Takes an entry, or that it is gone; returns what stands under its name now."""
        kinds = self._entries.setdefault(changed.name, {})
        if value is not None:
            kinds[changed.kind] = (changed.position, value)
            return max(kinds.values(), key=lambda entry: entry[0])[1]
        kinds.pop(changed.kind, None)
        if kinds:
            return max(kinds.values(), key=lambda entry: entry[0])[1]
        del self._entries[changed.name]
        return None


def keep(known: dict[N, T], name: N, value: T | None) -> None:
    """Keeps what stands under a name; None where nothing does any more."""
    known.pop(name, None)
    if value is not None:
        known[name] = value


def read(changed: CatalogChanged, shape: type[M]) -> M | None:
    """Returns the body of an entry; None where it is gone, or not in this shape."""
    if changed.body is None:
        return None
    try:
        return shape.model_validate_json(changed.body)
    except ValidationError as problem:
        refuse(changed, _places(problem))
        return None


def spec_of(changed: CatalogChanged, described: Described | None, shape: type[M]) -> M | None:
    """Returns the spec of an entry; None where there is none, or not in this shape."""
    return None if described is None else shaped(changed, described.spec, shape)


def shaped(changed: CatalogChanged, value: object, shape: type[M]) -> M | None:
    """Returns a part of an entry; None where it is not in this shape."""
    try:
        return shape.model_validate(value)
    except ValidationError as problem:
        refuse(changed, _places(problem))
        return None


def refuse(changed: CatalogChanged, error: str) -> None:
    """Says that an entry cannot be read, and where: never what it says."""
    log.error(
        "catalog entry unreadable",
        kind=changed.kind,
        name=changed.name,
        position=changed.position,
        error=error,
    )


def _places(problem: ValidationError) -> str:
    found = problem.errors(include_input=False, include_url=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['type']}" for each in found)
