"""The steps of a plan: what one document wants to be different, each with what it needs before.

Pure. The functions look at one document and at the picture of the catalog, and never at the order:
that comes from what the steps need.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from catalog.declared.documents import ROOT_KIND, Document, numbered, public_key_of
from catalog.declared.picture import Picture, parent
from catalog.declared.problems import Invalid, Place, Problem, spec_of, version_spec_of
from infra.signing import key_id
from schemas.kinds import PRINCIPALS, GroupSpec, MemberSpec
from schemas.shapes import Spec

# Steps whose entry is not the thing that the document speaks of.
ASIDE = frozenset({"grant", "key", "version"})


class Node(NamedTuple):
    """A step as others need it; principals have names of their own beside all others."""

    verb: str
    principal: bool
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One change.

    Attributes:
        verb: create, own, update, version, alias, grant or key.
        kind: Kind of the thing that the document speaks of.
        name: Name of the entry that is changed: of a version ``a.b.c@2``, of a grant
            ``a.b.c/alice``, of a key its id.
        changes: By field what is and what shall be, as JSON says it; null for what is not there.
        place: The part of the documents that asks for it.
        needs: The steps that must be taken before, where they are part of the plan.
    """

    verb: str
    kind: str
    name: str
    changes: Mapping[str, tuple[Any, Any]]
    place: Place
    needs: tuple[Node, ...] = ()

    @property
    def node(self) -> Node:
        """What others know it by."""
        return Node(self.verb, self.kind in PRINCIPALS, self.name)

    @property
    def entry(self) -> tuple[str, str]:
        """Kind and name of the entry that it changes."""
        return (self.verb if self.verb in ASIDE else self.kind, self.name)

    def after(self, field: str) -> Any:
        """Returns what a field shall be; None where the step says nothing of it."""
        return self.changes.get(field, (None, None))[1]

    def told(self) -> dict[str, Any]:
        """Returns the step as a reply tells it."""
        changes = {name: list(each) for name, each in self.changes.items()}
        return {"verb": self.verb, "kind": self.kind, "name": self.name, "changes": changes}


def steps_of(document: Document, picture: Picture, made: set[str], place: Place) -> Iterator[Step]:
    """Yields what a document wants to be different.

    Args:
        document: The document.
        picture: The catalog as it is.
        made: The principals that the documents make.
        place: Where the document stands.

    Raises:
        Invalid: The document wants what cannot be had.
    """
    if document.kind != ROOT_KIND:
        if (document.kind, document.name) in picture.described:
            yield from _updated(document, picture, place)
        else:
            yield from _created(document, made, place)
        yield from _versions(document, picture, place)
        yield from _aliases(document, picture, place)
        yield from _keys(document, picture, place)
    yield from _grants(document, picture, place)


def normal(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Returns a spec as the catalog keeps it; one that this version cannot read as it is."""
    try:
        return _kept(spec_of(kind, spec))
    except Invalid:
        return spec


def _kept(spec: Spec) -> dict[str, Any]:
    told = spec.model_dump(mode="json")
    # A group is a set.
    return {"members": sorted({*spec.members})} if isinstance(spec, GroupSpec) else told


def _created(document: Document, made: set[str], place: Place) -> Iterator[Step]:
    spec = spec_of(document.kind, document.spec or {}, (*place, "spec"))
    # Owner and owned may need each other, as a tenant and its first user do.
    late = document.owner in made
    wanted = {
        "owner": None if late else document.owner,
        "comment": document.comment,
        "tags": document.tags,
        "properties": document.properties,
        "spec": _kept(spec),
    }
    above = None if document.kind in PRINCIPALS else parent(document.name)
    yield Step(
        verb="create",
        kind=document.kind,
        name=document.name,
        changes={name: (None, value) for name, value in wanted.items() if value},
        place=place,
        needs=(*_needs(spec), *([Node("create", False, above)] if above else [])),
    )
    if late:
        yield _own(document, place, None)


def _updated(document: Document, picture: Picture, place: Place) -> Iterator[Step]:
    now = picture.described[document.kind, document.name]
    changes: dict[str, tuple[Any, Any]] = {
        name: (getattr(now, name), wanted)
        for name in ("comment", "tags", "properties")
        if (wanted := getattr(document, name)) is not None and wanted != getattr(now, name)
    }
    needs: tuple[Node, ...] = ()
    if document.spec is not None:
        spec = spec_of(document.kind, document.spec, (*place, "spec"))
        before, wanted = normal(document.kind, now.spec), _kept(spec)
        if wanted != before:
            changes["spec"], needs = (before, wanted), tuple(_needs(spec))
    if changes:
        yield Step(
            verb="update",
            kind=document.kind,
            name=document.name,
            changes=changes,
            place=place,
            needs=needs,
        )
    if document.owner not in (None, now.owner):
        yield _own(document, place, now.owner)


def _own(document: Document, place: Place, before: str | None) -> Step:
    owner = str(document.owner)
    return Step(
        verb="own",
        kind=document.kind,
        name=document.name,
        changes={"owner": (before, owner)},
        place=(*place, "owner"),
        needs=(_itself(document), Node("create", True, owner)),
    )


def _versions(document: Document, picture: Picture, place: Place) -> Iterator[Step]:
    there = picture.versions.get(document.name, {})
    previous = max(there, default=0)
    for at, (number, wanted) in enumerate(numbered(document)):
        place_of = (*place, "versions", at)
        spec = version_spec_of(document.kind, wanted.spec, (*place_of, "spec"))
        told = _kept(spec)
        if now := there.get(number):
            before = version_spec_of(document.kind, now.spec).model_dump(mode="json")
            if (before, now.comment) != (told, wanted.comment):
                raise Invalid([Problem(place_of, _unlike(document.name, number, previous + 1))])
            continue
        if number < previous:
            raise Invalid([Problem(place_of, f"{document.name} has later versions already")])
        yield Step(
            verb="version",
            kind=document.kind,
            name=f"{document.name}@{number}",
            changes={"spec": (None, told), "comment": (None, wanted.comment)},
            place=place_of,
            needs=(
                _itself(document),
                *_needs(spec),
                Node("version", False, f"{document.name}@{previous}"),
            ),
        )
        previous = number


def _unlike(name: str, number: int, fresh: int) -> str:
    return (
        f"version {number} of {name} is another one in the catalog, and versions never change: "
        f"give it back its content and add yours as version {fresh}"
    )


def _aliases(document: Document, picture: Picture, place: Place) -> Iterator[Step]:
    if document.aliases is None:
        return
    now = picture.described.get((document.kind, document.name))
    before = now.aliases if now else {}
    numbers = {*picture.versions.get(document.name, {})}
    numbers |= {number for number, _ in numbered(document)}
    wrong = {alias: number for alias, number in document.aliases.items() if number not in numbers}
    if wrong:
        raise Invalid(
            Problem((*place, "aliases", alias), f"{document.name} has no version {number}")
            for alias, number in wrong.items()
        )
    if document.aliases != before:
        versions = (Node("version", False, f"{document.name}@{number}") for number in numbers)
        yield Step(
            verb="alias",
            kind=document.kind,
            name=document.name,
            changes={"aliases": (before, document.aliases)},
            place=(*place, "aliases"),
            needs=(_itself(document), *versions),
        )


def _keys(document: Document, picture: Picture, place: Place) -> Iterator[Step]:
    for number, wanted in enumerate(document.keys or ()):
        at = (*place, "keys", number)
        identity = key_id(public_key_of(wanted.public_key))
        now = picture.keys.get(identity)
        if now and now.principal != document.name:
            raise Invalid([Problem(at, f"key {identity} is {now.principal}'s already")])
        if now and now.revoked_at:
            raise Invalid([Problem(at, f"key {identity} was revoked and stays so; remove it")])
        if now and wanted.expires_at not in (None, now.expires_at):
            message = f"when key {identity} expires does not change; revoke it and add another"
            raise Invalid([Problem((*at, "expires_at"), message)])
        if now is None:
            expires = wanted.expires_at
            yield Step(
                verb="key",
                kind=document.kind,
                name=identity,
                changes={
                    "principal": (None, document.name),
                    "public_key": (None, wanted.public_key),
                    "expires_at": (None, expires and expires.isoformat()),
                },
                place=at,
                needs=(_itself(document),),
            )


def _grants(document: Document, picture: Picture, place: Place) -> Iterator[Step]:
    allowed, denied = document.grants or {}, document.denies or {}
    for principal in {**allowed, **denied}:
        now = picture.grants.get(document.name, {}).get(principal)
        allow, deny = {*allowed.get(principal, ())}, {*denied.get(principal, ())}
        at = (*place, "grants" if principal in allowed else "denies", principal)
        if both := allow & deny:
            message = f"{', '.join(sorted(both))} cannot be granted and denied at once"
            raise Invalid([Problem(at, message)])
        if (allow, deny) != ({*now.allow} if now else set(), {*now.deny} if now else set()):
            yield Step(
                verb="grant",
                kind=document.kind,
                name=f"{document.name}/{principal}",
                changes={
                    "allow": (sorted(now.allow) if now else [], sorted(allow)),
                    "deny": (sorted(now.deny) if now else [], sorted(deny)),
                },
                place=at,
                needs=(_itself(document), Node("create", True, principal)),
            )


def _itself(document: Document) -> Node:
    return Node("create", document.kind in PRINCIPALS, document.name)


def _needs(spec: Spec) -> Iterator[Node]:
    """Yields the steps that make what a spec names."""
    for reference in spec.references():
        name, _, version = reference.partition("@")
        yield Node("create", False, name)
        if version.isdecimal():
            yield Node("version", False, reference)
        elif version:
            yield Node("alias", False, name)
    for name in principals_in(spec):
        yield Node("create", True, name)


def principals_in(spec: Spec) -> Iterator[str]:
    """Yields the principals that a spec names."""
    if isinstance(spec, GroupSpec):
        yield from spec.members
    if isinstance(spec, MemberSpec):
        yield spec.tenant
