"""Entries that have an owner: containers, objects, principals, and the top of everything."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, Table, Text, all_, delete, insert, literal, select, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as upsert

from catalog.store import referrers
from catalog.store.entries import (
    GRANTS,
    VERSIONS,
    Body,
    Entry,
    described,
    entry_of,
    shelved,
    written_entry,
)
from catalog.store.ledger import Ledger
from catalog.store.refusals import invalid, referred, refusing
from catalog.store.shapes import Given, above, named, storable, target_of
from catalog.store.tables import (
    ADHERENCE,
    ALIAS,
    GRANT,
    MEMBERSHIP,
    PRINCIPAL,
    REFERENCE,
    SECURABLE,
    VERSION,
)
from schemas.kinds import PRINCIPALS, ROOT, VERSIONED, GroupSpec, MemberSpec, TenantSpec
from schemas.shapes import Spec

# The kind of the one entry that is not made and not deleted.
ROOT_KIND = "root"


def create(ledger: Ledger, kind: str, name: str, given: Given, spec: Spec) -> None:
    """Makes an entry; see ``Change.create``."""
    named(kind, name)
    row = _columns(kind, given, spec) | {
        "name": name,
        "kind": kind,
        "created_at": ledger.actor.at,
        "created_by": ledger.actor.principal,
        **ledger.stamp,
    }
    if kind not in PRINCIPALS:
        row["parent"] = above(name)
    with refusing():
        ledger.connection.execute(insert(_table(kind)), row)
        _relate(ledger.connection, kind, name, given, spec)
    body = described(row, told(spec), given.aliases)
    ledger.changed("catalog.create", entry_of(kind, name, body, row))


def change(ledger: Ledger, before: Entry, given: Given, spec: Spec | None) -> None:
    """Changes an entry where something differs; see ``Change.update``.

    Args:
        ledger: The transaction.
        before: The entry as it is.
        given: What it is to be.
        spec: Its new spec; None where it stays.
    """
    kind, name = before.kind, before.name
    wanted = given.model_dump() | {"spec": before.body["spec"] if spec is None else told(spec)}
    if all(before.body[field] == value for field, value in wanted.items()):
        return
    row = _columns(kind, given, spec) | ledger.stamp
    table = _table(kind)
    with refusing():
        ledger.connection.execute(update(table).where(table.c.name == name).values(row))
        _unrelate(ledger.connection, kind, name, given, spec)
        _relate(ledger.connection, kind, name, given, spec)
    ledger.changed("catalog.update", written_entry(ledger.connection, kind, name), before)


def own_root(ledger: Ledger, owner: str) -> None:
    """Gives the top of everything its first owner; see ``Change.own_root``."""
    actor = ledger.actor
    row = {"owner": owner, "created_at": actor.at, "created_by": actor.principal, **ledger.stamp}
    with refusing():
        ledger.connection.execute(update(SECURABLE).where(SECURABLE.c.name == ROOT).values(row))
    ledger.changed("catalog.create", written_entry(ledger.connection, ROOT_KIND, ROOT))


def remove(ledger: Ledger, entry: Entry) -> None:
    """Deletes an entry that nobody needs, with its grants and versions; see ``Change.delete``."""
    if entry.kind == ROOT_KIND:
        raise invalid("the top of everything stays", "kind")
    if entry.kind in PRINCIPALS:
        _remove_principal(ledger, entry.name)
    else:
        _remove_securable(ledger, entry.name)
    ledger.gone("catalog.delete", entry)


def _remove_principal(ledger: Ledger, name: str) -> None:
    if needed := referrers.of_principal(ledger.connection, name):
        raise referred(
            name,
            needed,
            "give those away first; of a principal that had a key, revoke the keys and take its "
            "grants: it stays, so that what it signed can still be verified",
        )
    with refusing():
        ledger.connection.execute(delete(MEMBERSHIP).where(MEMBERSHIP.c.group_name == name))
        ledger.connection.execute(delete(PRINCIPAL).where(PRINCIPAL.c.name == name))


def _remove_securable(ledger: Ledger, name: str) -> None:
    if needed := referrers.of_securable(ledger.connection, name):
        raise referred(name, needed, "change or delete those first")
    for grant in list(shelved(ledger.connection, GRANTS, GRANT.c.securable == name)):
        ledger.gone("catalog.revoke", grant)
    for version in list(shelved(ledger.connection, VERSIONS, VERSION.c.securable == name)):
        ledger.gone("catalog.delete", version)
    with refusing():
        ledger.connection.execute(delete(REFERENCE).where(REFERENCE.c.source == name))
        for table in (ALIAS, VERSION, GRANT):
            ledger.connection.execute(delete(table).where(table.c.securable == name))
        ledger.connection.execute(delete(SECURABLE).where(SECURABLE.c.name == name))


def refer(connection: Connection, source: str, version: int | None, spec: Spec) -> None:
    """Writes down what a securable, or a version of it, needs."""
    targets = {target_of(reference) for reference in spec.references()}
    if targets:
        rows = [
            {
                "source": source,
                "source_version": version,
                "target": target.name,
                "target_version": target.version,
                "target_alias": target.alias,
            }
            for target in sorted(targets, key=str)
        ]
        connection.execute(insert(REFERENCE), rows)


def told(spec: Spec) -> Body:
    """Returns a spec as it is kept and told: whole, a group's members in order and each once."""
    if isinstance(spec, GroupSpec):
        return {"members": sorted(set(spec.members))}
    return spec.model_dump(mode="json")


def _table(kind: str) -> Table:
    return PRINCIPAL if kind in PRINCIPALS else SECURABLE


def _columns(kind: str, given: Given, spec: Spec | None) -> dict[str, Any]:
    """Returns what stands in the row itself; the rest has tables of its own."""
    columns = given.model_dump(exclude={"aliases"})
    if isinstance(spec, MemberSpec):
        columns["tenant"] = spec.tenant
    elif spec is not None and not isinstance(spec, GroupSpec):
        columns["spec"] = told(spec)
    storable(columns, "the entry")
    return columns


def _relate(connection: Connection, kind: str, name: str, given: Given, spec: Spec | None) -> None:
    """Writes what an entry has in other tables: members, references, aliases."""
    if isinstance(spec, GroupSpec):
        _gather(connection, name, sorted(set(spec.members)))
    elif isinstance(spec, TenantSpec) and spec.policies:
        rows = [{"principal": name, "policy": policy} for policy in sorted(set(spec.policies))]
        connection.execute(insert(ADHERENCE), rows)
    elif spec is not None and kind not in PRINCIPALS:
        refer(connection, name, None, spec)
    if given.aliases:
        if kind not in VERSIONED:
            raise invalid(f"only versions have aliases, and a {kind} has none", "aliases")
        _call(connection, name, given.aliases)


def _unrelate(
    connection: Connection, kind: str, name: str, given: Given, spec: Spec | None
) -> None:
    """Takes away what an entry had in other tables and is to have anew, or no more."""
    if isinstance(spec, GroupSpec):
        connection.execute(delete(MEMBERSHIP).where(MEMBERSHIP.c.group_name == name))
    elif isinstance(spec, TenantSpec):
        connection.execute(delete(ADHERENCE).where(ADHERENCE.c.principal == name))
    elif spec is not None and kind not in PRINCIPALS:
        unversioned = REFERENCE.c.source_version.is_(None)
        connection.execute(delete(REFERENCE).where(REFERENCE.c.source == name, unversioned))
    if kind in VERSIONED:
        _uncall(connection, name, given.aliases)


def _gather(connection: Connection, group: str, members: list[str]) -> None:
    if path := referrers.circle(connection, group, members):
        raise invalid(f"a group would contain itself: {' > '.join(path)}", "spec.members")
    if members:
        rows = [{"group_name": group, "member": member} for member in members]
        connection.execute(insert(MEMBERSHIP), rows)


def _call(connection: Connection, name: str, aliases: dict[str, int]) -> None:
    rows = [
        {"securable": name, "name": alias, "number": number}
        for alias, number in sorted(aliases.items())
    ]
    new = upsert(ALIAS)
    moved = new.on_conflict_do_update(
        index_elements=[ALIAS.c.securable, ALIAS.c.name],
        set_={"number": new.excluded.number},
    )
    connection.execute(moved, rows)


def _uncall(connection: Connection, name: str, kept: Iterable[str]) -> None:
    """Takes away all aliases but some."""
    others = (ALIAS.c.securable == name) & (ALIAS.c.name != all_(literal(list(kept), ARRAY(Text))))
    for alias in connection.execute(select(ALIAS.c.name).where(others)).scalars().all():
        if needed := referrers.of_alias(connection, name, alias):
            raise referred(f"alias {name}@{alias}", needed, "change those first")
    connection.execute(delete(ALIAS).where(others))
