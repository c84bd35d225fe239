"""Serves functions, indexes and agents of the catalog to any client of MCP, on standard streams.

    tessera mcp main.demo.orders_of main.demo.support      a function and an agent
    tessera mcp "main.demo.*" main.demo.notes               all functions of a schema, an index

The client starts this command and speaks MCP with it; so it is configured there:

    {"mcpServers": {"tessera": {"command": "tessera", "args": ["mcp", "main.demo.*"]}}}

Each call is a request like any other, in the name of whoever this command asks as: what that one
may not use is refused, and said so to the model. What the catalog says of a tool is looked up each
time that the client asks for tools. A call that the client cancels is cancelled on the platform.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from uuid import uuid4

from pydantic import TypeAdapter, ValidationError

from infra.asker import ClientClosed, NoReply, RepliesLost
from infra.bus import PublishFailed
from infra.catalog import CatalogView
from infra.follow import CatalogLost, follow
from infra.mcp.serving import CallRefused, serve
from infra.registry import Reader, Registry, SchemaMissing
from infra.secrets import SecretUnavailable
from infra.settings import KafkaSettings, RegistrySettings, SettingInvalid
from infra.signing import KeyUnusable
from schemas.agents import Reachable
from schemas.codec import Codec
from schemas.kinds import AgentSpec
from schemas.shapes import Pattern
from streams.agent_command import seconds
from streams.agents.definition import Unfit, offered_by
from streams.ask import LOST, identity
from streams.client import CallFailed, Client, RequestRefused

# What would be asked for turns is outside.
OUTSIDE = "outside.of.it"
HITS = 10
INTERRUPTED = 130
UNFIT = (
    CatalogLost,
    KeyUnusable,
    SchemaMissing,
    SecretUnavailable,
    SettingInvalid,
    Unfit,
    ValueError,
)


class Offered:
    """What is offered, as the catalog has it now, and how each is asked.

    Args:
        names: Functions, maybe with their versions; schemas of functions; indexes; agents.
        view: The catalog.
        client: Asks.
        timeout: Seconds that a call may take.
        lose: Called when nothing can be asked any more.

    Raises:
        Unfit: A name leads nowhere.
        ValueError: Together they are too many.
    """

    def __init__(
        self,
        names: Sequence[str],
        view: CatalogView,
        client: Client,
        timeout: float,
        lose: Callable[[BaseException], None],
    ) -> None:
        self._names = names
        self._view = view
        self._client = client
        self._timeout = timeout
        self._lose = lose
        # As the client was told: a name is what it was then, whatever comes into the catalog.
        self._told = self._tools(names)

    def offers(self) -> list[Reachable]:
        """Returns what is offered now; what is gone from the catalog is left out."""
        try:
            self._told = self._tools([each for each in self._names if self._is_there(each)])
        except ValueError as problem:
            print(f"mcp: {problem}", file=sys.stderr)
        return [*self._told.values()]

    async def call(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Returns what a tool comes to, as a JSON value.

        Raises:
            CallRefused: It comes to nothing.
        """
        tool = self._told.get(name)
        if tool is None:
            raise CallRefused(f"there is no tool {name}")
        try:
            return await ASKS[tool.kind](self._client, tool, arguments, self._timeout)
        except RequestRefused as refused:
            reason = refused.refusal.reason
            raise CallRefused(f"refused ({reason}): {refused.refusal.message}") from None
        except RepliesLost as problem:
            self._lose(problem)
            raise CallRefused(str(problem)) from None
        # What is wrong with values is told of as such: a search out of its bounds, no JSON.
        except (CallFailed, ClientClosed, NoReply, PublishFailed, ValueError) as problem:
            raise CallRefused(str(problem)) from None

    def _tools(self, names: Sequence[str]) -> dict[str, Reachable]:
        view = self._view
        others = {*view.agents, *view.indexes}
        spec = AgentSpec(
            endpoint=OUTSIDE,
            tools=tuple(each for each in names if each not in others),
            indexes=tuple(each for each in names if each in view.indexes),
            agents=tuple(each for each in names if each in view.agents),
        )
        return offered_by(spec, view)

    def _is_there(self, name: str) -> bool:
        try:
            return bool(self._tools([name]))
        except Unfit as problem:
            print(f"mcp: {problem}", file=sys.stderr)
            return False


async def _ask_agent(
    client: Client, tool: Reachable, arguments: Mapping[str, Any], timeout: float
) -> str:
    reply = await client.run(tool.target, _text(arguments, "message"), timeout=timeout)
    return reply.content


async def _call_function(
    client: Client, tool: Reachable, arguments: Mapping[str, Any], timeout: float
) -> Any:
    return await client.call(tool.target, arguments, str(tool.version), timeout=timeout)


async def _search_index(
    client: Client, tool: Reachable, arguments: Mapping[str, Any], timeout: float
) -> Any:
    found = await client.search(
        tool.target,
        _text(arguments, "query"),
        k=arguments.get("k", HITS),
        filters=arguments.get("filters"),
        timeout=timeout,
    )
    return found.model_dump(mode="json", exclude_none=True)


Ask = Callable[[Client, Reachable, Mapping[str, Any], float], Awaitable[Any]]
ASKS: Mapping[str, Ask] = {
    "agent": _ask_agent,
    "function": _call_function,
    "index": _search_index,
}


def _text(arguments: Mapping[str, Any], name: str) -> str:
    text = arguments.get(name)
    if not isinstance(text, str):
        raise CallRefused(f"its arguments do not fit: {name} is a text that it needs")
    return text


def main(words: Sequence[str]) -> int:
    """Serves until the client is gone; returns the exit code."""
    arguments = _arguments(words)
    try:
        # Not ``asyncio.run``: it would wait for who reads standard input, which nothing ends but
        # the client.
        return asyncio.new_event_loop().run_until_complete(run(arguments))
    except UNFIT as problem:
        print(f"mcp: {problem}", file=sys.stderr)
    except (RepliesLost, *LOST) as problem:
        print(f"mcp: {problem}; is the stack up? try: tessera status", file=sys.stderr)
    return 1


async def run(arguments: argparse.Namespace) -> int:
    """Serves what the command line names; returns the exit code.

    Raises:
        CatalogLost: The catalog can be followed no more.
        RepliesLost: What comes back can be heard no more.
        Unfit: A name leads nowhere.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[int] = loop.create_future()

    def lose(problem: BaseException) -> None:
        if not ended.done():
            ended.set_exception(problem)

    def leave(code: int) -> None:
        if not ended.done():
            ended.set_result(code)

    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, leave, INTERRUPTED)
    registry = Registry(RegistrySettings())
    reader = Reader(Codec(await asyncio.to_thread(registry.ids)), registry)
    view = CatalogView()
    following = await follow(KafkaSettings(), reader, view, f"mcp-{uuid4()}", lose)
    who = {"tenant": arguments.tenant, "principal": arguments.principal, "key": arguments.key}
    try:
        async with Client(**who) as client:
            offered = Offered(arguments.names, view, client, arguments.timeout, lose)
            serving = asyncio.create_task(serve(offered.offers, offered.call))
            serving.add_done_callback(lambda _: leave(0))
            code = await ended
            if serving.done():
                serving.result()
            return code
    finally:
        await following.close()


def _name(text: str) -> str:
    try:
        return TypeAdapter(Pattern).validate_python(text)
    except ValidationError:
        raise argparse.ArgumentTypeError(
            f"{text} is no name: say main.demo.orders, main.demo.orders@2 or main.demo.*"
        ) from None


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tessera mcp",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "names",
        metavar="NAME",
        nargs="+",
        type=_name,
        help="a function, an index or an agent; all functions of a schema: main.demo.*",
    )
    parser.add_argument(
        "--timeout", type=seconds, default="10m", metavar="TIME", help="of a call (10m)"
    )
    identity(parser)
    return parser.parse_args(words)
