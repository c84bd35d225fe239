"""Declarative apply: documents become a plan, and the plan one transaction."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

from catalog.declared.documents import public_key_of
from catalog.declared.picture import Picture, without_version
from catalog.declared.plan import digest, plan
from catalog.declared.problems import Invalid, version_spec_of
from catalog.declared.steps import Step
from catalog.registrar.arguments import Apply
from catalog.registrar.authority import (
    Demand,
    Governing,
    Need,
    changing,
    creating,
    naming,
    opening,
)
from catalog.registrar.call import Call, Result, refused
from catalog.registrar.writing import joining, spec_for
from catalog.store.refusals import CatalogRefused
from infra.signing import key_id
from schemas.events import Reason
from schemas.kinds import PRINCIPALS, Key, Privilege

MOST_NAMED = 10


def apply(call: Call, wanted: Apply) -> Result:
    """Makes the catalog as documents say, or tells what that would take.

    All of it or nothing. With the position and the digest of a plan, only what that plan said.
    """
    # What the caller may not see is as if it were not there, save that principals can be named.
    picture = Picture.of(call.shown())
    try:
        steps = plan(picture, wanted.parsed, call.view.principals.keys())
    except Invalid as problem:
        raise refused(problem) from None
    _unchanged(call, steps, wanted)
    made = {step.entry for step in steps if step.verb == "create"}
    names = frozenset(name for kind, name in made if kind not in PRINCIPALS)
    principals = frozenset(name for kind, name in made if kind in PRINCIPALS)
    for step in steps:
        _permitted(call, step, names, principals)
    position = call.view.position
    if not wanted.dry_run:
        take(call, steps)
        position += len(call.change.changes)
    return {
        "applied": not wanted.dry_run,
        "position": position,
        "digest": digest(steps),
        "steps": [step.told() for step in steps],
    }


def _unchanged(call: Call, steps: Sequence[Step], wanted: Apply) -> None:
    """Returns if a plan still is what its caller saw.

    Raises:
        CatalogRefused: It is another one now.
    """
    if wanted.base is not None:
        entries = sorted({step.entry for step in steps})
        found = [(kind, name, call.view.entry(kind, name)) for kind, name in entries]
        changed = [
            f"{kind} {name}" for kind, name, entry in found if entry and entry[0] > wanted.base
        ]
        if changed:
            named = ", ".join(changed[:MOST_NAMED])
            raise _conflict(f"{named} changed since the plan was made")
    if wanted.digest is not None and wanted.digest != digest(steps):
        raise _conflict("what must be done is no more what the plan said")


def _conflict(what: str) -> CatalogRefused:
    return CatalogRefused(Reason.CONFLICT, f"{what}: nothing was done; look at a new plan", "base")


def _permitted(call: Call, step: Step, names: Collection[str], principals: Collection[str]) -> None:
    """Returns if the caller may take a step; what the plan makes is the caller's own.

    Raises:
        CatalogRefused: The caller may not; the field is the place in the documents.
    """
    for demand in _demands(call, step):
        own = principals if isinstance(demand, Governing) else names
        if demand.name in own:
            continue
        try:
            call.require(demand)
        except CatalogRefused as refusal:
            place = ".".join(map(str, step.place))
            raise CatalogRefused(refusal.reason, refusal.message, place) from None


def _demands(call: Call, step: Step) -> Iterator[Demand]:
    """Yields what a step takes, as the single action does."""
    target = without_version(step.name).partition("/")[0]
    principal = step.kind in PRINCIPALS
    if step.verb == "create":
        yield creating(step.kind, step.name)
    elif step.verb == "grant":
        yield Need(Privilege.MANAGE, target)
    elif step.verb == "key":
        yield Governing(step.after("principal"))
    else:
        fields = {"own": {"owner"}, "update": {*step.changes}}.get(step.verb, {step.verb})
        # A tenant that the plan makes was Need(MANAGE, ROOT) when it was made.
        yield from changing(step.kind, target, fields)
    if spec := step.after("spec"):
        versioned = step.verb == "version"
        shape = version_spec_of(step.kind, spec) if versioned else spec_for(step.kind, spec)
        yield from naming(call.view, shape)
        yield from opening(call.view, step.name, shape)
        if principal and step.verb == "update":
            yield from joining(call, step.kind, step.name, shape)


def take(call: Call, steps: Sequence[Step]) -> None:
    """Takes the steps, in their order.

    Raises:
        CatalogRefused: The store refuses one; the field is the place in the documents.
    """
    for step in steps:
        try:
            TAKEN[step.verb](call, step)
        except CatalogRefused as refusal:
            place = ".".join(map(str, step.place))
            raise CatalogRefused(refusal.reason, refusal.message, place) from None


def _create(call: Call, step: Step) -> None:
    call.change.create(
        step.kind,
        step.name,
        owner=step.after("owner") or call.actor.principal,
        comment=step.after("comment") or "",
        tags=step.after("tags") or {},
        properties=step.after("properties") or {},
        spec=step.after("spec") or {},
    )


def _update(call: Call, step: Step) -> None:
    call.change.update(
        step.kind,
        step.name,
        owner=step.after("owner"),
        comment=step.after("comment"),
        tags=step.after("tags"),
        properties=step.after("properties"),
        spec=step.after("spec"),
        aliases=step.after("aliases"),
    )


def _version(call: Call, step: Step) -> None:
    name = without_version(step.name)
    comment = step.after("comment") or ""
    number = call.change.add_version(step.kind, name, step.after("spec"), comment)
    if step.name != f"{name}@{number}":
        message = (
            f"the next version of {name} is {number}, since no number is given twice: "
            f"say number: {number} in its document"
        )
        raise CatalogRefused(Reason.CONFLICT, message)


def _grant(call: Call, step: Step) -> None:
    securable, _, principal = step.name.partition("/")
    allow, deny = (map(Privilege, step.after(each)) for each in ("allow", "deny"))
    call.change.grant(securable, principal, [*allow], [*deny])


def _key(call: Call, step: Step) -> None:
    public_key = step.after("public_key")
    key = Key.model_validate(
        {
            "principal": step.after("principal"),
            "public_key": public_key,
            "not_before": call.actor.at,
            "expires_at": step.after("expires_at"),
        }
    )
    call.change.key(key_id(public_key_of(public_key)), key)


TAKEN: dict[str, Callable[[Call, Step], None]] = {
    "alias": _update,
    "create": _create,
    "grant": _grant,
    "key": _key,
    "own": _update,
    "update": _update,
    "version": _version,
}
