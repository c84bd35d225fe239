"""Calls of tools that a person must settle.

    tessera calls list                             what was called, for whom, since when
    tessera calls settle ID --result '{"id": 7}'   it had its effect, and came to this
    tessera calls settle ID --failed "no stock"    it came to nothing, for this reason
    tessera calls settle ID --again                it had no effect: let it be begun once more

Such a call was begun, cut off, and may have had its effect; nobody but a person can find out
whether. Whoever called was told so. What is settled here is what the same call comes to from now
on: with --again it is made when its caller sends it again, under the same id.

Who settled it is in the audit (tessera audit --what call.settled), as CLIENT_* names them: first
that they are about to, with the outcome UNKNOWN, and that it is DONE once the journal has it. What
is cut off in between may be settled or not; the list tells.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from uuid import uuid4

from infra.bus import BusUnreachable, Publisher, PublishFailed
from infra.catalog import CatalogView
from infra.follow import CatalogLost, look
from infra.registry import Reader, Registry, RegistryUnreachable
from infra.secrets import SecretUnavailable, resolve
from infra.settings import (
    ClientSettings,
    KafkaSettings,
    PostgresSettings,
    RegistrySettings,
    SettingInvalid,
    ToolsSettings,
)
from infra.signing import KeyUnusable, Signer
from infra.telemetry import now
from schemas.codec import Codec
from schemas.events import AuditOutcome, AuditRecorded
from schemas.topics import AUDIT_RECORDED, BEHIND, Outgoing
from workers.tools import Fault, ToolFailed
from workers.tools.calls import failed, returned
from workers.tools.journal import Journal, Unsettled, open_journal
from workers.tools.sessions import JournalUnreachable

SOURCE = "calls"
UNFIT = (KeyUnusable, SecretUnavailable, SettingInvalid)
LOST = (
    BusUnreachable,
    CatalogLost,
    JournalUnreachable,
    LookupError,
    PublishFailed,
    RegistryUnreachable,
)

Tell = Callable[[AuditRecorded], Awaitable[None]]


class Unclear(Exception):
    """What is asked cannot be; the message says why, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who settles, by their own word; ``key_id`` is of the key that they have, where they do."""

    principal: str
    tenant: str
    key_id: str | None


def main(words: Sequence[str]) -> int:
    """Does what the command line says; returns the exit code."""
    arguments = _arguments(words)
    try:
        print(asyncio.run(_answer(arguments)))
    except (Unclear, *UNFIT) as problem:
        print(f"calls: {problem}", file=sys.stderr)
        return 1
    except LOST as problem:
        print(f"calls: {problem}; is the stack up? try: tessera status", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nleft; what had begun may be done", file=sys.stderr)
        return 130
    return 0


async def _answer(arguments: argparse.Namespace) -> str:
    outcome = _outcome(arguments) if arguments.command == "settle" else None
    journal = await open_journal(PostgresSettings(), ToolsSettings().database)
    try:
        if arguments.command == "list":
            return _listed(await journal.unsettled(), as_json=arguments.as_json)
        async with _telling() as (person, tell):
            await settle(journal, arguments.call, outcome, person, tell)
        return _settled(arguments.call, outcome, as_json=arguments.as_json)
    finally:
        await journal.close()


@asynccontextmanager
async def _telling() -> AsyncIterator[tuple[Person, Tell]]:
    """Gives who settles, and what puts an event on the log and returns once it lies there."""
    kafka, client, registry = KafkaSettings(), ClientSettings(), Registry(RegistrySettings())
    signer = Signer(resolve(client.key)) if client.key else None
    codec = Codec(await asyncio.to_thread(registry.ids))
    person = Person(
        principal=client.principal or await _owner(signer, kafka, Reader(codec, registry)),
        tenant=client.tenant,
        key_id=signer.key_id if signer else None,
    )
    publisher = Publisher(kafka, codec, SOURCE)

    async def tell(recorded: AuditRecorded) -> None:
        await publisher.publish(publisher.encode([Outgoing(AUDIT_RECORDED, recorded)]))

    try:
        # A broker that is not there is told of sooner than an event that it does not take.
        await publisher.partitions(AUDIT_RECORDED.name)
        yield person, tell
    finally:
        await publisher.close()


async def _owner(signer: Signer | None, kafka: KafkaSettings, reader: Reader) -> str:
    """Returns whose key it is, as the catalog says; empty where it does not know, or is no key."""
    if signer is None:
        return ""
    view = CatalogView()
    await look(kafka, reader, view, SOURCE)
    key = view.keys.get(signer.key_id)
    return key.principal if key else ""


async def settle(
    journal: Journal, call_id: str, outcome: str | None, person: Person, tell: Tell
) -> None:
    """Settles a call, and has the audit say who did.

    Nothing is settled of which the audit does not say who was about to. That comes first, so it
    says UNKNOWN; DONE or FAILED comes behind, under the same id but for its last word. Where that
    is missing, the command or the journal was lost in between, and the journal alone knows.

    Args:
        journal: Where the call is.
        call_id: Which call.
        outcome: What it came to, as JSON; None to let it be begun once more.
        person: Who says so.
        tell: Puts an event on the log, and returns once it lies there.

    Raises:
        JournalUnreachable: Whether it is settled is not known.
        PublishFailed: The audit cannot be told of it; nothing is settled.
        Unclear: No such call waits for a person; or it is settled, and the audit not told so; or
            it was begun once more, and nobody knows who let it.
    """
    waiting = {each.call_id: each for each in await journal.unsettled()}
    if call_id not in waiting:
        raise Unclear(f"no call {call_id} waits for a person; see: tessera calls list")
    settling, how = uuid4(), _how(outcome)
    said = partial(_recorded, waiting[call_id], person, settling.hex)
    await tell(said(AuditOutcome.UNKNOWN, how))
    if not await journal.settle(call_id, outcome, settling):
        if outcome is None and await _begun_since(journal, waiting[call_id]):
            raise Unclear(f"call {call_id} was begun once more; whether by this is not known")
        await tell(said(AuditOutcome.FAILED, f"{how}: it waits for a person no more"))
        raise Unclear(f"call {call_id} waits for a person no more; see: tessera calls list")
    try:
        await tell(said(AuditOutcome.DONE, how))
    except PublishFailed as problem:
        raise Unclear(f"settled, but the audit says only that you would: {problem}") from None


async def _begun_since(journal: Journal, left: Unsettled) -> bool:
    """Returns whether a call was begun since it was left, or is not in the journal any more."""
    found = await journal.look([left.call_id])
    return left.call_id not in found or found[left.call_id].attempt != left.attempt


def _how(outcome: str | None) -> str:
    """Returns how a call is settled, in a word of the command line's."""
    if outcome is None:
        return "again"
    return "failed" if "error" in json.loads(outcome) else "result"


def _recorded(
    waiting: Unsettled, person: Person, settling: str, outcome: AuditOutcome, reason: str
) -> AuditRecorded:
    return AuditRecorded(
        audit_id=f"call.settled/{waiting.call_id}/{settling}/{outcome.lower()}",
        at=now(),
        source=SOURCE,
        principal=person.principal,
        tenant=person.tenant,
        key_id=person.key_id,
        action="call.settled",
        kind="function",
        name=waiting.function,
        outcome=outcome,
        reason=reason,
        request_id=waiting.call_id.rpartition(BEHIND)[0],
    )


def _listed(calls: Sequence[Unsettled], *, as_json: bool) -> str:
    if as_json:
        return json.dumps([asdict(each) for each in calls], default=str)
    return "\n".join(_lines(calls)) or "nothing waits for a person"


def _lines(calls: Sequence[Unsettled]) -> Iterator[str]:
    for each in calls:
        yield f"{each.call_id}  {each.function}"
        yield (
            f"    tenant {each.tenant}  principal {each.principal}  "
            f"begun {each.began_at:%Y-%m-%d %H:%M:%SZ}, {each.attempt} times in all"
        )


def _settled(call_id: str, outcome: str | None, *, as_json: bool) -> str:
    if as_json:
        return json.dumps({"call_id": call_id, "again": outcome is None})
    if outcome is None:
        return "settled: it is begun once more when its caller sends it again"
    return "settled: this is what it comes to from now on"


def _outcome(arguments: argparse.Namespace) -> str | None:
    """Returns what a call came to, as JSON; None where it is to be begun once more.

    Raises:
        Unclear: It is no JSON, or too much of it.
    """
    if arguments.again:
        return None
    if arguments.failed is not None:
        return failed(ToolFailed(Fault.RAISED, arguments.failed))
    try:
        return returned(json.loads(arguments.result))
    except (RecursionError, ValueError):
        raise Unclear("--result is no JSON; a text has quotes of its own: '\"sent\"'") from None
    except ToolFailed as problem:
        raise Unclear(f"--result: {problem.message}") from None


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tessera calls",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--json", dest="as_json", action="store_true", help="for programs")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", parents=[shared], help="what waits for a person, the oldest first")
    settling = commands.add_parser("settle", parents=[shared], help="say what a call came to")
    settling.add_argument("call", metavar="ID", help="of the list")
    how = settling.add_mutually_exclusive_group(required=True)
    how.add_argument("--result", metavar="JSON", help="it had its effect, and returned this")
    how.add_argument("--failed", metavar="REASON", help="it came to nothing, in words for a model")
    how.add_argument("--again", action="store_true", help="it had no effect: begin it once more")
    return parser.parse_args(words)
