"""One command carried out: proof, right, transaction, and what the caller and the auditor hear."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple
from uuid import NAMESPACE_URL, uuid5

import structlog

from catalog.registrar.actions import Action, read
from catalog.registrar.arguments import Arguments
from catalog.registrar.call import Call, Result
from catalog.registrar.commanded import Commanded, late, unanswerable
from catalog.store.ledger import SOURCE, Actor
from catalog.store.refusals import CatalogRefused
from catalog.store.store import Store
from infra.bus import Record
from infra.catalog import CatalogView
from infra.identity import identity, unproven
from infra.signing import claim
from infra.telemetry import trace_id
from schemas.events import (
    AuditOutcome,
    AuditRecorded,
    CatalogWanted,
    InferenceReplied,
    Reason,
    Refusal,
)
from schemas.topics import AUDIT_RECORDED, REPLY, Outgoing

log = structlog.get_logger()

# Refusals for who asks: an auditor hears of them.
DENIALS = frozenset(
    {
        Reason.KEY_EXPIRED,
        Reason.KEY_REVOKED,
        Reason.KEY_UNKNOWN,
        Reason.PRINCIPAL_FOREIGN,
        Reason.PRIVILEGE_MISSING,
        Reason.REPLY_ADDRESS_FORBIDDEN,
        Reason.SIGNATURE_INVALID,
        Reason.SIGNATURE_MISSING,
        Reason.TENANT_UNKNOWN,
    }
)
# Of what a command names, in an audit: as much as a topic's name may have.
MOST_NAME = 249
# Names come back in refusals, and documents may have much wrong with them.
MOST_MESSAGE = 20_000
# A request id stands in key and value of a reply, in its audit, and in a row of an index.
MOST_ID_BYTES = 256
# A reply must fit its topic, compressed or not.
MOST_REPLY_BYTES = 15 * 1024 * 1024


class Superseded(RuntimeError):
    """Somebody else has changed the catalog: what is known here is old, so the process must end."""


class Outcome(NamedTuple):
    """What a command came to: a result as JSON, or a refusal."""

    result: str | None = None
    refusal: Refusal | None = None

    def written(self) -> str:
        """Returns it as text that is kept."""
        refusal = self.refusal and self.refusal.to_avro()
        return json.dumps({"refusal": refusal, "result": self.result})

    @classmethod
    def read(cls, text: str) -> Outcome:
        """Returns what was kept."""
        kept = json.loads(text)
        refusal = kept["refusal"] and Refusal.from_avro(kept["refusal"])
        return cls(kept["result"], refusal)


class Commands:
    """Carries out commands, one after the other; every call blocks, and from one thread at a time.

    Args:
        store: The catalog.
        view: What it says; kept up to date here.
        position: Of the last change in the view.

    Attributes:
        view: What the catalog says after the last command.
    """

    def __init__(self, store: Store, view: CatalogView, position: int) -> None:
        self._store = store
        self.view = view
        self._position = position

    def answer(self, wanted: CatalogWanted, record: Record, now: datetime) -> list[Outgoing]:
        """Does what is wanted, if it may be done, and returns what is to be said of it.

        Raises:
            Superseded: Another process changes the catalog.
            OperationalError: The database does not answer; the command may be done or not.
        """
        asked = Commanded.of(wanted, record)
        if refusal := unproven(asked.sender, self.view, now):
            outcome, who = Outcome(refusal=refusal), wanted.principal
        else:
            outcome = self._outcome(asked, record, now)
            who = identity(asked.sender, self.view)
        replied = InferenceReplied(
            request_id=wanted.request_id,
            refusal=outcome.refusal,
            # Others of the tenant may send what is theirs under the same id.
            claim=claim(asked.sender.signed),
            result=outcome.result,
            replied_at=now,
        )
        return [
            *self._to_caller(wanted, replied),
            *_denial(asked, record, outcome, who, now),
        ]

    def failure(self, wanted: CatalogWanted, record: Record, now: datetime) -> list[Outgoing]:
        """Returns what the caller hears of a command that failed by surprise."""
        refusal = Refusal(
            reason=Reason.PROVIDER_FAILED,
            message="the registrar failed on this command and nothing of it was done; "
            "the operators find it among the dead letters",
        )
        replied = InferenceReplied(
            request_id=wanted.request_id,
            refusal=refusal,
            claim=claim(Commanded.of(wanted, record).sender.signed),
            replied_at=now,
        )
        return self._to_caller(wanted, replied)

    def _outcome(self, asked: Commanded, record: Record, now: datetime) -> Outcome:
        """Does what a proven command wants."""
        wanted = asked.wanted
        actor = Actor(
            principal=identity(asked.sender, self.view),
            tenant=wanted.tenant,
            key_id=asked.sender.signed.key_id if asked.sender.signed else None,
            request_id=wanted.request_id,
            trace_id=trace_id(record.headers),
            at=now,
        )
        if refusal := unanswerable(asked, self.view, now):
            outcome = Outcome(refusal=refusal)
            if asked.sender.signed is not None:
                self._remember(wanted, actor, outcome)
            return outcome
        try:
            action, arguments = read(wanted.action, wanted.body)
            if arguments.changes():
                return self._changed(wanted, actor, action, arguments)
            if refusal := late(wanted, now):
                return Outcome(refusal=refusal)
            call = Call(self.view, actor, self._store.engine)
            return Outcome(_json(action.run(call, arguments)))
        except CatalogRefused as refused:
            return Outcome(refusal=_refusal(refused))

    def _changed(
        self, wanted: CatalogWanted, actor: Actor, action: Action, arguments: Arguments
    ) -> Outcome:
        """Changes the catalog, unless that was done or refused before; then it is told again."""
        try:
            with self._store.change(actor) as change:
                if before := change.replied(wanted.request_id):
                    return Outcome.read(before)
                if refusal := late(wanted, actor.at):
                    return Outcome(refusal=refusal)
                call = Call(self.view, actor, self._store.engine, change)
                outcome = Outcome(_json(action.run(call, arguments)))
                if change.changes and change.changes[0].position != self._position + 1:
                    raise Superseded("another process has changed the catalog")
                change.reply(wanted.request_id, outcome.written())
                changes = [*change.changes]
        except CatalogRefused as refused:
            outcome = Outcome(refusal=_refusal(refused))
            self._remember(wanted, actor, outcome)
            return outcome
        for changed in changes:
            self.view.apply(changed)
            self._position = changed.position
        return outcome

    def _remember(self, wanted: CatalogWanted, actor: Actor, outcome: Outcome) -> None:
        """Keeps a refusal: a copy that comes later must not do what was refused at first."""
        with self._store.change(actor) as change:
            change.reply(wanted.request_id, outcome.written(), wanted.deadline)

    def _to_caller(self, wanted: CatalogWanted, replied: InferenceReplied) -> list[Outgoing]:
        """Returns the reply, to the tenant's own topic if the command names another's."""
        tenant = self.view.tenants.get(wanted.tenant)
        if tenant is None:
            return []
        own = wanted.reply_to in tenant.reply_topics
        address = wanted.reply_to if own else tenant.reply_topics[0]
        return [Outgoing(REPLY.at(address), replied)]


def _json(result: Result) -> str:
    text = json.dumps(result, ensure_ascii=False, separators=(",", ":"))
    if len(text.encode()) > MOST_REPLY_BYTES:
        raise CatalogRefused(
            Reason.REQUEST_TOO_LARGE,
            f"the answer is larger than {MOST_REPLY_BYTES} bytes; ask for less at once",
        )
    return text


def _refusal(refused: CatalogRefused) -> Refusal:
    message, field = refused.message, refused.field
    if len(message) > MOST_MESSAGE:
        message = f"{message[:MOST_MESSAGE]} ..."
    return Refusal(reason=refused.reason, message=message, field=field and field[:MOST_NAME])


def _denial(
    asked: Commanded, record: Record, outcome: Outcome, who: str, now: datetime
) -> Iterator[Outgoing]:
    """Yields the audit of a command that was refused for who asks."""
    refusal, wanted = outcome.refusal, asked.wanted
    if refusal is None or refusal.reason not in DENIALS:
        return
    kind, name = _named(wanted.body)
    place = f"{record.topic}/{record.partition}/{record.offset}"
    yield Outgoing(
        AUDIT_RECORDED,
        AuditRecorded(
            audit_id=str(uuid5(NAMESPACE_URL, place)),
            at=now,
            source=SOURCE,
            principal=who[:MOST_NAME],
            tenant=wanted.tenant[:MOST_NAME],
            key_id=asked.sender.signed.key_id if asked.sender.signed else None,
            action=f"{SOURCE}.{wanted.action[:MOST_NAME]}",
            kind=kind,
            name=name,
            outcome=AuditOutcome.DENIED,
            reason=f"{refusal.reason}: {refusal.message}",
            request_id=wanted.request_id,
            trace_id=trace_id(record.headers),
        ),
    )


def _named(body: str) -> tuple[str, str]:
    """Returns kind and name of what a command is about, as far as it says so."""
    try:
        said: Any = json.loads(body)
    except (RecursionError, ValueError):
        said = None
    if not isinstance(said, dict):
        return "", ""
    names = [said.get(each) for each in ("name", "securable", "principal", "key_id", "prefix")]
    name = next((each for each in names if isinstance(each, str)), "")
    kind = said.get("kind")
    return _sayable(kind if isinstance(kind, str) else ""), _sayable(name)


def _sayable(text: str) -> str:
    """Returns the beginning of a text; JSON can write half a character, an audit cannot."""
    return text[:MOST_NAME].encode("utf-8", "replace").decode()
