"""Declarative apply: what must be changed so that the catalog is as the documents say.

Pure: documents and a picture of the catalog in, steps out, each after all that it needs. What the
documents do not say is left alone, and a second plan after the first one's steps is empty.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

from catalog.declared.documents import ROOT_KIND, Document
from catalog.declared.picture import Picture, parent, without_version
from catalog.declared.problems import (
    Invalid,
    Place,
    Problem,
    nearest,
    one,
    shared_replies,
    spec_of,
    version_spec_of,
    written,
)
from catalog.declared.steps import Step, principals_in, steps_of
from schemas.kinds import EVERYONE, PRINCIPALS, ROOT, Grant, Version

# How often the catalog is searched for what may be meant.
MOST_SUGGESTED = 10
# What a document says of an entry in the entry's own words, in this order.
SAID = ("owner", "comment", "tags", "properties", "spec")


def plan(
    picture: Picture, documents: Sequence[Document], known: Collection[str] = ()
) -> tuple[Step, ...]:
    """Returns the steps that make the catalog as the documents say.

    Args:
        picture: The catalog, as far as it may be seen.
        documents: What it shall be like.
        known: Principals that are there and not in the picture.

    Raises:
        Invalid: The documents contradict each other, the catalog, or name what there is not.
    """
    problems = [
        *_clashes(picture, documents),
        *_missing(picture, documents, known),
        *_overheard(picture, documents),
    ]
    made = {
        each.name
        for each in documents
        if each.kind in PRINCIPALS and (each.kind, each.name) not in picture.described
    }
    steps: list[Step] = []
    for number, document in enumerate(documents):
        try:
            steps += steps_of(document, picture, made, ("documents", number))
        except Invalid as invalid:
            problems += invalid.problems
    problems += _repeated(steps)
    if problems:
        raise Invalid(problems)
    return _ordered(steps)


def _repeated(steps: Sequence[Step]) -> Iterator[Problem]:
    """Yields keys that two documents want."""
    first: dict[str, Step] = {}
    for step in steps:
        if step.verb == "key" and first.setdefault(step.name, step) is not step:
            where = written(first[step.name].place)
            yield Problem(step.place, f"key {step.name} is wanted before, at {where}")


def digest(steps: Sequence[Step]) -> str:
    """Returns what two plans have in common only if they change the same from the same."""
    told = json.dumps([step.told() for step in steps], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()


def _clashes(picture: Picture, documents: Sequence[Document]) -> Iterator[Problem]:
    """Yields names that are taken: by another document, or by another kind in the catalog."""
    said: dict[tuple[bool, str], int] = {}
    for number, document in enumerate(documents):
        principal = document.kind in PRINCIPALS
        place: Place = ("documents", number, "name")
        if (other := said.setdefault((principal, document.name), number)) != number:
            yield Problem(place, f"document {other + 1} speaks of {document.name} already")
        for kind in picture.kinds_of(document.name):
            if kind != document.kind and (kind in PRINCIPALS) == principal:
                yield Problem(place, f"{document.name} is there already, as {one(kind)}")


def _overheard(picture: Picture, documents: Sequence[Document]) -> Iterator[Problem]:
    """Yields tenants that would be answered where another one is."""
    specs = {name: now.spec for (kind, name), now in picture.described.items() if kind == "tenant"}
    places: dict[str, Place] = {}
    for number, document in enumerate(documents):
        if document.kind == "tenant":
            places[document.name] = ("documents", number, "spec")
            specs[document.name] = document.spec or specs.get(document.name, {})
    for name, problem in shared_replies(specs):
        if name in places:
            yield Problem(places[name], problem)


def _missing(
    picture: Picture, documents: Sequence[Document], unseen: Collection[str]
) -> Iterator[Problem]:
    """Yields what documents name and neither they nor the catalog have."""
    known = {(each.kind, each.name) for each in documents} | picture.described.keys()
    principals = {name for kind, name in known if kind in PRINCIPALS} | {EVERYONE}
    others = {name for kind, name in known if kind not in PRINCIPALS} | {ROOT}
    left = MOST_SUGGESTED
    for number, document in enumerate(documents):
        for place, name, principal in _named(document):
            there = principals if principal else others
            if name not in there and not (principal and name in unseen):
                meant, _, _ = nearest(name, there if left > 0 else ()).partition("there are")
                left -= 1
                message = f"there is no {name} in the catalog or in the documents; {meant}"
                yield Problem(("documents", number, *place), message.rstrip("; "))


def _named(document: Document) -> Iterator[tuple[Place, str, bool]]:
    """Yields what a document names: where, the name, and whether it is a principal's."""
    if document.kind not in PRINCIPALS and (above := parent(document.name)):
        yield ("name",), above, False
    if document.owner is not None:
        yield ("owner",), document.owner, True
    if document.spec is not None:
        spec = spec_of(document.kind, document.spec)
        yield from ((("spec",), without_version(name), False) for name in spec.references())
        yield from ((("spec",), name, True) for name in principals_in(spec))
    for at, version in enumerate(document.versions or ()):
        for name in version_spec_of(document.kind, version.spec).references():
            yield ("versions", at, "spec"), without_version(name), False
    yield from ((("grants", name), name, True) for name in document.grants or ())
    yield from ((("denies", name), name, True) for name in document.denies or ())


def _ordered(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Returns the steps, each after those that it needs.

    Raises:
        Invalid: Some need each other.
    """
    by_node = {step.node: step for step in steps}
    graph = {step.node: [need for need in step.needs if need in by_node] for step in steps}
    try:
        return tuple(by_node[node] for node in TopologicalSorter(graph).static_order())
    except CycleError as cycle:
        path = cycle.args[1]
        names = " > ".join(node.name for node in reversed(path))
        message = f"{names} need each other: leave one of these out and apply it afterwards"
        raise Invalid([Problem(by_node[path[0]].place, message)]) from None


def export(picture: Picture, names: Sequence[tuple[str, str]]) -> list[Document]:
    """Returns documents that say what the catalog holds; planning them changes nothing.

    Args:
        picture: The catalog.
        names: Kind and name of what is exported; the root is of kind ``root``.
    """
    return [_exported(picture, kind, name) for kind, name in names]


def _exported(picture: Picture, kind: str, name: str) -> Document:
    fields: dict[str, object] = {"kind": kind, "name": name}
    if kind != ROOT_KIND:
        fields |= picture.described[kind, name].model_dump(include={*SAID, "aliases"})
    if kind in PRINCIPALS:
        fields["keys"] = [
            {
                "public_key": key.public_key,
                **({"expires_at": key.expires_at} if key.expires_at else {}),
            }
            for _, key in sorted(picture.keys.items())
            if key.principal == name and not key.revoked_at
        ]
    else:
        fields |= _shown_grants(picture.grants.get(name, {}))
        fields["versions"] = _versions(picture.versions.get(name, {}))
    said = ("kind", "name", *SAID, "versions", "aliases", "grants", "denies", "keys")
    return Document.model_validate({each: fields[each] for each in said if fields.get(each)})


def _versions(versions: Mapping[int, Version]) -> list[dict[str, object]]:
    gaps = sorted(versions) != [*range(1, len(versions) + 1)]
    return [
        {
            **({"number": number} if gaps else {}),
            "spec": each.spec,
            **({"comment": each.comment} if each.comment else {}),
        }
        for number, each in sorted(versions.items())
    ]


def _shown_grants(grants: Mapping[str, Grant]) -> dict[str, object]:
    pairs = sorted(grants.items())
    return {
        "grants": {principal: sorted(each.allow) for principal, each in pairs if each.allow},
        "denies": {principal: sorted(each.deny) for principal, each in pairs if each.deny},
    }
