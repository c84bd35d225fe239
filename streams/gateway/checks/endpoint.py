"""What is asked, and whether it may be."""

from __future__ import annotations

from datetime import datetime

from infra.catalog import CatalogView
from infra.grants import chain
from infra.identity import identity, quoted
from schemas.events import (
    Reason,
    Refusal,
    Task,
)
from schemas.kinds import CONTAINERS, OBJECTS, ROOT, Privilege
from streams.gateway.asked import Asked

# Of an object's name: catalog.schema.name.
LEVELS = 3


def endpoint_known(asked: Asked, view: CatalogView, now: datetime) -> Refusal | None:
    """Only what the catalog names can be asked.

    That there is no such endpoint is said only to who would see it if there were one. To all others
    it is as if they lacked the privilege, so that nobody finds out names by asking.
    """
    name = asked.request.endpoint
    if name in view.endpoints:
        return None
    if not _sees(identity(asked.sender, view), name, view):
        return _unseen(asked, view)
    return Refusal(
        reason=Reason.ENDPOINT_UNKNOWN,
        message=f"there is no endpoint {quoted(name)}",
        field="endpoint",
    )


def query_granted(asked: Asked, view: CatalogView, now: datetime) -> Refusal | None:
    """Whoever asks needs QUERY, and MODIFY to write to an index.

    Who does not even see the endpoint learns no more than that.
    """
    who, name = identity(asked.sender, view), asked.request.endpoint
    writes = asked.request.task is Task.WRITE and view.endpoints[name].is_index
    privilege = Privilege.MODIFY if writes else Privilege.QUERY
    if view.access.may(who, privilege, name):
        return None
    if not _sees(who, name, view):
        return _unseen(asked, view)
    because = view.access.explain(who, privilege, name).because
    return Refusal(
        reason=Reason.PRIVILEGE_MISSING,
        message=f"{who} may not {'write to' if writes else 'query'} {name}: {because}",
        field="endpoint",
    )


def _sees(who: str, name: str, view: CatalogView) -> bool:
    """Returns whether somebody sees an object, or would see it if there were one of this name."""
    # A name of very many levels would take very long, and cannot exist.
    levels = chain(name) if name.count(".") == LEVELS - 1 else (ROOT,)
    there = next((level for level in levels if _exists(level, view)), ROOT)
    return view.access.holds(who, Privilege.BROWSE, there)


def _exists(name: str, view: CatalogView) -> bool:
    found = (view.entry(kind, name) for kind in (*OBJECTS, *CONTAINERS))
    return any(entry is not None and entry[1] is not None for entry in found)


def _unseen(asked: Asked, view: CatalogView) -> Refusal:
    privilege = Privilege.MODIFY if asked.request.task is Task.WRITE else Privilege.QUERY
    return Refusal(
        reason=Reason.PRIVILEGE_MISSING,
        message=f"{identity(asked.sender, view)} may not query {quoted(asked.request.endpoint)}, "
        f"or there is none; ask its owner for {privilege} on it, and USE on its catalog and schema",
        field="endpoint",
    )
