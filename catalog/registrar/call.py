"""One command on its way: who calls, what the catalog says, and the ways to find a thing in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine

from catalog.declared.documents import ROOT_KIND
from catalog.declared.picture import Entry, without_version
from catalog.declared.problems import KINDS, Invalid, kind_problem
from catalog.registrar.authority import Demand, Need, body_of, described, governs, may_see, refusal
from catalog.store.change import Change
from catalog.store.ledger import Actor
from catalog.store.refusals import CatalogRefused, invalid
from infra.catalog import CatalogView
from schemas.events import Reason
from schemas.kinds import OBJECTS, ROOT, Described, Privilege

Result = dict[str, Any]
OBJECT_DOTS = 2


@dataclass(frozen=True, slots=True)
class Call:
    """A command of somebody who has proved who it is.

    Attributes:
        view: The catalog as it is.
        actor: Who calls.
        engine: The database, for what is read there.
        change: The transaction; there is one only where the command may change something.
    """

    view: CatalogView
    actor: Actor
    engine: Engine
    transaction: Change | None = None

    @property
    def change(self) -> Change:
        """The transaction."""
        assert self.transaction is not None, "a change without a transaction"
        return self.transaction

    def require(self, *demands: Demand) -> None:
        """Returns if the caller may.

        Raises:
            CatalogRefused: It may not.
        """
        for demand in demands:
            if refused := refusal(self.view, self.actor.principal, demand):
                raise refused

    def sees(self, kind: str, name: str) -> bool:
        """Returns whether the caller may know that an entry is there."""
        return may_see(self.view, self.actor.principal, kind, name)

    def shown(self) -> Iterator[Entry]:
        """Yields the entries that the caller may read: grants where it manages, keys it governs."""
        return (entry for entry in self.view.entries() if self._shows(*entry[:2]))

    def _shows(self, kind: str, name: str) -> bool:
        if kind == "grant":
            return self.holds(Privilege.MANAGE, name.partition("/")[0])
        if kind == "version":
            return self.holds(Privilege.BROWSE, without_version(name))
        if kind == "key":
            key = self.view.keys.get(name)
            owner = key.principal if key else ""
            return owner == self.actor.principal or self.governs(owner)
        return self.sees(kind, name)

    def holds(self, privilege: Privilege, name: str) -> bool:
        """Returns whether the caller holds a privilege on something in the hierarchy."""
        return self.view.access.holds(self.actor.principal, privilege, name)

    def governs(self, name: str) -> bool:
        """Returns whether the caller has the say over a principal."""
        return governs(self.view, self.actor.principal, name)

    def found(
        self, name: str, kind: str | None, demands: Callable[[str], Iterable[Demand]]
    ) -> tuple[str, Described]:
        """Returns kind and entry of a name, if the caller may do to it what it wants.

        Args:
            name: The name.
            kind: Its kind, if the caller says it.
            demands: What is wanted takes, given the kind.

        Raises:
            CatalogRefused: There is no such thing, or the caller may not.
        """
        known = self._kind(name, kind)
        if known is None:
            # Says that it is not there to those who may know, and to others that they may not.
            self.require(Need(Privilege.BROWSE, name))
            raise _absent(name, kind)
        self.require(*demands(known))
        entry = described(self.view, known, name)
        if entry is None:
            raise _absent(name, known)
        return known, entry

    def told(self, kind: str, name: str) -> Result:
        """Returns an entry as this command has left it."""
        changes = self.transaction.changes if self.transaction else []
        left = [each.body for each in changes if (each.kind, each.name) == (kind, name)]
        body = left[-1] if left else body_of(self.view, kind, name)
        return {"kind": kind, "name": name, **json.loads(body or "{}")}

    def _kind(self, name: str, kind: str | None) -> str | None:
        """Returns the kind of the one thing that has a name."""
        if kind is not None:
            if problem := kind_problem(kind, [*KINDS, ROOT_KIND]):
                raise invalid(problem, "kind")
            there = kind == ROOT_KIND or body_of(self.view, kind, name) is not None
            return kind if there else None
        if name == ROOT:
            return ROOT_KIND
        kinds = OBJECTS if name.count(".") == OBJECT_DOTS else KINDS
        found = [
            each
            for each in kinds
            if body_of(self.view, each, name) is not None and self.sees(each, name)
        ]
        if len(found) > 1:
            raise invalid(f"{name} is a {' and a '.join(found)}: say which kind", "kind")
        return found[0] if found else None


def _absent(name: str, kind: str | None) -> CatalogRefused:
    return CatalogRefused(Reason.NOT_FOUND, f"there is no {kind or 'thing'} {name}", "name")


def refused(problem: Invalid) -> CatalogRefused:
    """Returns the refusal of what is invalid; its field is the place of the first problem."""
    place = ".".join(map(str, problem.problems[0].place))
    return CatalogRefused(Reason.REQUEST_INVALID, str(problem), place or None)
