"""Commands as callers sign them, and a catalog that carries them out without a bus between."""

from __future__ import annotations

import base64
import json
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import uuid4

from catalog.registrar.commands import Commands
from catalog.store.ledger import Actor
from catalog.store.store import Store
from infra.bus import Record
from infra.catalog import CatalogView, Limits
from infra.signing import Signer, generate
from infra.telemetry import now
from schemas.codec import Codec
from schemas.events import EVENTS, AuditRecorded, CatalogWanted, InferenceReplied, Reason, Refusal
from schemas.kinds import Key
from schemas.topics import CATALOG_WANTED, REPLY, Outgoing

CODEC = Codec({name: number for number, name in enumerate(EVENTS, 1)})
LIMITS = Limits(max_request_bytes=1, max_deadline_ms=1)


class Said(NamedTuple):
    """What came of a command."""

    reply: InferenceReplied
    audits: list[AuditRecorded]

    @property
    def result(self) -> dict[str, Any]:
        """The result; fails with the refusal if there is none."""
        assert self.reply.refusal is None, self.reply.refusal
        assert self.reply.result is not None
        found: dict[str, Any] = json.loads(self.reply.result)
        return found

    @property
    def refusal(self) -> Refusal:
        """The refusal."""
        assert self.reply.refusal is not None, self.reply.result
        return self.reply.refusal

    @property
    def reason(self) -> Reason:
        """Why it was refused."""
        return self.refusal.reason


def wanted(
    action: str, principal: str = "root", tenant: str = "demo", /, **body: Any
) -> CatalogWanted:
    """Returns a command; what is None in the body is left out."""
    instant = now()
    return CatalogWanted(
        request_id=str(uuid4()),
        tenant=tenant,
        principal=principal,
        action=action,
        body=json.dumps({name: value for name, value in body.items() if value is not None}),
        reply_to=REPLY.member(tenant).name,
        requested_at=instant,
        deadline=instant + timedelta(seconds=30),
    )


def record_of(command: CatalogWanted, signer: Signer | None, offset: int = 0) -> Record:
    """Returns the record in which a command comes."""
    value, key = CODEC.encode(command), CATALOG_WANTED.key(command).encode()
    name = CATALOG_WANTED.name
    headers = signer.headers(name, key, command.deadline, value) if signer else ()
    return Record(name, 0, offset, key, value, headers)


class Office:
    """A registrar without a bus: the tenant demo, its administrator root, and main.default."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.signers = {"root": Signer(generate())}
        at = now()
        actor = Actor(principal="root", tenant="demo", request_id="begin", at=at)
        with store.change(actor) as change:
            change.create("tenant", "demo", owner="demo")
            change.create("user", "root", owner="root", spec={"tenant": "demo"})
            change.own_root("root")
            change.create("catalog", "main", owner="root")
            change.create("schema", "main.default", owner="root")
            key = Key(principal="root", public_key=told(self.signers["root"]), not_before=at)
            change.key(self.signers["root"].key_id, key)
        self.restart()
        self._offset = 0

    def restart(self) -> None:
        """Begins anew from what is stored."""
        snapshot = self.store.snapshot()
        self.view = CatalogView(LIMITS)
        for changed in snapshot.entries:
            self.view.apply(changed)
        self.commands = Commands(self.store, self.view, snapshot.position)

    def send(
        self, command: CatalogWanted, signer: Signer | None, at: datetime | None = None
    ) -> Said:
        """Takes a record as it may come from anybody; returns what the caller hears."""
        said = self.carried_out(command, signer, at)
        [reply] = [each.event for each in said if isinstance(each.event, InferenceReplied)]
        return Said(reply, [each.event for each in said if isinstance(each.event, AuditRecorded)])

    def carried_out(
        self, command: CatalogWanted, signer: Signer | None, at: datetime | None = None
    ) -> list[Outgoing]:
        """Takes a record as it may come from anybody; returns all that is said of it."""
        self._offset += 1
        record = record_of(command, signer, self._offset)
        return self.commands.answer(command, record, at or now())

    def ask(self, action: str, who: str = "root", /, **body: Any) -> Said:
        """Commands as a principal whose key is known."""
        return self.send(wanted(action, who, **body), self.signers[who])

    def hire(self, name: str, tenant: str = "demo", kind: str = "user") -> None:
        """Makes a principal with a key."""
        self.ask("create", kind=kind, name=name, spec={"tenant": tenant}).result  # noqa: B018
        self.signers[name] = Signer(generate())
        public_key = told(self.signers[name])
        self.ask("key-create", principal=name, public_key=public_key).result  # noqa: B018


def told(signer: Signer) -> str:
    """Returns a public key as commands tell it."""
    return base64.b64encode(signer.public_key).decode()


def endpoint(**more: Any) -> dict[str, Any]:
    """Returns the spec of an endpoint with one route."""
    return {"routes": [{"name": "local", "pool": "echo", "model": "echo", **more}]}
