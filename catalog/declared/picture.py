"""The catalog's entries as shapes, at one moment: what plans, exports and searches look at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import structlog
from pydantic import ValidationError

from catalog.declared.problems import KINDS
from schemas.kinds import Described, Grant, Key, Version

log = structlog.get_logger()

# Kind, name, position and body of an entry, as ``CatalogView.entries`` yields them.
Entry = tuple[str, str, int, str]


@dataclass(frozen=True, slots=True)
class Picture:
    """What the catalog holds.

    Attributes:
        described: By kind and name.
        versions: By the name of the object, then by number.
        grants: By securable, then by principal.
        keys: By id.
    """

    described: Mapping[tuple[str, str], Described] = field(default_factory=dict)
    versions: Mapping[str, Mapping[int, Version]] = field(default_factory=dict)
    grants: Mapping[str, Mapping[str, Grant]] = field(default_factory=dict)
    keys: Mapping[str, Key] = field(default_factory=dict)

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Picture:
        """Returns the picture of entries; one that this version cannot read is left out."""
        described: dict[tuple[str, str], Described] = {}
        versions: dict[str, dict[int, Version]] = {}
        grants: dict[str, dict[str, Grant]] = {}
        keys: dict[str, Key] = {}
        for kind, name, position, body in entries:
            try:
                if kind in KINDS:
                    described[kind, name] = Described.model_validate_json(body)
                elif kind == "version":
                    found, _, number = name.partition("@")
                    versions.setdefault(found, {})[int(number)] = Version.model_validate_json(body)
                elif kind == "grant":
                    securable, _, principal = name.partition("/")
                    grant = Grant.model_validate_json(body)
                    grants.setdefault(securable, {})[principal] = grant
                elif kind == "key":
                    keys[name] = Key.model_validate_json(body)
            except ValidationError:
                log.warning("entry unreadable", kind=kind, name=name, position=position)
        return cls(described, versions, grants, keys)

    def kinds_of(self, name: str) -> Iterator[str]:
        """Yields the kinds under which something has this name."""
        return (kind for kind in KINDS if (kind, name) in self.described)

    def named(self) -> Iterator[tuple[str, str, Described]]:
        """Yields kind, name and entry of all that has an owner, in the order of names."""
        for kind, name in sorted(self.described, key=lambda key: (key[1], key[0])):
            yield kind, name, self.described[kind, name]


def parent(name: str) -> str | None:
    """Returns what a name lies in: ``a.b`` of ``a.b.c``; nothing of ``a``."""
    return name.rpartition(".")[0] or None


def without_version(name: str) -> str:
    """Returns the object that the name of a version speaks of."""
    return name.partition("@")[0]
