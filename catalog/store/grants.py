"""Grants: what a principal is allowed and denied on a securable, one row for each pair."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, delete, update
from sqlalchemy.dialects.postgresql import insert as upsert

from catalog.store.entries import GRANTS, Body, Entry, granted, shelved
from catalog.store.ledger import Ledger
from catalog.store.refusals import refusing
from catalog.store.shapes import shaped
from catalog.store.tables import GRANT
from schemas.kinds import Grant, Privilege

NEW = upsert(GRANT).on_conflict_do_nothing().returning(GRANT.c.principal)
NOTHING: Body = {"allow": [], "deny": []}


def grant(
    ledger: Ledger,
    securable: str,
    principal: str,
    allow: Collection[Privilege],
    deny: Collection[Privilege],
) -> None:
    """Replaces the grant of a pair; see ``Change.grant``."""
    given = shaped(Grant, {"allow": tuple(allow), "deny": tuple(deny)})
    body: Body = {"allow": sorted(set(given.allow)), "deny": sorted(set(given.deny))}
    row = {"securable": securable, "principal": principal, **body, **ledger.stamp}
    if body != NOTHING and _insert(ledger.connection, row):
        ledger.changed(_action(NOTHING, body), _entry(row))
        return
    where = (GRANT.c.securable == securable) & (GRANT.c.principal == principal)
    before = next(shelved(ledger.connection, GRANTS, where), None)
    if before is None or before.body == body:
        return
    if body == NOTHING:
        ledger.connection.execute(delete(GRANT).where(where))
        ledger.gone(_action(before.body, body), before)
    else:
        ledger.connection.execute(update(GRANT).where(where).values(row))
        ledger.changed(_action(before.body, body), _entry(row), before)


def _insert(connection: Connection, row: dict[str, Any]) -> bool:
    """Returns whether the pair had no grant, and has this one now."""
    with refusing():
        return connection.execute(NEW, row).first() is not None


def _entry(row: dict[str, Any]) -> Entry:
    return Entry(
        kind="grant",
        name=f"{row['securable']}/{row['principal']}",
        body=granted(row),
        position=row["position"],
        at=row["changed_at"],
        by=row["changed_by"],
    )


def _action(before: Body, after: Body) -> str:
    """Returns what an auditor calls the difference: what is denied weighs most."""
    if set(after["deny"]) - set(before["deny"]):
        return "catalog.deny"
    if set(after["allow"]) - set(before["allow"]):
        return "catalog.grant"
    return "catalog.revoke"
