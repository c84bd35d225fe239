"""Commands: who sent one, and whether it can be answered at all."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from infra.bus import Record
from infra.catalog import CatalogView
from infra.identity import Sender, quoted
from infra.signing import claimed
from schemas.events import CatalogWanted, Reason, Refusal
from schemas.topics import LONGEST_DEADLINE_MS


@dataclass(frozen=True, slots=True)
class Commanded:
    """A command, and what its record tells of who sent it."""

    wanted: CatalogWanted
    sender: Sender

    @classmethod
    def of(cls, wanted: CatalogWanted, record: Record) -> Commanded:
        """Returns the command in a record."""
        sender = Sender(
            tenant=wanted.tenant,
            principal=wanted.principal,
            deadline=wanted.deadline,
            topic=record.topic,
            signed=claimed(record.headers, record.value or b""),
        )
        return cls(wanted, sender)


def unanswerable(asked: Commanded, view: CatalogView, now: datetime) -> Refusal | None:
    """Returns why a proven command is not taken up: a foreign address, or a deadline too far."""
    wanted = asked.wanted
    allowed = view.tenants[wanted.tenant].reply_topics
    if wanted.reply_to not in allowed:
        return Refusal(
            reason=Reason.REPLY_ADDRESS_FORBIDDEN,
            message=f"{quoted(wanted.reply_to)} is no reply topic of {wanted.tenant}; "
            f"use {' or '.join(allowed)}",
            field="reply_to",
        )
    if wanted.deadline > now + timedelta(milliseconds=LONGEST_DEADLINE_MS):
        return Refusal(
            reason=Reason.REQUEST_INVALID,
            message=f"the deadline lies more than {LONGEST_DEADLINE_MS} ms ahead",
            field="deadline",
        )
    return None


def late(wanted: CatalogWanted, now: datetime) -> Refusal | None:
    """Returns the refusal of a command whose answer is of no use any more."""
    if wanted.deadline > now:
        return None
    return Refusal(
        reason=Reason.DEADLINE_EXPIRED,
        message="the deadline passed before the registrar saw the command; nothing was done",
        field="deadline",
    )
