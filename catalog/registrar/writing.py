"""Actions that change one thing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import TypeVar

from catalog.declared.documents import SIGNING, public_key_of
from catalog.declared.problems import (
    Invalid,
    kind_problem,
    name_problem,
    shared_replies,
    spec_of,
    version_spec_of,
)
from catalog.registrar.arguments import (
    AddVersion,
    Alias,
    Create,
    Delete,
    KeyCreate,
    KeyRevoke,
    KeyRotate,
    Privileges,
    Tag,
    Update,
)
from catalog.registrar.authority import (
    Demand,
    Governing,
    Need,
    body_of,
    changing,
    creating,
    described,
    managing,
    naming,
    opening,
)
from catalog.registrar.call import Call, Result, refused
from catalog.store.refusals import CatalogRefused, invalid
from infra.catalog import SigningKey
from infra.signing import key_id
from schemas.events import Reason
from schemas.kinds import ROOT, VERSIONED, Grant, Key, MemberSpec, Privilege
from schemas.shapes import Spec

V = TypeVar("V")


def create(call: Call, wanted: Create) -> Result:
    """Makes something new."""
    if problem := kind_problem(wanted.kind):
        raise invalid(problem, "kind")
    if problem := name_problem(wanted.kind, wanted.name):
        raise invalid(problem, "name")
    spec = spec_for(wanted.kind, wanted.spec)
    call.require(
        creating(wanted.kind, wanted.name),
        *naming(call.view, spec),
        *opening(call.view, wanted.name, spec),
    )
    _unshared(call, wanted.kind, wanted.name, spec)
    call.change.create(
        wanted.kind,
        wanted.name,
        owner=wanted.owner or call.actor.principal,
        comment=wanted.comment,
        tags=wanted.tags,
        properties=wanted.properties,
        spec=spec.model_dump(mode="json"),
    )
    return call.told(wanted.kind, wanted.name)


def update(call: Call, wanted: Update) -> Result:
    """Changes what is said of something and leaves the rest."""
    fields = wanted.model_fields_set & {"owner", "comment", "properties", "spec"}
    if not fields:
        raise invalid("say what shall be different: owner, comment, properties or spec")
    kind, _ = call.found(wanted.name, wanted.kind, lambda kind: changing(kind, wanted.name, fields))
    spec = None
    if wanted.spec is not None:
        shape = spec_for(kind, wanted.spec)
        call.require(
            *naming(call.view, shape),
            *joining(call, kind, wanted.name, shape),
            *opening(call.view, wanted.name, shape),
        )
        _unshared(call, kind, wanted.name, shape)
        spec = shape.model_dump(mode="json")
    call.change.update(
        kind,
        wanted.name,
        etag=wanted.etag,
        owner=wanted.owner,
        comment=wanted.comment,
        properties=wanted.properties,
        spec=spec,
    )
    return call.told(kind, wanted.name)


def _unshared(call: Call, kind: str, name: str, spec: Spec) -> None:
    """Returns if a tenant's replies are its own.

    Raises:
        CatalogRefused: They would be another's, too.
    """
    if kind != "tenant":
        return
    known = {each: described(call.view, kind, each) for each in call.view.tenants}
    specs = {each: found.spec for each, found in known.items() if found}
    specs[name] = spec.model_dump(mode="json")
    if problem := dict(shared_replies(specs)).get(name):
        raise invalid(problem, "spec.replies")


def joining(call: Call, kind: str, name: str, spec: Spec) -> Iterator[Demand]:
    """Yields what it takes to bring a principal into another tenant: the say over that, too."""
    if isinstance(spec, MemberSpec):
        principal = call.view.principals.get(name)
        if principal is None or principal.tenant != spec.tenant:
            yield Governing(spec.tenant)


def tag(call: Call, wanted: Tag) -> Result:
    """Sets tags and takes others away."""
    kind, entry = call.found(
        wanted.name, wanted.kind, lambda kind: changing(kind, wanted.name, {"tags"})
    )
    tags = without(entry.tags, wanted.unset) | wanted.set
    call.change.update(kind, wanted.name, etag=wanted.etag, tags=tags)
    return call.told(kind, wanted.name)


def alias(call: Call, wanted: Alias) -> Result:
    """Sets names of versions and takes others away."""
    kind, entry = call.found(
        wanted.name, wanted.kind, lambda kind: changing(kind, wanted.name, {"aliases"})
    )
    _versioned(kind)
    aliases = without(entry.aliases, wanted.unset) | wanted.set
    call.change.update(kind, wanted.name, etag=wanted.etag, aliases=aliases)
    return call.told(kind, wanted.name)


def version(call: Call, wanted: AddVersion) -> Result:
    """Adds a version, which gets the next number."""
    kind, _ = call.found(wanted.name, None, lambda kind: changing(kind, wanted.name, {"versions"}))
    _versioned(kind)
    try:
        spec = version_spec_of(kind, wanted.spec)
    except Invalid as problem:
        raise refused(problem) from None
    call.require(*naming(call.view, spec))
    told = spec.model_dump(mode="json")
    number = call.change.add_version(kind, wanted.name, told, wanted.comment)
    return call.told("version", f"{wanted.name}@{number}") | {"number": number}


def delete(call: Call, wanted: Delete) -> Result:
    """Deletes something that nobody needs."""
    kind, _ = call.found(wanted.name, wanted.kind, lambda kind: [managing(kind, wanted.name)])
    call.change.delete(kind, wanted.name, etag=wanted.etag)
    return {"kind": kind, "name": wanted.name, "deleted": True}


def grant(call: Call, wanted: Privileges) -> Result:
    """Allows privileges; one that was denied by the same grant is denied no more."""
    return _set(call, wanted, allow=True, deny=False)


def deny(call: Call, wanted: Privileges) -> Result:
    """Denies privileges, whatever else allows them."""
    return _set(call, wanted, allow=False, deny=True)


def revoke(call: Call, wanted: Privileges) -> Result:
    """Takes privileges back, allowed or denied."""
    return _set(call, wanted, allow=False, deny=False)


def _set(call: Call, wanted: Privileges, *, allow: bool, deny: bool) -> Result:
    call.require(Need(Privilege.MANAGE, wanted.securable))
    name = f"{wanted.securable}/{wanted.principal}"
    body = body_of(call.view, "grant", name)
    before = Grant.model_validate_json(body) if body else Grant()
    said = {*wanted.privileges}
    allowed = {*before.allow} - said | (said if allow else set())
    denied = {*before.deny} - said | (said if deny else set())
    call.change.grant(wanted.securable, wanted.principal, sorted(allowed), sorted(denied))
    return {
        "securable": wanted.securable,
        "principal": wanted.principal,
        "allow": sorted(allowed),
        "deny": sorted(denied),
    }


def key_create(call: Call, wanted: KeyCreate) -> Result:
    """Adds a public key to a principal."""
    call.require(Governing(wanted.principal))
    return _add_key(call, wanted.principal, wanted)


def key_rotate(call: Call, wanted: KeyRotate) -> Result:
    """Adds a key in place of another, which counts on for the overlap."""
    old = _key(call, wanted.key_id)
    wanted = _limited(call, old, wanted)
    told = _add_key(call, old.principal, wanted)
    until = call.actor.at + timedelta(seconds=wanted.overlap_s)
    call.change.revoke_key(wanted.key_id, until)
    return {**told, "replaces": wanted.key_id, "until": until.isoformat()}


def _limited(call: Call, old: Key, wanted: KeyRotate) -> KeyRotate:
    """Returns a rotation under which a principal alone cannot make its key count for longer.

    Raises:
        CatalogRefused: The old key is revoked or has expired, or the new one would outlive it.
    """
    if old.revoked_at is not None:
        message = "this key is revoked, or was rotated before; rotate the one that replaces it"
        raise CatalogRefused(Reason.KEY_REVOKED, message, "key_id")
    end = old.expires_at
    if end is None:
        return wanted
    if end <= call.actor.at:
        message = f"this key has expired; the owner of {old.principal} can create another"
        raise CatalogRefused(Reason.KEY_EXPIRED, message, "key_id")
    if call.governs(old.principal):
        return wanted
    if wanted.expires_at is not None and wanted.expires_at > end:
        message = (
            f"this key expires at {end.isoformat()}, and so does what replaces it, unless the "
            f"owner of {old.principal} rotates it"
        )
        raise CatalogRefused(Reason.PRIVILEGE_MISSING, message, "expires_at")
    return wanted.model_copy(update={"expires_at": wanted.expires_at or end})


def key_revoke(call: Call, wanted: KeyRevoke) -> Result:
    """Revokes a key from now on; not the last by which somebody can manage everything."""
    if _manages(call, _key(call, wanted.key_id)) and not _others_manage(call, wanted.key_id):
        message = (
            "this is the last key of anybody who may MANAGE everything, and without it nobody "
            "could make another: first create the next one (tessera key create)"
        )
        raise invalid(message, "key_id")
    call.change.revoke_key(wanted.key_id)
    return call.told("key", wanted.key_id) | {"key_id": wanted.key_id}


def _manages(call: Call, key: Key | SigningKey) -> bool:
    return call.view.access.holds(key.principal, Privilege.MANAGE, ROOT)


def _others_manage(call: Call, but: str) -> bool:
    """Returns whether a key in force besides one is somebody's who may manage everything."""
    return any(
        each.key_id != but
        and each.revoked_at is None
        and (each.expires_at is None or each.expires_at > call.actor.at)
        and _manages(call, each)
        for each in call.view.keys.values()
    )


def _key(call: Call, identity: str) -> Key:
    """Returns a key that the caller has the say over."""
    body = body_of(call.view, "key", identity)
    known = Key.model_validate_json(body) if body else None
    owner = known.principal if known else ""
    if known is None or not (owner == call.actor.principal or call.governs(owner)):
        message = f"you have no key {identity[:64]}, and no say over whose it may be"
        raise CatalogRefused(Reason.NOT_FOUND, message, "key_id")
    return known


def _add_key(call: Call, principal: str, wanted: KeyCreate | KeyRotate) -> Result:
    found = call.view.principals.get(principal)
    if found is None or found.kind not in SIGNING:
        message = f"{principal} is no user or service principal, and only those sign"
        raise invalid(message, "principal")
    try:
        identity = key_id(public_key_of(wanted.public_key))
    except ValueError as problem:
        raise invalid(str(problem), "public_key") from None
    key = Key(
        principal=principal,
        public_key=wanted.public_key,
        not_before=call.actor.at,
        expires_at=wanted.expires_at,
    )
    call.change.key(identity, key)
    return call.told("key", identity) | {"key_id": identity}


def spec_for(kind: str, spec: dict[str, object]) -> Spec:
    """Returns a spec in the shape of its kind.

    Raises:
        CatalogRefused: It has another.
    """
    try:
        return spec_of(kind, spec)
    except Invalid as problem:
        raise refused(problem) from None


def without(kept: dict[str, V], gone: Iterable[str]) -> dict[str, V]:
    """Returns what is left when some is taken away."""
    return {name: value for name, value in kept.items() if name not in {*gone}}


def _versioned(kind: str) -> None:
    if kind not in VERSIONED:
        raise invalid(f"a {kind} has no versions; these have: {', '.join(VERSIONED)}", "name")
