"""What stands in the tables, as the entries that are told on the bus.

An entry is written the same way when it is changed and when it is read: that is what makes the
topic and the store comparable.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import Column, ColumnElement, Connection, Select, Table, select, true

from catalog.store.shapes import target_of, written
from catalog.store.tables import (
    ALIAS,
    GRANT,
    MEMBERSHIP,
    PRINCIPAL,
    SECURABLE,
    SIGNING_KEY,
    VERSION,
)
from schemas.events import CatalogChanged
from schemas.kinds import CONTAINERS, OBJECTS, PRINCIPALS

Body = dict[str, Any]
Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An entry as it stands since a change."""

    kind: str
    name: str
    body: Body
    position: int
    at: datetime
    by: str

    def changed(self) -> CatalogChanged:
        """Returns the entry as the fact that is told of it."""
        return CatalogChanged(
            position=self.position,
            kind=self.kind,
            name=self.name,
            body=written(self.body),
            changed_at=self.at,
            changed_by=self.by,
        )


def described(row: Values, spec: Body, aliases: dict[str, int]) -> Body:
    """Returns the body of an entry with an owner (``schemas.kinds.Described``)."""
    return {
        "owner": row["owner"],
        "comment": row["comment"],
        "tags": row["tags"],
        "properties": row["properties"],
        "etag": str(row["position"]),
        "spec": spec,
        "aliases": aliases,
        "created_at": instant(row["created_at"]),
        "created_by": row["created_by"],
        "updated_at": instant(row["changed_at"]),
        "updated_by": row["changed_by"],
    }


def versioned(row: Values) -> Body:
    """Returns the body of a version."""
    return {
        "kind": row["kind"],
        "spec": row["spec"],
        "comment": row["comment"],
        "created_at": instant(row["changed_at"]),
        "created_by": row["changed_by"],
    }


def granted(row: Values) -> Body:
    """Returns the body of a grant."""
    return {"allow": row["allow"], "deny": row["deny"]}


def keyed(row: Values) -> Body:
    """Returns the body of a key."""
    return {
        "principal": row["principal"],
        "public_key": b64encode(row["public_key"]).decode(),
        "not_before": instant(row["not_before"]),
        "expires_at": row["expires_at"] and instant(row["expires_at"]),
        "revoked_at": row["revoked_at"] and instant(row["revoked_at"]),
    }


def instant(at: datetime) -> str:
    """Returns a time with a zone as text, in UTC."""
    return at.astimezone(UTC).isoformat()


class Shelf(NamedTuple):
    """Where entries of one sort stand, what names one, and how it is read."""

    table: Table
    key: tuple[Column[Any], ...]
    separator: str
    kind: str | None
    body: Callable[[Values], Body]


GRANTS = Shelf(GRANT, (GRANT.c.securable, GRANT.c.principal), "/", "grant", granted)
KEYS = Shelf(SIGNING_KEY, (SIGNING_KEY.c.key_id,), "", "key", keyed)
VERSIONS = Shelf(VERSION, (VERSION.c.securable, VERSION.c.number), "@", "version", versioned)


def securables(connection: Connection, name: str | None = None) -> Iterator[Entry]:
    """Yields all that lies in the hierarchy, or what has a name; the top once it has an owner."""
    aliases: dict[str, dict[str, int]] = {}
    for row in _rows(connection, select(ALIAS).where(_is(ALIAS.c.securable, name))):
        aliases.setdefault(row["securable"], {})[row["name"]] = row["number"]
    for row in _rows(connection, _live(SECURABLE, _is(SECURABLE.c.name, name))):
        body = described(row, row["spec"], aliases.get(row["name"], {}))
        yield entry_of(row["kind"], row["name"], body, row)


def principals(connection: Connection, name: str | None = None) -> Iterator[Entry]:
    """Yields all principals, or what has a name, without what is built in."""
    members: dict[str, list[str]] = {}
    for row in _rows(connection, select(MEMBERSHIP).where(_is(MEMBERSHIP.c.group_name, name))):
        members.setdefault(row["group_name"], []).append(row["member"])
    for row in _rows(connection, _live(PRINCIPAL, _is(PRINCIPAL.c.name, name))):
        spec = principal_spec(row, members.get(row["name"], []))
        yield entry_of(row["kind"], row["name"], described(row, spec, {}), row)


def principal_spec(row: Values, members: list[str]) -> Body:
    """Returns the spec of a principal: what other tables know of it is put in."""
    specs: dict[str, Body] = {
        "group": {"members": sorted(members)},
        "service_principal": {"tenant": row["tenant"]},
        "tenant": row["spec"],
        "user": {"tenant": row["tenant"]},
    }
    return specs[row["kind"]]


def shelved(
    connection: Connection, shelf: Shelf, where: ColumnElement[bool] | None = None
) -> Iterator[Entry]:
    """Yields the entries of a shelf for which a condition holds."""
    condition = true() if where is None else where
    for row in _rows(connection, select(shelf.table).where(condition)):
        name = shelf.separator.join(str(row[column.name]) for column in shelf.key)
        yield entry_of(shelf.kind or row["kind"], name, shelf.body(row), row)


def everything(connection: Connection) -> list[Entry]:
    """Returns all entries in the order of their last changes."""
    found = [*principals(connection), *securables(connection)]
    for shelf in (GRANTS, KEYS, VERSIONS):
        found += shelved(connection, shelf)
    return sorted(found, key=lambda entry: entry.position)


def find(connection: Connection, kind: str, name: str) -> Entry | None:
    """Returns one entry; None where there is none of this kind and name."""
    if kind in PRINCIPALS:
        found = principals(connection, name)
    elif kind == "root" or kind in CONTAINERS or kind in OBJECTS:
        found = securables(connection, name)
    else:
        found = _on_shelf(connection, kind, name)
    return next((entry for entry in found if entry.kind == kind), None)


def written_entry(connection: Connection, kind: str, name: str) -> Entry:
    """Returns an entry that this transaction has just written."""
    entry = find(connection, kind, name)
    assert entry is not None, f"{kind} {name} is not where it was written"
    return entry


def _on_shelf(connection: Connection, kind: str, name: str) -> Iterator[Entry]:
    if kind == "grant":
        securable, _, principal = name.partition("/")
        where = (GRANT.c.securable == securable) & (GRANT.c.principal == principal)
        yield from shelved(connection, GRANTS, where)
    elif kind == "key":
        yield from shelved(connection, KEYS, SIGNING_KEY.c.key_id == name)
    elif kind == "version":
        target = target_of(name)
        where = (VERSION.c.securable == target.name) & (VERSION.c.number == target.version)
        yield from shelved(connection, VERSIONS, where)


def entry_of(kind: str, name: str, body: Body, row: Values) -> Entry:
    """Returns the entry of a row that says when it was changed."""
    return Entry(
        kind=kind,
        name=name,
        body=body,
        position=row["position"],
        at=row["changed_at"],
        by=row["changed_by"],
    )


def _live(table: Table, where: ColumnElement[bool]) -> Select[Any]:
    return select(table).where(table.c.position > 0, where)


def _is(column: Column[Any], name: str | None) -> ColumnElement[bool]:
    return true() if name is None else column == name


def _rows(connection: Connection, query: Select[Any]) -> Iterator[Values]:
    for row in connection.execute(query):
        yield row._asdict()
