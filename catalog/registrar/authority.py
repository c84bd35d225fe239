"""Whether somebody may do something to the catalog. Pure: a view in, a refusal or nothing out.

Whoever may not see a thing is told the same whether it is there or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import ValidationError

from catalog.declared.documents import ROOT_KIND
from catalog.declared.picture import parent, without_version
from catalog.declared.problems import KINDS
from catalog.store.refusals import CatalogRefused
from infra.catalog import CatalogView
from infra.grants import Decision
from schemas.events import Reason
from schemas.kinds import ACTS, PRINCIPALS, ROOT, AgentSpec, ConnectionSpec, Described, Privilege
from schemas.shapes import Spec

SECURABLES = tuple(sorted(KINDS.keys() - PRINCIPALS.keys()))


@dataclass(frozen=True, slots=True)
class Need:
    """A privilege on something in the hierarchy."""

    privilege: Privilege
    name: str


@dataclass(frozen=True, slots=True)
class Governing:
    """The say over a principal: its owner's, or that of whoever manages the root.

    Attributes:
        name: The principal.
        itself: Whether the principal may do this to itself, too.
    """

    name: str
    itself: bool = False


@dataclass(frozen=True, slots=True)
class Owning:
    """The say over who owns something: its owner's, or MANAGE on it and on what it lies in.

    What is denied further up holds for whoever manages it, but not for its owner.
    """

    name: str


@dataclass(frozen=True, slots=True)
class Opening:
    """MANAGE on the root, to send a secret somewhere or to reach into a private network.

    Attributes:
        connection: What would do so.
        name: The root, which nobody's plan makes.
    """

    connection: str
    name: str = ROOT


Demand = Need | Governing | Opening | Owning


def refusal(view: CatalogView, actor: str, demand: Demand) -> CatalogRefused | None:
    """Returns why a principal may not, or None if it may."""
    if isinstance(demand, Governing):
        return _ungoverned(view, actor, demand)
    if isinstance(demand, Owning):
        return _unowned(view, actor, demand.name)
    if isinstance(demand, Opening):
        return _unopened(view, actor, demand.connection)
    if not exists(view, demand.name):
        return _absent(view, actor, demand)
    decision = view.access.explain(actor, demand.privilege, demand.name)
    if decision.allowed:
        return None
    seen = view.access.holds(actor, Privilege.BROWSE, demand.name)
    return _denied(decision.because if seen else _missing(demand))


def effective(view: CatalogView, principal: str, name: str) -> dict[Privilege, Decision]:
    """Returns each privilege, whether it is held, and why; of what is not there as if it were."""
    if exists(view, name) or view.principals.get(principal) is None:
        return view.access.effective(principal, name)
    nearest = _nearest(view, name)
    return {
        privilege: Decision(
            decision.allowed,
            decision.because.replace(f"{nearest} is missing", f"{name} is missing"),
        )
        for privilege, decision in view.access.effective(principal, nearest).items()
    }


def exists(view: CatalogView, name: str) -> bool:
    """Returns whether something in the hierarchy has this name; the root always is there."""
    return name == ROOT or any(body_of(view, kind, name) is not None for kind in SECURABLES)


def body_of(view: CatalogView, kind: str, name: str) -> str | None:
    """Returns the body of an entry as it came; None where there is none."""
    entry = view.entry(kind, name)
    return entry[1] if entry else None


def described(view: CatalogView, kind: str, name: str) -> Described | None:
    """Returns an entry with an owner; None where there is none that can be read."""
    body = body_of(view, kind, name)
    try:
        return None if body is None else Described.model_validate_json(body)
    except ValidationError:
        return None


def governs(view: CatalogView, actor: str, name: str) -> bool:
    """Returns whether somebody has the say over a principal."""
    if view.access.holds(actor, Privilege.MANAGE, ROOT):
        return True
    found = (described(view, kind, name) for kind in PRINCIPALS)
    identities = view.access.identities(actor)
    return any(entry is not None and entry.owner in identities for entry in found)


def may_see(view: CatalogView, actor: str, kind: str, name: str) -> bool:
    """Returns whether somebody may know that an entry is there."""
    if kind not in PRINCIPALS:
        return view.access.holds(actor, Privilege.BROWSE, name)
    return (
        name in view.access.identities(actor)
        or view.access.holds(actor, Privilege.BROWSE, ROOT)
        or governs(view, actor, name)
    )


def creating(kind: str, name: str) -> Demand:
    """Returns what it takes to make something."""
    if kind in PRINCIPALS:
        return Need(Privilege.MANAGE, ROOT)
    return Need(Privilege.CREATE, parent(name) or ROOT)


def changing(kind: str, name: str, fields: set[str]) -> Iterator[Demand]:
    """Yields what it takes to change fields of something."""
    if kind == "tenant" and "spec" in fields:
        # Where its answers go and whether it is believed unsigned concerns all its principals.
        yield Need(Privilege.MANAGE, ROOT)
    elif kind in PRINCIPALS:
        yield Governing(name)
    elif kind == ROOT_KIND:
        yield Need(Privilege.MANAGE, name)
    elif "owner" in fields:
        yield Owning(name)
    if kind not in PRINCIPALS and fields - {"owner"}:
        yield Need(Privilege.MODIFY, name)


def managing(kind: str, name: str) -> Demand:
    """Returns what it takes to delete something, or to grant on it."""
    return Governing(name) if kind in PRINCIPALS else Need(Privilege.MANAGE, name)


def naming(view: CatalogView, spec: Spec) -> Iterator[Demand]:
    """Yields what it takes to name in a spec what it names."""
    for reference in spec.references():
        name = without_version(reference)
        connection = body_of(view, "connection", name) is not None
        yield Need(ACTS["connection"] if connection else Privilege.BROWSE, name)
    if isinstance(spec, AgentSpec) and spec.memory and spec.memory.index:
        # Runs write to it and search it in the name of who may do all, whoever asks.
        yield from (Need(each, spec.memory.index) for each in (Privilege.MODIFY, Privilege.QUERY))


def opening(view: CatalogView, name: str, spec: Spec) -> Iterator[Demand]:
    """Yields what it takes that a connection has a secret or is private, and where it leads.

    Whoever names a secret and an address sends the one to the other; a change that leaves both as
    they are, or takes away, opens nothing.
    """
    if not isinstance(spec, ConnectionSpec):
        return
    before = view.connections.get(name)
    stays = before is not None and before.url == spec.url
    sent = before.secret if before and stays else None
    entered = before is not None and stays and before.private
    if spec.secret not in (None, sent) or (spec.private and not entered):
        yield Opening(name)


def _unopened(view: CatalogView, actor: str, connection: str) -> CatalogRefused | None:
    if view.access.holds(actor, Privilege.MANAGE, ROOT):
        return None
    return CatalogRefused(
        Reason.PRIVILEGE_MISSING,
        f"{connection} would send a secret somewhere or reach a private address, which takes "
        f"MANAGE on {ROOT}: leave secret and private out, or have it made by somebody who holds "
        "that and grants you EXECUTE on it",
        "spec",
    )


def _unowned(view: CatalogView, actor: str, name: str) -> CatalogRefused | None:
    found = (described(view, kind, name) for kind in SECURABLES)
    identities = view.access.identities(actor)
    if any(entry is not None and entry.owner in identities for entry in found):
        return None
    needs = (Need(Privilege.MANAGE, each) for each in (name, parent(name) or ROOT))
    return next(filter(None, (refusal(view, actor, need) for need in needs)), None)


def _absent(view: CatalogView, actor: str, need: Need) -> CatalogRefused:
    if view.access.holds(actor, Privilege.BROWSE, _nearest(view, need.name)):
        return CatalogRefused(Reason.NOT_FOUND, f"there is no {need.name}", "name")
    return _denied(_missing(need))


def _nearest(view: CatalogView, name: str) -> str:
    """Returns what exists of what a name lies in, the nearest."""
    above = parent(name)
    while above is not None and not exists(view, above):
        above = parent(above)
    return above or ROOT


def _missing(need: Need) -> str:
    return f"{need.privilege} on {need.name} is missing"


def _denied(because: str) -> CatalogRefused:
    message = f"{because}; its owner, or whoever holds MANAGE there, can grant it"
    return CatalogRefused(Reason.PRIVILEGE_MISSING, message, "name")


def _ungoverned(view: CatalogView, actor: str, demand: Governing) -> CatalogRefused | None:
    if governs(view, actor, demand.name) or (demand.itself and actor == demand.name):
        there = demand.name in view.principals
        absent = f"there is no principal {demand.name}"
        return None if there else CatalogRefused(Reason.NOT_FOUND, absent, "principal")
    return CatalogRefused(
        Reason.PRIVILEGE_MISSING,
        f"only the owner of {demand.name} may do this, or whoever holds MANAGE on {ROOT}",
        "principal",
    )
