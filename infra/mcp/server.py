"""An MCP server behind a connection: what tools it has, and what a call of one comes to.

Over Streamable HTTP it is asked under the same rule of addresses as all that is outside
(``infra/dialling.py``), with the secret as a bearer token. ``stdio://NAME`` is a command of this
machine (``pipes.py``) that the settings know under this name; no connection names one itself.

Covered: nothing that a server says is larger than ``MOST_BYTES``, and no schema of its own is
checked by; nothing that comes packed is unpacked. Not covered: what a server says of its tools, and
does, is its own word; what a command may read (``pipes.py``).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Any

import httpx2
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp_types import (
    CONNECTION_CLOSED,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    REQUEST_TIMEOUT,
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    Implementation,
    PaginatedRequestParams,
    TextContent,
    TextResourceContents,
)
from pydantic import ValidationError

from infra.addresses import AddressForbidden, forbidden
from infra.dialling import BodyTooLarge, open_client
from infra.mcp.pipes import LineTooLong, piped
from schemas.kinds import ConnectionSpec

STDIO = "stdio://"
# Of one thing that a server says: its tools, or what a call came to.
MOST_BYTES = 4 * 1024 * 1024
MOST_PAGES = 100
MOST_WORDS = 500
# How long a server may take to hear that a session is over.
CLOSE_S = 1.0
# Codes that the SDK itself gives where no answer came, and where what came is none.
SILENT = frozenset({CONNECTION_CLOSED, REQUEST_TIMEOUT})
GARBLED = frozenset({INVALID_REQUEST, PARSE_ERROR})
OURS = Implementation(name="tessera", version="1")


class NotLetIn(Exception):
    """A server does not take the secret; the message is its status."""


class Packed(Exception):
    """A server packs what it says, which may be far more than what travels."""


# How the SDK says that something went wrong; out of its task groups all come in groups.
BROKEN = (
    AddressForbidden,
    BaseExceptionGroup,
    LineTooLong,
    MCPError,
    NotLetIn,
    OSError,
    Packed,
    ValidationError,
    httpx2.HTTPError,
    httpx2.StreamError,
)

# The SDK logs what servers say, which is nobody's to read.
for _name in ("client", "mcp"):
    logging.getLogger(_name).setLevel(logging.CRITICAL + 1)


class Lack(StrEnum):
    """Why a server was of no use."""

    ARGUMENTS = "arguments"  # it does not take these
    FAILED = "failed"  # the tool itself failed, as its server says
    FORBIDDEN = "forbidden"  # it may not be asked
    LARGE = "large"  # it says too much
    UNFIT = "unfit"  # it is no server, or has no such tool
    UNREACHABLE = "unreachable"  # it does not answer


class ServerFailed(Exception):
    """A server was of no use; the message says why, and never quotes the secret."""

    def __init__(self, lack: Lack, message: str) -> None:
        super().__init__(message)
        self.lack = lack


FORBIDDEN = "its connection leads to an address that may not be called"
GARBAGE = (Lack.UNFIT, "its server says what MCP does not have")
UNREACHABLE = (Lack.UNREACHABLE, "its server does not answer, or not to the end")
# By what went wrong, the first that fits.
FAILURES: tuple[tuple[tuple[type[Exception], ...], tuple[Lack, str]], ...] = (
    (
        (NotLetIn,),
        (
            Lack.UNREACHABLE,
            "its server lets nobody in with the secret of its connection (status {})",
        ),
    ),
    (
        (BodyTooLarge, LineTooLong),
        (Lack.LARGE, f"its server says more than {MOST_BYTES // 1024**2} MiB at once"),
    ),
    ((Packed,), (Lack.UNFIT, "its server packs what it says though it was told not to")),
    ((ValidationError,), GARBAGE),
    ((OSError, httpx2.HTTPError, httpx2.StreamError), UNREACHABLE),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A tool as its server tells of it.

    Attributes:
        name: As it is called by.
        description: What it is for, as a model reads it.
        parameters: JSON Schema of its arguments.
        reads: Whether the server says that it changes nothing.
        repeatable: Whether the server says that it may be called twice with the same arguments.
    """

    name: str
    description: str
    parameters: dict[str, Any]
    reads: bool
    repeatable: bool


class Server:
    """A server that is asked for a while.

    Args:
        connection: Where it is.
        secret: Of the connection.
        commands: What ``stdio://NAME`` may stand for, by name: a program and its arguments.

    Attributes:
        unheard: Whether a call was sent of which it is not known what came.
    """

    def __init__(
        self,
        connection: ConnectionSpec,
        secret: str | None,
        commands: Mapping[str, Sequence[str]],
    ) -> None:
        self._connection = connection
        self._secret = secret
        self._commands = commands
        self._client: Client | None = None
        self.unheard = False

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Opens a session for a block.

        Raises:
            ServerFailed: It cannot be opened, or broke in the block.
        """
        over = False
        try:
            async with Client(
                self._transport(), client_info=OURS, cache=None, input_required_max_rounds=0
            ) as self._client:
                yield
                over = True
        except BROKEN as problem:
            # What breaks when all is said takes nothing of it back.
            if not over:
                raise self._failure(_cause(problem)) from None

    async def tools(self) -> list[Tool]:
        """Returns its tools.

        Raises:
            ServerFailed: It does not say, or goes on without end.
        """
        assert self._client is not None
        found: list[Tool] = []
        page = None
        for _ in range(MOST_PAGES):
            said = await self._client.session.list_tools(params=page)
            found += [
                Tool(
                    name=each.name,
                    description=each.description or each.title or "",
                    parameters=each.input_schema,
                    reads=bool(each.annotations and each.annotations.read_only_hint),
                    repeatable=bool(each.annotations and each.annotations.idempotent_hint),
                )
                for each in said.tools
            ]
            if said.next_cursor is None:
                return found
            page = PaginatedRequestParams(cursor=said.next_cursor)
        raise ServerFailed(Lack.LARGE, f"its server has more than {MOST_PAGES} pages of tools")

    async def call(self, tool: str, arguments: Mapping[str, Any], meta: Mapping[str, str]) -> Any:
        """Returns what a tool returns: its structured content, else its text.

        Args:
            tool: Its name.
            arguments: By parameter.
            meta: What goes beside them, as ``_meta``.

        Raises:
            ServerFailed: It comes to no result.
        """
        assert self._client is not None
        params = {"name": tool, "arguments": dict(arguments), "_meta": dict(meta)}
        request = CallToolRequest(params=CallToolRequestParams.model_validate(params))
        self.unheard = True
        # Not the SDK's `call_tool`: it checks by the server's schema, in whatever time that takes.
        said = await self._client.session.send_request(request, CallToolResult)
        self.unheard = False
        if said.is_error:
            words = _text(said.content)
            raise ServerFailed(Lack.FAILED, f"its server says: {self._quoted(words)}")
        return _text(said.content) if said.structured_content is None else said.structured_content

    def _transport(self) -> AbstractAsyncContextManager[Any]:
        url = self._connection.url
        if not url.startswith(STDIO):
            return _posted(self._connection, self._secret)
        name = url.removeprefix(STDIO)
        command = self._commands.get(name)
        if not command:
            raise ServerFailed(
                Lack.FORBIDDEN,
                f"{url} is no command that may be run here: TOOLS_MCP_COMMANDS has no {name}",
            )
        return piped(command, self._secret, MOST_BYTES)

    def _failure(self, problem: BaseException) -> BaseException:
        """Returns what is told of a problem; one that is none of a server's is told as it is."""
        if isinstance(problem, MCPError):
            return self._refused(problem)
        if isinstance(problem, NotLetIn):
            self.unheard = False
        if forbidden(problem):
            return ServerFailed(Lack.FORBIDDEN, FORBIDDEN)
        for kinds, (lack, words) in FAILURES:
            if isinstance(problem, kinds):
                return ServerFailed(lack, words.format(problem))
        return problem

    def _refused(self, problem: MCPError) -> ServerFailed:
        if problem.code in SILENT:
            return ServerFailed(*UNREACHABLE)
        if problem.code in GARBLED:
            return ServerFailed(*GARBAGE)
        # The SDK gives it also where a gateway answered instead, which knows nothing of the call.
        if problem.code != INTERNAL_ERROR:
            self.unheard = False
        said = self._quoted(problem.message)
        lacks = {INVALID_PARAMS: Lack.ARGUMENTS, METHOD_NOT_FOUND: Lack.UNFIT}
        lack = lacks.get(problem.code, Lack.FAILED)
        return ServerFailed(lack, f"its server refuses ({problem.code}): {said}")

    def _quoted(self, words: str) -> str:
        """Returns so much of a server's own words, without the secret."""
        kept = words.replace(self._secret, "...") if self._secret else words
        return kept[:MOST_WORDS]


@asynccontextmanager
async def _posted(connection: ConnectionSpec, secret: str | None) -> AsyncIterator[Any]:
    """Gives the streams of a server that is asked over HTTP."""
    try:
        client = open_client(connection, most_bytes=MOST_BYTES)
    except ValueError as problem:
        raise ServerFailed(Lack.UNFIT, f"its connection's {problem}") from None
    if secret is not None:
        if not secret.isascii() or not secret.isprintable():
            raise ServerFailed(
                Lack.UNFIT, "the secret of its connection has characters that no header carries"
            )
        client.headers["Authorization"] = f"Bearer {secret}"
    client.event_hooks = {"request": [_hurry], "response": [_require_let_in, _require_plain]}
    async with (
        client,
        streamable_http_client(
            connection.url, http_client=client, max_sse_event_size=MOST_BYTES
        ) as streams,
    ):
        yield streams


async def _hurry(request: httpx2.Request) -> None:
    """Lets nobody wait long for a server that does not hear that a session is over."""
    if request.method == "DELETE":
        request.extensions["timeout"] = httpx2.Timeout(CLOSE_S).as_dict()


async def _require_let_in(answer: httpx2.Response) -> None:
    if answer.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise NotLetIn(answer.status_code)


async def _require_plain(answer: httpx2.Response) -> None:
    if answer.headers.get("content-encoding", "identity").lower() != "identity":
        raise Packed


def _cause(problem: BaseException) -> BaseException:
    """Returns the problem in a group: what the block raised before what broke beside it."""
    leaves = list(_leaves(problem))
    return next((each for each in leaves if not isinstance(each, BROKEN)), leaves[0])


def _leaves(problem: BaseException) -> Iterator[BaseException]:
    if isinstance(problem, BaseExceptionGroup):
        for each in problem.exceptions:
            yield from _leaves(each)
    else:
        yield problem


def _text(content: Sequence[ContentBlock]) -> str:
    return "\n".join(map(_words, content))


def _words(block: ContentBlock) -> str:
    """Returns the text of a part of an answer; of what is none, that it is left out."""
    if isinstance(block, TextContent):
        return block.text
    if isinstance(block, EmbeddedResource) and isinstance(block.resource, TextResourceContents):
        return block.resource.text
    return f"[{block.type}: left out, it is no text]"
