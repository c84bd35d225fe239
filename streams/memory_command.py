"""What agents remember: conversations that are kept, facts about who asks, and forgetting both.

    tessera memory conversations                        which are kept, and until when
    tessera memory conversations ID                     what was said in one
    tessera memory facts --principal alice              what agents wrote down about her
    tessera memory forget --principal alice             deletes that, and her conversations

Conversations lie in PostgreSQL, facts in the indexes that agents name as their memory: those are
searched and written to as CLIENT_PRINCIPAL, which takes QUERY and MODIFY on them. Of a run that is
under way when somebody is forgotten no conversation is kept; a fact that it writes down after that
stays. Where forgetting is interrupted, nobody reads the conversations any more, and agents delete
them; facts stay until it is run again. What the log and the inference table have of runs goes when
their retention is over.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Sequence
from contextlib import aclosing, closing
from dataclasses import asdict
from uuid import uuid4

from infra.catalog import CatalogView, Limits
from infra.follow import CatalogLost, look
from infra.registry import Reader, Registry
from infra.secrets import SecretUnavailable
from infra.settings import (
    ClientSettings,
    GatewaySettings,
    KafkaSettings,
    PostgresSettings,
    RegistrySettings,
    SettingInvalid,
)
from infra.signing import KeyUnusable
from infra.sql import DatabaseUnreachable
from schemas.agents import run_id
from schemas.codec import Codec
from schemas.events import Message
from schemas.search import MOST_ROWS, Hit
from streams.agents.conversation import Conversation
from streams.agents.conversations import Conversations, Kept
from streams.ask import LOST
from streams.client import Client, RequestRefused
from streams.lines import aligned, plain

HEADINGS = ("request", "agent", "tenant", "principal", "turns", "ended", "kept until")
MOST = 100


class Unknown(Exception):
    """Nothing is kept under a name; the message says so."""


def main(words: Sequence[str]) -> int:
    """Does what the command line says; returns the exit code."""
    arguments = _arguments(words)
    try:
        asyncio.run(COMMANDS[arguments.command](arguments))
    except (
        DatabaseUnreachable,
        KeyUnusable,
        RequestRefused,
        SecretUnavailable,
        SettingInvalid,
        Unknown,
    ) as problem:
        print(f"memory: {problem}", file=sys.stderr)
        return 1
    except (CatalogLost, *LOST) as problem:
        print(f"memory: {problem}; is the stack up? try: tessera status", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nleft; what had begun may be done", file=sys.stderr)
        return 130
    return 0


async def conversations(arguments: argparse.Namespace) -> None:
    """Shows a conversation, or which are kept, the latest first.

    Raises:
        DatabaseUnreachable: PostgreSQL does not answer.
        Unknown: None is kept under this id.
    """
    if arguments.request is not None:
        await show(arguments)
        return
    with closing(Conversations(PostgresSettings())) as kept:
        found = await kept.list(
            arguments.tenant, arguments.principal, arguments.agent, arguments.most
        )
    if arguments.json:
        for each in found:
            print(json.dumps({**asdict(each), "request_id": _request(each)}, default=str))
    elif found:
        print(aligned([HEADINGS, *map(_row, found)]))
    else:
        print("no conversation is kept; agents keep theirs that have a memory")


async def show(arguments: argparse.Namespace) -> None:
    """Shows what was said in a conversation."""
    tenant = arguments.tenant or ClientSettings().tenant
    with closing(Conversations(PostgresSettings())) as kept:
        said = await kept.show(run_id(arguments.request, tenant))
    if said is None:
        raise Unknown(
            f"no conversation of {arguments.request} is kept for {tenant}; "
            "see: tessera memory conversations"
        )
    for message in Conversation.from_json(said).messages:
        if arguments.json:
            print(json.dumps(asdict(message), ensure_ascii=False))
        else:
            print("\n".join(_spoken(message)))


async def facts(arguments: argparse.Namespace) -> None:
    """Shows what agents wrote down about a principal."""
    none = True
    for index in await indexes(arguments.index):
        async with aclosing(written(index, arguments.principal, arguments.tenant)) as found:
            async for hit in found:
                none = False
                fact = {"index": index, **hit.key, "fact": hit.text, **hit.columns}
                print(json.dumps(fact) if arguments.json else f"{index}  {plain(hit.text)}")
    if none and not arguments.json:
        print(f"nothing is written down about {arguments.principal}")


async def forget(arguments: argparse.Namespace) -> None:
    """Deletes what agents remember of a principal."""
    principal, tenant = arguments.principal, arguments.tenant
    with closing(Conversations(PostgresSettings())) as kept:
        deleted = await kept.forget(principal, tenant)
    print(f"{deleted} conversations of {principal} deleted")
    for index in await indexes(arguments.index):
        print(f"{await forget_facts(index, principal, tenant)} facts deleted in {index}")


async def indexes(more: Sequence[str] = ()) -> list[str]:
    """Returns the indexes in which agents write facts down, by name.

    Args:
        more: Others.

    Raises:
        BusUnreachable: No broker answers.
        CatalogLost: The catalog cannot be read.
        RegistryUnreachable: The registry does not answer.
    """
    registry, gateway = Registry(RegistrySettings()), GatewaySettings()
    codec = Codec(await asyncio.to_thread(registry.ids))
    view = CatalogView(
        Limits(max_request_bytes=gateway.max_request_bytes, max_deadline_ms=gateway.max_deadline_ms)
    )
    await look(KafkaSettings(), Reader(codec, registry), view, f"memory-{uuid4()}")
    memories = (agent.memory for agent in view.agents.values())
    return sorted({*more, *(each.index for each in memories if each and each.index)})


async def written(index: str, principal: str, tenant: str | None) -> AsyncGenerator[Hit, None]:
    """Yields what is written down about a principal, for one tenant or for all.

    Raises:
        RequestRefused: Who asks may not search the index, or nobody can now.
    """
    owner = {"principal": principal, "tenant": tenant}
    filters = {column: value for column, value in owner.items() if value is not None}
    async with Client() as client, aclosing(client.scan(index, filters=filters)) as hits:
        async for hit in hits:
            yield hit


async def forget_facts(index: str, principal: str, tenant: str | None) -> int:
    """Deletes what is written down about a principal; returns how many facts.

    Raises:
        RequestRefused: Who asks may not write to the index, or nobody can now.
        Unknown: The index did not delete some.
    """
    async with aclosing(written(index, principal, tenant)) as found:
        keys = [hit.key async for hit in found]
    async with Client() as client:
        for start in range(0, len(keys), MOST_ROWS):
            deleted = await client.delete(index, keys[start : start + MOST_ROWS])
            if deleted.failed:
                raise Unknown(
                    f"{len(deleted.failed)} facts in {index} were not deleted: "
                    f"{deleted.failed[0].reason}; forget again"
                )
    return len(keys)


COMMANDS: dict[str, Callable[[argparse.Namespace], Coroutine[None, None, None]]] = {
    "conversations": conversations,
    "facts": facts,
    "forget": forget,
}


def _row(kept: Kept) -> tuple[str, ...]:
    return (
        plain(_request(kept)),
        kept.agent,
        kept.tenant,
        kept.principal,
        str(kept.turns),
        *(f"{each:%Y-%m-%d %H:%M:%SZ}" for each in (kept.ended_at, kept.until)),
    )


def _request(kept: Kept) -> str:
    """Returns the id of the request whose conversation it is."""
    return kept.run_id.removesuffix(run_id("", kept.tenant))


def _spoken(message: Message) -> Iterator[str]:
    """Yields a message in lines, whose first says who speaks."""
    said = message.content.splitlines()
    said += [f"calls {call.name} {call.arguments}" for call in message.tool_calls]
    for number, line in enumerate(said):
        yield f"{message.role.lower() if number == 0 else '':<10} {plain(line)}"


def _some(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tessera memory",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("conversations", help="which are kept, or what was said in one")
    listing.add_argument("request", nargs="?", metavar="ID", help="of the request; all if left out")
    listing.add_argument("--agent", help="three-level name; whichever if left out")
    listing.add_argument("--most", type=_some, default=MOST, help="so many, the latest")
    finding = commands.add_parser("facts", help="what agents wrote down about a principal")
    forgetting = commands.add_parser("forget", help="delete what is remembered of a principal")
    for command, required in ((listing, False), (finding, True), (forgetting, True)):
        command.add_argument("--principal", required=required, help="who asked")
        command.add_argument("--tenant", help="who paid; whoever it was if left out")
    for command in (finding, forgetting):
        command.add_argument(
            "--index",
            action="append",
            default=[],
            metavar="NAME",
            help="one that no agent names any more; may be repeated",
        )
    for command in (listing, finding):
        command.add_argument("--json", action="store_true", help="one JSON object a line")
    return parser.parse_args(words)
