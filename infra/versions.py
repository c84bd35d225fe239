"""Things of one kind that have versions: found by number, by alias, or the newest."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

V = TypeVar("V")

# Of a version; everything else behind the @ is an alias.
NUMBER = re.compile(r"[1-9][0-9]{0,8}")


@dataclass(frozen=True, slots=True)
class Found(Generic[V]):
    """A version of something.

    Attributes:
        name: Full name of the thing.
        number: The version's.
        version: What the version is.
    """

    name: str
    number: int
    version: V

    @property
    def entity(self) -> str:
        """The version's own name: ``catalog.schema.name@3``."""
        return f"{self.name}@{self.number}"


class Versions(Mapping[str, Mapping[int, V]], Generic[V]):
    """All things of a kind that there are, by name, with their versions by number."""

    def __init__(self) -> None:
        self._aliases: dict[str, Mapping[str, int]] = {}
        self._versions: dict[str, dict[int, V]] = {}
        # Numbers of versions that are there and say nothing that is known here.
        self._unread: defaultdict[str, set[int]] = defaultdict(set)

    def __getitem__(self, name: str) -> Mapping[int, V]:
        if name not in self._aliases:
            raise KeyError(name)
        return self._versions.get(name, {})

    def __iter__(self) -> Iterator[str]:
        return iter(self._aliases)

    def __len__(self) -> int:
        return len(self._aliases)

    def aliases(self, name: str) -> Mapping[str, int]:
        """Returns numbers by alias, whether or not there are such versions."""
        return self._aliases.get(name, {})

    def find(self, reference: str, which: str | None = None) -> Found[V] | None:
        """Returns a version; None where there is none.

        Args:
            reference: A name alone for the newest version, or with ``@`` and a number or an alias.
            which: The number or alias, where the name comes alone; None for the newest.
        """
        name, _, pinned = reference.partition("@")
        which = pinned or None if which is None else which
        versions, aliases = self._versions.get(name), self._aliases.get(name)
        if aliases is None or not versions:
            return None
        if which is None:
            # What cannot be read is no reason to take what it came after.
            number: int | None = max((*versions, *self._unread.get(name, ())))
        else:
            number = int(which) if NUMBER.fullmatch(which) else aliases.get(which)
        if number is None or number not in versions:
            return None
        return Found(name, number, versions[number])

    def name(self, name: str, aliases: Mapping[str, int] | None) -> None:
        """Takes a thing with its aliases; None where it is gone."""
        self._aliases.pop(name, None)
        if aliases is not None:
            self._aliases[name] = aliases

    def put(self, name: str, number: int, version: V | None, *, unread: bool = False) -> None:
        """Takes a version of a thing, which may come before it.

        Args:
            name: The thing.
            number: The version's.
            version: What it is; None where there is none, or where it cannot be read.
            unread: Whether it is there and cannot be read.
        """
        self._unread[name].discard(number)
        if unread:
            self._unread[name].add(number)
        versions = self._versions.setdefault(name, {})
        versions.pop(number, None)
        if version is not None:
            versions[number] = version
        if not versions:
            del self._versions[name]
