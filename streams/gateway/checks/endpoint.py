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
from schemas.kinds import ACTS, CONTAINERS, OBJECTS, ROOT, Privilege
from streams.gateway.asked import Asked

# Of an object's name: catalog.schema.name.
LEVELS = 3
# What is asked for something else than an endpoint or an index.
ASKED: dict[Task, str] = {Task.AGENT: "agent", Task.TOOL: "function"}
# What it is that somebody may not, in words.
VERBS: dict[Privilege, str] = {
    Privilege.EXECUTE: "execute",
    Privilege.MODIFY: "write to",
    Privilege.QUERY: "query",
}


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
    if name in view.functions:
        message = f"the function {name} has no version yet: give it one to call it"
    else:
        message = f"there is no {ASKED.get(asked.request.task, 'endpoint')} {quoted(name)}"
    return Refusal(reason=Reason.ENDPOINT_UNKNOWN, message=message, field="endpoint")


def asking_granted(asked: Asked, view: CatalogView, now: datetime) -> Refusal | None:
    """Whoever asks needs QUERY, EXECUTE for agents and functions, MODIFY to write to an index.

    Who does not even see what is asked learns no more than that.
    """
    who, name = identity(asked.sender, view), asked.request.endpoint
    kind = view.endpoints[name].kind
    writes = asked.request.task is Task.WRITE and kind == "index"
    privilege = Privilege.MODIFY if writes else ACTS[kind]
    if view.access.may(who, privilege, name):
        return None
    if not _sees(who, name, view):
        return _unseen(asked, view)
    because = view.access.explain(who, privilege, name).because
    return Refusal(
        reason=Reason.PRIVILEGE_MISSING,
        message=f"{who} may not {VERBS[privilege]} {name}: {because}",
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
    """Returns a refusal that is the same whether or not there is what is asked, and what it is."""
    task = asked.request.task
    privilege = Privilege.MODIFY if task is Task.WRITE else ACTS[ASKED.get(task, "endpoint")]
    return Refusal(
        reason=Reason.PRIVILEGE_MISSING,
        message=f"{identity(asked.sender, view)} may not {VERBS[privilege]} "
        f"{quoted(asked.request.endpoint)}, or there is none; ask its owner for {privilege} on it, "
        "and USE on its catalog and schema",
        field="endpoint",
    )
