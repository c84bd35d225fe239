"""People's approvals from the command line.

    tessera approvals list                         what waits, for whom, until when
    tessera approvals approve ID --reason "..."    let it go on
    tessera approvals deny ID --reason "..."       let it not

It takes MANAGE on the endpoint, or on the policy that asks. Who asked cannot decide.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from datetime import timedelta
from uuid import uuid4

from infra.asker import Asker, NoReply, RepliesLost, RequestRefused
from infra.bus import BusUnreachable, PublishFailed, Record
from infra.registry import Reader, Registry, RegistryUnreachable, SchemaMissing
from infra.secrets import SecretUnavailable, resolve
from infra.settings import ClientSettings, KafkaSettings, RegistrySettings, SettingInvalid
from infra.signing import KeyUnusable, Signer
from infra.tail import TailBroken, until_now
from infra.telemetry import now
from schemas.codec import Codec, Unreadable
from schemas.events import ApprovalDecided, ApprovalGiven, ApprovalWanted
from schemas.topics import APPROVAL_DECIDED, APPROVAL_GIVEN, APPROVAL_WANTED, REPLY
from streams.gateway.board import KNOWN, Board
from streams.lines import plain

TIMEOUT_S = 20.0
UNFIT = (KeyUnusable, SecretUnavailable, SettingInvalid)
LOST = (
    BusUnreachable,
    LookupError,
    NoReply,
    PublishFailed,
    RegistryUnreachable,
    RepliesLost,
    SchemaMissing,
    TailBroken,
)


class Unknown(Exception):
    """Nothing waits under a name; the message says so."""


def main(words: Sequence[str]) -> int:
    """Does what the command line says; returns the exit code."""
    arguments = _arguments(words)
    try:
        if arguments.command == "list":
            board = asyncio.run(read())
            print("\n".join(listed(board, show=arguments.show)) or "nothing waits")
            return 0
        granted = arguments.command == "approve"
        asyncio.run(decide(arguments.approval, arguments.reason, granted=granted))
    except RequestRefused as refused:
        print(f"refused: {refused}", file=sys.stderr)
        return 1
    except (Unknown, *UNFIT) as problem:
        print(f"approvals: {problem}", file=sys.stderr)
        return 1
    except LOST as problem:
        print(f"approvals: {problem}; is the stack up? try: tessera status", file=sys.stderr)
        return 1
    print("granted: it goes on" if granted else "denied: who asked is told")
    return 0


async def read() -> Board:
    """Returns what waits, and what was decided, as the log has it now.

    Raises:
        BusUnreachable: No broker answers.
        LookupError: Provisioning has not run.
        RegistryUnreachable: The registry does not answer.
        TailBroken: The log cannot be read.
    """
    registry = Registry(RegistrySettings())
    reader = Reader(Codec(await asyncio.to_thread(registry.ids)), registry)
    topics = [APPROVAL_WANTED.name, APPROVAL_DECIDED.name]
    lying = until_now(KafkaSettings(), topics, now() - KNOWN, f"approvals-{uuid4()}")
    board = Board()
    async with aclosing(lying) as records:
        async for record in records:
            await _take(board, reader, record)
    return board


async def _take(board: Board, reader: Reader, record: Record) -> None:
    try:
        if record.topic == APPROVAL_WANTED.name:
            board.want(await reader.read(record.value, ApprovalWanted))
        else:
            decided = await reader.read(record.value, ApprovalDecided)
            board.decide(decided, record.partition, record.offset)
    except Unreadable as problem:
        print(f"approvals: a record cannot be read: {problem}", file=sys.stderr)


def listed(board: Board, *, show: bool = False) -> Iterator[str]:
    """Yields what waits in words, the most urgent first.

    Args:
        board: What waits.
        show: Whether to tell the texts, too, masked as they are held.
    """
    instant = now()
    for wanted in sorted(board.wanted.values(), key=lambda each: each.until):
        left = max(0, int((wanted.until - instant).total_seconds()))
        yield f"{wanted.approval_id}  {wanted.question}"
        yield (
            f"    tenant {wanted.tenant}  request {wanted.request_id}  {wanted.stage}  "
            f"until {wanted.until:%Y-%m-%d %H:%M:%SZ} ({left} s)"
        )
        if show and wanted.held is not None:
            yield from (f"    | {plain(line)}" for line in _lines(wanted.held.texts))


def _lines(texts: Sequence[str]) -> Iterator[str]:
    for text in texts:
        yield from text.splitlines()


async def decide(approval_id: str, reason: str, *, granted: bool) -> None:
    """Decides about what waits, as whom the environment names.

    Raises:
        KeyUnusable: The key is none.
        NoReply: Nothing came in time; whether it is decided, the list tells.
        RequestRefused: The gateway said no.
        SecretUnavailable: The key is not where its reference points.
        Unknown: Nothing waits under this name.
        Exception: As ``read`` has it.
    """
    board = await read()
    wanted = board.wanted.get(_whole(approval_id, board))
    if wanted is None:
        raise Unknown(_why(approval_id, board))
    client = ClientSettings()
    signer = Signer(resolve(client.key)) if client.key else None
    registry, topic = Registry(RegistrySettings()), REPLY.member(client.tenant).name
    instant = now()
    given = ApprovalGiven(
        given_id=str(uuid4()),
        approval_id=wanted.approval_id,
        tenant=wanted.tenant,
        granted=granted,
        principal=client.principal,
        reason=reason,
        reply_to=topic,
        given_at=instant,
        deadline=instant + timedelta(seconds=TIMEOUT_S),
    )
    async with Asker(KafkaSettings(), registry, client.tenant, topic, signer) as asker:
        replies = asker.replies(APPROVAL_GIVEN, given, given.given_id, given.deadline)
        async with aclosing(replies):
            async for _ in replies:
                return


def _whole(begun: str, board: Board) -> str:
    """Returns the one name of something that waits which begins so, or what was given."""
    found = [name for name in board.wanted if name.startswith(begun)]
    return found[0] if len(found) == 1 else begun


def _why(approval_id: str, board: Board) -> str:
    decision = board.decided.get(approval_id)
    if decision is None:
        return f"nothing waits as {approval_id}; see: tessera approvals list"
    how = "granted" if decision.granted else "denied"
    by = f"by {decision.principal}" if decision.principal else "since nobody decided in time"
    return f"already {how} {by} at {decision.decided_at:%Y-%m-%d %H:%M:%SZ}; that stands"


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tessera approvals",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="what waits, for whom, until when")
    listing.add_argument("--show", action="store_true", help="the texts, too, as they are masked")
    for name, said in (("approve", "let it go on"), ("deny", "let it not")):
        deciding = commands.add_parser(name, help=said)
        deciding.add_argument("approval", metavar="ID", help="of the list; its beginning is enough")
        deciding.add_argument("--reason", default="", help="why, in words for who asked")
    return parser.parse_args(words)
