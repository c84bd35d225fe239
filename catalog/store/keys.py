"""Signing keys: kept for ever, so that what they signed can be verified for ever."""

from __future__ import annotations

import binascii
from base64 import b64decode
from datetime import datetime, timedelta

from sqlalchemy import insert, update

from catalog.store.entries import Entry, instant, written_entry
from catalog.store.ledger import Ledger
from catalog.store.refusals import invalid, refusing
from catalog.store.shapes import storable
from catalog.store.tables import SIGNING_KEY
from schemas.kinds import Key

KIND = "key"


def add(ledger: Ledger, key_id: str, key: Key) -> None:
    """Adds a key; see ``Change.key``."""
    storable(key_id, "key_id")
    try:
        public_key = b64decode(key.public_key, validate=True)
    except (binascii.Error, ValueError):
        raise invalid("a public key is 32 bytes in base64", "public_key") from None
    row = {
        "key_id": key_id,
        "principal": key.principal,
        "public_key": public_key,
        **{
            field: at and zoned(at, field)
            for field in ("not_before", "expires_at", "revoked_at")
            for at in [getattr(key, field)]
        },
        **ledger.stamp,
    }
    with refusing():
        ledger.connection.execute(insert(SIGNING_KEY), row)
    ledger.changed("key.create", written_entry(ledger.connection, KIND, key_id))


def revoke(ledger: Ledger, before: Entry, at: datetime) -> None:
    """Revokes a key from an instant on, if it is not revoked by then; see ``Change.revoke_key``."""
    at = zoned(at, "at")
    revoked = before.body["revoked_at"]
    if revoked is not None and datetime.fromisoformat(revoked) <= at:
        return
    row = {"revoked_at": at, **ledger.stamp}
    with refusing():
        ledger.connection.execute(
            update(SIGNING_KEY).where(SIGNING_KEY.c.key_id == before.name).values(row)
        )
    ledger.changed("key.revoke", written_entry(ledger.connection, KIND, before.name), before)


def zoned(at: datetime, field: str) -> datetime:
    """Returns an instant that can be told in UTC.

    Raises:
        CatalogRefused: It has no time zone, or lies at the edges of the calendar.
    """
    try:
        instant(at + timedelta(days=1))
        instant(at)
    except OverflowError:
        raise invalid(f"{field} is beyond the calendar", field) from None
    if at.tzinfo is None:
        raise invalid(f"{field} needs a time zone", field)
    return at
