"""Actions that change nothing: get, list, search, effective, export.

Each tells only what the caller may see.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from catalog.declared.documents import ROOT_KIND
from catalog.declared.picture import Picture
from catalog.declared.plan import export as exported
from catalog.declared.problems import KINDS, kind_problem
from catalog.registrar.arguments import Effective, Export, Get, List, Search
from catalog.registrar.authority import Demand, Governing, Need, effective, refusal
from catalog.registrar.call import Call, Result
from catalog.store.refusals import CatalogRefused, invalid
from schemas.events import Reason
from schemas.kinds import PRINCIPALS, ROOT, Described, Privilege

# The columns of a list.
SHOWN = ("owner", "comment", "tags", "updated_at", "updated_by")


def get(call: Call, wanted: Get) -> Result:
    """Tells all of one thing, or one version of it."""
    name, _, version = wanted.name.partition("@")

    def demands(kind: str) -> list[Demand]:
        if call.sees(kind, name):
            return []
        return [Governing(name) if kind in PRINCIPALS else Need(Privilege.BROWSE, name)]

    kind, entry = call.found(name, wanted.kind, demands)
    picture = Picture.of(_about(call, name))
    if version:
        return _version(picture, kind, name, version, entry)
    told = call.told(kind, name)
    if versions := picture.versions.get(name):
        told["versions"] = [
            {"number": number, **each.model_dump(mode="json", exclude={"kind"})}
            for number, each in sorted(versions.items())
        ]
    if kind in PRINCIPALS:
        told["keys"] = [
            {"key_id": key_id, **key.model_dump(mode="json")}
            for key_id, key in sorted(picture.keys.items())
        ]
    elif call.holds(Privilege.MANAGE, name):
        told["grants"] = {
            principal: grant.model_dump(mode="json")
            for principal, grant in sorted(picture.grants.get(name, {}).items())
        }
    return told


def _about(call: Call, name: str) -> Iterator[tuple[str, str, int, str]]:
    """Yields the versions, keys and grants of something."""
    for kind, full, position, body in call.view.entries():
        version = kind == "version" and full.startswith(f"{name}@")
        grant = kind == "grant" and full.startswith(f"{name}/")
        if version or grant or (kind == "key" and call.view.keys[full].principal == name):
            yield kind, full, position, body


def _version(picture: Picture, kind: str, name: str, version: str, entry: Described) -> Result:
    number = int(version) if version.isdecimal() else entry.aliases.get(version)
    found = picture.versions.get(name, {}).get(number or 0)
    if found is None:
        known = sorted([*map(str, picture.versions.get(name, {})), *entry.aliases])
        there = f"there are: {', '.join(known)}" if known else "it has none"
        message = f"{name} has no version {version[:60]}; {there}"
        raise CatalogRefused(Reason.NOT_FOUND, message, "name")
    return {"kind": "version", "name": f"{name}@{number}", "of": kind} | found.model_dump(
        mode="json", exclude={"kind"}
    )


def list_(call: Call, wanted: List) -> Result:
    """Tells what begins with a name, by name."""
    if wanted.kind and (problem := kind_problem(wanted.kind)):
        raise invalid(problem, "kind")
    kinds = {wanted.kind} if wanted.kind else KINDS.keys()
    entries = [
        entry
        for entry in call.view.entries()
        if entry[0] in kinds and begins(entry[1], wanted.prefix) and call.sees(*entry[:2])
    ]
    return _page(entries, wanted.limit, wanted.page)


def search(call: Call, wanted: Search) -> Result:
    """Tells where all the words stand: in name, kind, comment or tags."""
    words = wanted.text.lower().split()
    entries = [
        entry
        for entry in call.view.entries()
        if entry[0] in KINDS and call.sees(*entry[:2]) and _matches(entry, words)
    ]
    return _page(entries, wanted.limit, wanted.page)


def _matches(entry: tuple[str, str, int, str], words: list[str]) -> bool:
    kind, name, _, body = entry
    # Cheap at first: what is in the parts that count is in the body, too.
    if not all(word in f"{kind} {name} {body}".lower() for word in words if word.isalnum()):
        return False
    for _, _, found in Picture.of([entry]).named():
        said = [kind, name, found.comment, *found.tags, *found.tags.values()]
        return all(word in " ".join(said).lower() for word in words)
    return False


def _page(entries: list[tuple[str, str, int, str]], limit: int, page: str) -> Result:
    """Returns the entries behind a page's mark, and the mark of the next page."""
    name, _, kind = page.partition("/")
    found = sorted(entries, key=lambda entry: (entry[1], entry[0]))
    rest = [entry for entry in found if (entry[1], entry[0]) > (name, kind)]
    picture = Picture.of(rest[:limit])
    told: list[dict[str, Any]] = [
        {"kind": kind, "name": name, **entry.model_dump(mode="json", include={*SHOWN})}
        for kind, name, entry in picture.named()
    ]
    more = len(rest) > limit
    return {"entries": told, "page": f"{rest[limit - 1][1]}/{rest[limit - 1][0]}" if more else None}


def begins(name: str, prefix: str) -> bool:
    """Returns whether a name is, or lies below, another."""
    whole = prefix.rstrip(".")
    return not whole or name == whole or name.startswith(f"{whole}.")


def tell_effective(call: Call, wanted: Effective) -> Result:
    """Tells each privilege of a principal on something, whether it is held, and why."""
    oneself = wanted.principal == call.actor.principal
    if not oneself:
        call.require(Need(Privilege.MANAGE, wanted.securable))
        if wanted.principal not in call.view.principals:
            message = f"there is no principal {wanted.principal}"
            raise CatalogRefused(Reason.NOT_FOUND, message, "principal")
    unseen = refusal(call.view, call.actor.principal, Need(Privilege.BROWSE, wanted.securable))
    if unseen and unseen.reason is Reason.NOT_FOUND:
        raise unseen
    decisions = effective(call.view, wanted.principal, wanted.securable)
    return {
        "principal": wanted.principal,
        "securable": wanted.securable,
        "privileges": {
            privilege: {"allowed": decision.allowed, "because": decision.because}
            for privilege, decision in decisions.items()
        },
    }


def export(call: Call, wanted: Export) -> Result:
    """Tells what begins with a name as documents, which say the same when they are applied.

    Grants are part of what the caller manages; so are the keys of principals.
    """
    picture = Picture.of(
        entry for entry in call.shown() if entry[0] not in KINDS or begins(entry[1], wanted.prefix)
    )
    names = [(kind, name) for kind, name, _ in picture.named()]
    if not wanted.prefix and picture.grants.get(ROOT):
        names.insert(0, (ROOT_KIND, ROOT))
    if wanted.prefix and not names:
        call.require(Need(Privilege.BROWSE, wanted.prefix.rstrip(".")))
    documents = exported(picture, names)
    return {
        "position": call.view.position,
        "documents": [each.model_dump(mode="json", exclude_unset=True) for each in documents],
    }
