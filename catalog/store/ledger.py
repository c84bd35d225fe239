"""What one transaction has to tell: a position for each change, the change, and its audit."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Connection, select, update

from catalog.store import outbox
from catalog.store.entries import Entry
from catalog.store.refusals import CatalogRefused
from catalog.store.shapes import written
from catalog.store.tables import CLOCK
from schemas.events import AuditOutcome, AuditRecorded, CatalogChanged, Event, Reason
from schemas.topics import AUDIT_RECORDED, CATALOG_CHANGED, Topic

E = TypeVar("E", bound=Event)

SOURCE = "catalog"
ROWS_AT_ONCE = 1000

# Twice as much, as an audit's before and after, still fits into one record of the bus.
MOST_BODY = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who changes the catalog, by which request.

    Attributes:
        principal: Who.
        tenant: Who pays.
        key_id: The signing key that proved it; None where none did.
        request_id: The request.
        trace_id: Its W3C trace id.
        at: When, with a zone.
    """

    principal: str
    tenant: str
    key_id: str | None = None
    request_id: str | None = None
    trace_id: str | None = None
    at: datetime


class Ledger:
    """The log of one transaction; holds the lock on the clock, so that it is the only one.

    Attributes:
        connection: The transaction.
        actor: Who changes something.
        changes: What has been changed so far, in order.
    """

    def __init__(self, connection: Connection, actor: Actor) -> None:
        self.actor = actor
        self.changes: list[CatalogChanged] = []
        self.connection = connection
        self._rows: list[outbox.Row] = []
        # Whoever holds this row commits before the next one reads it: positions are in commit
        # order and, since it is written in the same transaction, without gaps.
        clock = select(CLOCK.c.position).with_for_update()
        self._start: int = connection.execute(clock).scalar_one()

    @property
    def next_position(self) -> int:
        """The position that the next change will have."""
        return self._start + len(self.changes) + 1

    @property
    def stamp(self) -> dict[str, Any]:
        """What the next change writes beside an entry."""
        return {
            "position": self.next_position,
            "changed_at": self.actor.at,
            "changed_by": self.actor.principal,
        }

    def changed(self, action: str, entry: Entry, before: Entry | None = None) -> None:
        """Notes that an entry is now so, in the next position.

        Raises:
            CatalogRefused: The entry is too large for the bus.
        """
        changed = entry.changed()
        if len(changed.body or "") > MOST_BODY:
            raise CatalogRefused(
                Reason.REQUEST_TOO_LARGE, f"an entry has {MOST_BODY} characters at most"
            )
        self._note(action, changed, before)

    def gone(self, action: str, entry: Entry) -> None:
        """Notes that an entry is gone, in the next position."""
        gone = CatalogChanged(
            position=self.next_position,
            kind=entry.kind,
            name=entry.name,
            changed_at=self.actor.at,
            changed_by=self.actor.principal,
        )
        self._note(action, gone, entry)

    def tell(self, topic: Topic[E], event: E) -> None:
        """Puts an event into the outbox: it is published after, and only after, the commit."""
        self._rows.append(outbox.row(topic, event))
        if len(self._rows) >= ROWS_AT_ONCE:
            self._write()

    def close(self) -> None:
        """Writes what is left; the transaction may be committed now."""
        self._write()
        if self.changes:
            clock = update(CLOCK).values(position=self._start + len(self.changes))
            self.connection.execute(clock)

    def _note(self, action: str, changed: CatalogChanged, before: Entry | None) -> None:
        assert changed.position == self.next_position, "an entry out of order"
        self.changes.append(changed)
        self.tell(CATALOG_CHANGED, changed)
        self.tell(AUDIT_RECORDED, self._audit(action, changed, before))

    def _audit(self, action: str, changed: CatalogChanged, before: Entry | None) -> AuditRecorded:
        actor = self.actor
        return AuditRecorded(
            audit_id=f"{SOURCE}-{changed.position}-{actor.request_id or ''}",
            at=actor.at,
            source=SOURCE,
            principal=actor.principal,
            tenant=actor.tenant,
            key_id=actor.key_id,
            action=action,
            kind=changed.kind,
            name=changed.name,
            outcome=AuditOutcome.DONE,
            before=None if before is None else written(before.body),
            after=changed.body,
            request_id=actor.request_id,
            trace_id=actor.trace_id,
        )

    def _write(self) -> None:
        if self._rows:
            outbox.put(self.connection, self._rows)
            self._rows = []
