"""Runs of agents: which there were, what one did, what it tells now, and an end to it.

    tessera runs list --since 1h --state running
    tessera runs list --agent main.demo.support --json
    tessera runs show ID                 what it asked, what that came to, took and cost, as a tree
    tessera runs follow ID --after 7     what it tells from there on; also when it is over
    tessera runs replay ID               made of its journal once more: is it the same to the byte?
    tessera runs cancel ID

List, show and replay read the journals of runs, which are kept for 30 days, and say of all tenants
what lies there. A replay asks nobody: what models and tools answered is in the journal. Of an older
run, show says what the inference table has. Costs are those of that table: a moment late. Follow is
for what your own tenant's runs tell, which is kept for a day; a run that was asked without parts
tells its answer alone. Ctrl-C leaves the run alone. Exit codes of follow are those of: tessera
agent run --help; replay ends with 1 where something is not the same.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from rich.console import Console

from infra.audit import instant
from infra.lake import QueryInvalid
from infra.registry import Reader, Registry, SchemaMissing
from infra.settings import KafkaSettings, LakeSettings, RegistrySettings
from infra.tail import BEGINNING
from infra.telemetry import now
from schemas.codec import Codec, Unreadable
from schemas.topics import BEHIND
from streams.agent_command import ANSWERED, UNANSWERED, client_of, outcome, show
from streams.agents.folding import JournalUnsound
from streams.ask import identity
from streams.client import Client, RunUnknown
from streams.runs.journals import Journals, begun_since, of_request
from streams.runs.node import Node
from streams.runs.recorded import priced, rebuilt, rows
from streams.runs.replaying import replayed
from streams.runs.screen import table, tree
from streams.runs.unfolding import unfolded

HOUR = timedelta(hours=1)
# How far a run is; one whose calls wait for people is running.
STATES = ("cancelled", "completed", "failed", "running")
PIPED_WIDTH = 200


def main(words: Sequence[str]) -> int:
    """Does what the command line says; returns the exit code."""
    arguments = _arguments(words)
    try:
        return outcome("runs", COMMANDS[arguments.command](arguments), left="left; a run goes on")
    except QueryInvalid as problem:
        print(f"runs: {problem}", file=sys.stderr)
        return UNANSWERED


async def _list(arguments: argparse.Namespace) -> int:
    reader = await _reader()
    journals = await begun_since(KafkaSettings(), reader, arguments.since or now() - HOUR)
    found = await newest(journals, reader, arguments.agent, arguments.state, arguments.limit)
    if arguments.json:
        for node in found:
            print(json.dumps({**node.to_json(), "below": []}, ensure_ascii=False))
    elif found:
        _console().print(table(found, now()))
    else:
        print("no such run; look further back: tessera runs list --since 7d", file=sys.stderr)
    return ANSWERED


async def newest(
    journals: Journals, reader: Reader, agent: str | None, state: str | None, limit: int
) -> list[Node]:
    """Returns runs that callers began, the newest first.

    Args:
        journals: What is known of them.
        reader: Reads what came for them.
        agent: Only those of this agent.
        state: Only those that are so far.
        limit: How many at most.
    """
    began = sorted(journals, key=lambda run: journals[run][0].at, reverse=True)
    found: list[Node] = []
    for run in began:
        first = journals[run][0]
        # Others were begun by runs, and stand below them.
        if run.count(BEHIND) > 1 or agent not in (None, first.agent):
            continue
        node = await unfolded(run, journals, reader)
        if state in (None, node.state) and len(found) < limit:
            node.add_up()
            found.append(node)
    return found


async def _show(arguments: argparse.Namespace) -> int:
    node = await seen(arguments.run)
    if arguments.json:
        print(json.dumps(node.to_json(), ensure_ascii=False))
    else:
        _console().print(tree(node, now()))
    return ANSWERED


async def seen(request_id: str) -> Node:
    """Returns a run with all that it asked, as journals and the inference table have it.

    Raises:
        RunUnknown: Neither has anything of it.
        Exception: As ``of_request`` and ``rows`` do.
    """
    reader = await _reader()
    journals = await of_request(KafkaSettings(), reader, request_id, BEGINNING)
    recorded = await asyncio.to_thread(rows, LakeSettings().root, request_id)
    runs = [run for run in journals if _is_named(request_id, run)]
    if runs:
        node: Node | None = await unfolded(runs[0], journals, reader)
    else:
        node = rebuilt(request_id, recorded)
    if node is None:
        raise RunUnknown(request_id, "on the log or in the inference table")
    priced(node, recorded)
    node.add_up()
    return node


async def _replay(arguments: argparse.Namespace) -> int:
    reader = await _reader()
    journals = await of_request(KafkaSettings(), reader, arguments.run, BEGINNING)
    runs = begun_by(arguments.run, {*journals, *journals.broken})
    if not runs:
        raise RunUnknown(arguments.run, "on the log")
    same = [await _is_same(run, journals, reader, as_json=arguments.json) for run in runs]
    if journals.unreadable:
        count = journals.unreadable
        print(f"runs: {count} records that lie among the entries are none", file=sys.stderr)
    return ANSWERED if all(same) else UNANSWERED


def begun_by(name: str, runs: Iterable[str]) -> list[str]:
    """Returns a run, by its id or that of its request, and those that it began; itself first."""
    known = sorted(runs, key=len)
    named = [run for run in known if _is_named(name, run)]
    within = tuple(f"{run}{BEHIND}" for run in named)
    return [run for run in known if run in named or run.startswith(within)]


def _is_named(name: str, run: str) -> bool:
    """Returns whether a name is the id of a run, or of its request."""
    return name in (run, run.rpartition(BEHIND)[0])


async def _is_same(run: str, journals: Journals, reader: Reader, *, as_json: bool) -> bool:
    """Replays a run and says what came of it; returns whether it is the same, and whole."""
    entries = journals.get(run, [])
    if run in journals.broken:
        print(
            f"runs: {run}: the entry behind the first {len(entries)} is not on the log (any more)",
            file=sys.stderr,
        )
    if not entries:
        return False
    try:
        found = await replayed(entries, reader)
    except (JournalUnsound, SchemaMissing, Unreadable) as problem:
        print(f"runs: {run} cannot be replayed: {problem}", file=sys.stderr)
        return False
    print(json.dumps(found.to_json()) if as_json else found.to_words())
    return run not in journals.broken and not found.differing


async def _follow(arguments: argparse.Namespace) -> int:
    async with client_of(arguments) as client:
        return await show(client.follow(arguments.run, arguments.after), as_lines=arguments.json)


async def _cancel(arguments: argparse.Namespace) -> int:
    node = await seen(arguments.run)
    if node.ended_at is not None:
        print(f"{node.state} already at {node.ended_at:%Y-%m-%d %H:%M:%SZ}", file=sys.stderr)
        return UNANSWERED
    async with Client(tenant=node.tenant) as client:
        await client.cancel(node.request_id)
    print(f"it ends as soon as it hears of it; see: tessera runs show {node.request_id}")
    return ANSWERED


async def _reader() -> Reader:
    registry = Registry(RegistrySettings())
    return Reader(Codec(await asyncio.to_thread(registry.ids)), registry)


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=PIPED_WIDTH)


COMMANDS: Mapping[str, Callable[[argparse.Namespace], Coroutine[Any, Any, int]]] = {
    "cancel": _cancel,
    "follow": _follow,
    "list": _list,
    "replay": _replay,
    "show": _show,
}


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tessera runs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="which runs there were, the newest first")
    listing.add_argument("--agent", metavar="NAME", help="only those of this agent")
    listing.add_argument(
        "--since", type=instant, metavar="TIME", help="30m, 7d, 2026-11-25; 1h if left out"
    )
    listing.add_argument("--state", choices=STATES, help="only those so far")
    listing.add_argument("--limit", type=int, default=50, metavar="N", help="most runs (50)")
    for name, said in (
        ("show", "what a run asked, what that came to, took and cost"),
        ("follow", "what a run tells, from any point on"),
        ("replay", "whether a run's journal leads to what it put on the log"),
        ("cancel", "an end to a run, and to what it waits for"),
    ):
        one = commands.add_parser(name, help=said)
        one.add_argument("run", metavar="ID", help="of the request that began it")
        if name == "follow":
            one.add_argument(
                "--after", type=int, default=-1, metavar="SEQ", help="the last that you have heard"
            )
            identity(one)
    for each in ("list", "show", "follow", "replay"):
        commands.choices[each].add_argument(
            "--json", action="store_true", help="JSON, one object a line"
        )
    return parser.parse_args(words)
