"""One transaction on the catalog: what may be done in it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TypeVar

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.postgresql import insert as upsert

from catalog.store import described, grants, keys, versions
from catalog.store.entries import Entry, find
from catalog.store.ledger import Actor, Ledger
from catalog.store.refusals import CatalogRefused, invalid, refusing
from catalog.store.shapes import Given, given, spec_of, text, version_spec_of
from catalog.store.tables import COMMAND
from schemas.events import CatalogChanged, Event, Reason
from schemas.kinds import ROOT, Key, Privilege
from schemas.topics import Topic

E = TypeVar("E", bound=Event)

# How long a command sent again is answered as it was the first time.
REMEMBERED = timedelta(days=7)

# A program's spec, as it comes from JSON.
Fields = Mapping[str, object]


class Change:
    """What one actor does to the catalog in one transaction; made by ``Store.change``.

    Every method may raise CatalogRefused; then the transaction cannot be committed any more, even
    if the refusal is caught inside its block. Others wait until the block has ended.

    Attributes:
        changes: What has been changed so far, in order.
    """

    def __init__(self, connection: Connection, actor: Actor) -> None:
        self._connection = connection
        self._actor = actor
        self._ledger = Ledger(connection, actor)
        self._broken = False

    @property
    def changes(self) -> list[CatalogChanged]:
        """What this transaction has changed so far, in order."""
        return self._ledger.changes

    def entry(self, kind: str, name: str) -> CatalogChanged | None:
        """Returns an entry as it stands in this transaction; None where there is none."""
        with self._whole():
            found = find(self._connection, kind, text(name, "name"))
        return None if found is None else found.changed()

    def create(
        self,
        kind: str,
        name: str,
        *,
        owner: str,
        comment: str = "",
        tags: Mapping[str, str] | None = None,
        properties: Mapping[str, str] | None = None,
        spec: Fields | None = None,
        aliases: Mapping[str, int] | None = None,
    ) -> None:
        """Makes a container, an object or a principal.

        Raises:
            CatalogRefused: REQUEST_INVALID, ALREADY_EXISTS, or NOT_FOUND where its parent, owner
                or something that its spec names does not exist.
        """
        with self._whole():
            attributes = given(
                owner=owner, comment=comment, tags=tags, properties=properties, aliases=aliases
            )
            shape = spec_of(kind, {} if spec is None else spec)
            described.create(self._ledger, kind, text(name, "name"), attributes, shape)

    def update(
        self,
        kind: str,
        name: str,
        *,
        etag: str | None = None,
        owner: str | None = None,
        comment: str | None = None,
        tags: Mapping[str, str] | None = None,
        properties: Mapping[str, str] | None = None,
        spec: Fields | None = None,
        aliases: Mapping[str, int] | None = None,
    ) -> None:
        """Replaces what is given and keeps what is not; where nothing differs, nothing changes.

        Without an etag the last writer wins.

        Raises:
            CatalogRefused: As in ``create``; NOT_FOUND, also of a version that an alias names;
                CONFLICT for an etag that is not the present one; REFERENCED where an alias would
                go by which somebody names a version.
        """
        with self._whole():
            before = self._present(kind, name, etag)
            if "owner" not in before.body:
                raise invalid(f"a {kind} is not updated", "kind")
            kept = {field: before.body[field] for field in Given.model_fields}
            wanted = {
                "owner": owner,
                "comment": comment,
                "tags": tags,
                "properties": properties,
                "aliases": aliases,
            }
            differing = {field: value for field, value in wanted.items() if value is not None}
            shape = None if spec is None else spec_of(kind, spec)
            attributes = given(**kept | differing)
            described.change(self._ledger, before, attributes, shape)

    def delete(self, kind: str, name: str, etag: str | None = None) -> None:
        """Deletes an entry; grants on it and versions of it go with it.

        Raises:
            CatalogRefused: NOT_FOUND, CONFLICT, or REFERENCED, which names who needs it.
        """
        removals = {"grant": self._revoke, "key": self._keep, "version": self._remove_version}
        with self._whole():
            entry = self._present(kind, name, etag)
            removals.get(kind, self._remove)(entry)

    def add_version(self, kind: str, name: str, spec: Fields, comment: str = "") -> int:
        """Adds a version that never changes and returns its number.

        Raises:
            CatalogRefused: REQUEST_INVALID, or NOT_FOUND, also of what the spec names.
        """
        with self._whole():
            shape = version_spec_of(kind, spec)
            entry = self._present(kind, name)
            told = text(comment, "comment")
            return versions.add(self._ledger, entry, shape, told)

    def grant(
        self,
        securable: str,
        principal: str,
        allow: Collection[Privilege],
        deny: Collection[Privilege] = (),
    ) -> None:
        """Replaces what a principal is allowed and denied on a securable, or on ROOT.

        Both empty takes the grant away. Where nothing differs, nothing changes.

        Raises:
            CatalogRefused: NOT_FOUND, of either end; REQUEST_INVALID.
        """
        with self._whole():
            grants.grant(self._ledger, securable, principal, allow, deny)

    def key(self, key_id: str, key: Key) -> None:
        """Adds a signing key of a user or service principal.

        Raises:
            CatalogRefused: ALREADY_EXISTS, NOT_FOUND, or REQUEST_INVALID where the id is not
                that of the public key.
        """
        with self._whole():
            keys.add(self._ledger, key_id, key)

    def revoke_key(self, key_id: str, at: datetime | None = None) -> None:
        """Revokes a key from now on, or from another instant; a revocation is never taken back.

        Raises:
            CatalogRefused: NOT_FOUND.
        """
        with self._whole():
            before = self._present(keys.KIND, key_id)
            keys.revoke(self._ledger, before, at or self._actor.at)

    def own_root(self, principal: str) -> None:
        """Makes a principal the owner of ROOT, who may do everything.

        Raises:
            CatalogRefused: NOT_FOUND.
        """
        if self.entry(described.ROOT_KIND, ROOT) is not None:
            self.update(described.ROOT_KIND, ROOT, owner=principal)
            return
        with self._whole():
            owner = given(owner=principal).owner
            described.own_root(self._ledger, owner)

    def tell(self, topic: Topic[E], event: E) -> None:
        """Publishes an event after the commit: an audit of a denial, an edge of lineage."""
        self._ledger.tell(topic, event)

    def replied(self, request_id: str) -> str | None:
        """Returns what this actor's command came to, if it was carried out before."""
        with self._whole(), refusing():
            query = select(COMMAND.c.reply).where(
                COMMAND.c.tenant == self._actor.tenant,
                COMMAND.c.principal == self._actor.principal,
                COMMAND.c.request_id == request_id,
            )
            return self._connection.execute(query).scalar_one_or_none()

    def reply(self, request_id: str, body: str, until: datetime | None = None) -> None:
        """Remembers what a command of this actor came to, for seven days from now.

        Args:
            request_id: Of the command.
            body: What it came to.
            until: When the command may still come, if that is later: seven days from there.
        """
        row = {
            "tenant": self._actor.tenant,
            "principal": self._actor.principal,
            "request_id": request_id,
            "reply": body,
            "at": max(self._actor.at, until or self._actor.at),
        }
        with self._whole(), refusing():
            oldest = self._actor.at - REMEMBERED
            self._connection.execute(delete(COMMAND).where(COMMAND.c.at < oldest))
            self._connection.execute(upsert(COMMAND).on_conflict_do_nothing(), row)

    def close(self) -> None:
        """Writes what is left; the transaction may be committed then.

        Raises:
            RuntimeError: Something was refused or failed, and the caller went on regardless.
        """
        if self._broken:
            raise RuntimeError("a change that was refused in part cannot be committed")
        self._ledger.close()

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Remembers that something in the block went wrong, perhaps half way."""
        before, self._broken = self._broken, True
        yield
        self._broken = before

    def _present(self, kind: str, name: str, etag: str | None = None) -> Entry:
        """Returns the entry, which has this etag if one is given."""
        found = find(self._connection, kind, text(name, "name"))
        if found is None:
            raise CatalogRefused(Reason.NOT_FOUND, f"there is no {kind} {name}", "name")
        present = found.body.get("etag", str(found.position))
        if etag is not None and etag != present:
            raise CatalogRefused(
                Reason.CONFLICT,
                f"{kind} {name} has etag {present}, not {etag}: somebody changed it since it was "
                "read; read it again",
                "etag",
            )
        return found

    def _revoke(self, entry: Entry) -> None:
        securable, _, principal = entry.name.partition("/")
        self.grant(securable, principal, (), ())

    def _keep(self, entry: Entry) -> None:
        raise invalid("a key is revoked and never deleted: it verifies what it signed", "kind")

    def _remove(self, entry: Entry) -> None:
        described.remove(self._ledger, entry)

    def _remove_version(self, entry: Entry) -> None:
        versions.remove(self._ledger, entry)
