"""Versions of models, functions and prompts: numbered from 1, and final."""

from __future__ import annotations

from sqlalchemy import Connection, delete, insert
from sqlalchemy.dialects.postgresql import insert as upsert

from catalog.store import referrers
from catalog.store.described import refer, told
from catalog.store.entries import Entry, written_entry
from catalog.store.ledger import Ledger
from catalog.store.refusals import referred, refusing
from catalog.store.shapes import storable, target_of
from catalog.store.tables import NUMBERING, VERSION
from schemas.shapes import Spec


def add(ledger: Ledger, securable: Entry, spec: Spec, comment: str) -> int:
    """Adds a version to an object and returns its number, which no version before it had."""
    name = securable.name
    columns = {"spec": told(spec), "comment": comment}
    storable(columns, "the version")
    with refusing():
        number = _number(ledger.connection, name)
        row = {"securable": name, "number": number, "kind": securable.kind}
        ledger.connection.execute(insert(VERSION), row | columns | ledger.stamp)
        refer(ledger.connection, name, number, spec)
    entry = written_entry(ledger.connection, "version", f"{name}@{number}")
    ledger.changed("catalog.create", entry)
    return number


def _number(connection: Connection, name: str) -> int:
    first = upsert(NUMBERING).values(name=name, last=1)
    counted = first.on_conflict_do_update(
        index_elements=[NUMBERING.c.name], set_={"last": NUMBERING.c.last + 1}
    )
    number: int = connection.execute(counted.returning(NUMBERING.c.last)).scalar_one()
    return number


def remove(ledger: Ledger, entry: Entry) -> None:
    """Deletes a version that no alias and no entry names."""
    name, number, _ = target_of(entry.name)
    assert number is not None
    if needed := referrers.of_version(ledger.connection, name, number):
        raise referred(entry.name, needed, "change or delete those first")
    where = (VERSION.c.securable == name) & (VERSION.c.number == number)
    with refusing():
        ledger.connection.execute(delete(VERSION).where(where))
    ledger.gone("catalog.delete", entry)
