"""Functions in HTTP: one request (``template.py``) to the host of a connection, and nowhere else.

The secret of the connection goes as a bearer token. Where the effect is not ``pure`` the id of the
call goes as ``Idempotency-Key``, the same however often it is delivered. No redirect is followed.

Covered: no argument changes the host, the scheme or the path above its own place; addresses are
judged as they are dialled; an answer that is too large, packed or without end is not read. Not
covered: what a service does with an argument that it was given.
"""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import httpx2

from infra.addresses import AddressForbidden, forbidden
from schemas.kinds import ConnectionSpec
from workers.guards.lines import Lines
from workers.tools import Call, Fault, Runner, ToolFailed
from workers.tools.calls import MOST_RESULT_BYTES, Office
from workers.tools.outside import (
    connection_of,
    out_of_time,
    seconds_left,
    secret_of,
    unanswered,
)
from workers.tools.template import Asked, asked

# Characters of an Idempotency-Key beside letters and digits.
PLAIN = "/:-._~@"
# What a gateway says in place of a service, of which it does not know what it has done.
GATEWAY = frozenset(
    {HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT}
)


async def open_http(office: Office) -> Runner:
    """Returns what runs functions in HTTP."""
    return HttpRunner(office)


class HttpRunner:
    """Runs functions in HTTP; keeps connections for a while."""

    def __init__(self, office: Office) -> None:
        self._office = office
        self._lines = Lines()

    async def run(self, call: Call) -> dict[str, Any]:
        """Returns ``status``, and ``body``: what its JSON says, else its text."""
        connection = connection_of(call, self._office.view, "http")
        wanted = asked(call)
        headers = _headers(call, wanted, await secret_of(call, connection, self._office))
        under_way = _UnderWay()
        try:
            async with asyncio.timeout(seconds_left(call)):
                return await self._answer(call, connection, wanted, headers, under_way)
        except TimeoutError:
            failure = out_of_time(call)
        except (AddressForbidden, httpx2.HTTPError, httpx2.InvalidURL, ValueError) as problem:
            failure = _failure(problem)
        raise unanswered(call, failure) if under_way.sent else failure

    async def close(self) -> None:
        """Closes the connections."""
        await self._lines.close()

    async def _answer(
        self,
        call: Call,
        connection: ConnectionSpec,
        wanted: Asked,
        headers: dict[str, str],
        under_way: _UnderWay,
    ) -> dict[str, Any]:
        with self._lines.lent(str(call.spec.connection), connection) as client:
            async with client.stream(
                wanted.method,
                _below(client.base_url, wanted.target),
                content=wanted.body,
                headers=headers,
                extensions={"trace": under_way.hear},
            ) as answer:
                _require_success(call, answer)
                return {"status": answer.status_code, "body": await _body(answer)}


class _UnderWay:
    """How far a request has come.

    Attributes:
        sent: Whether anything of it was sent: before that it had no effect.
    """

    def __init__(self) -> None:
        self.sent = False

    async def hear(self, event: str, _: object) -> None:
        """Takes what the client tells of its steps."""
        self.sent = self.sent or ".send_request" in event


def _headers(call: Call, wanted: Asked, secret: str | None) -> dict[str, str]:
    headers = {"Accept": "application/json, text/*;q=0.9, */*;q=0.1"}
    if wanted.body is not None:
        headers["Content-Type"] = "application/json"
    if call.spec.effect != "pure":
        headers["Idempotency-Key"] = quote(call.call_id, safe=PLAIN)
    if secret is None:
        return headers
    if not secret.isascii() or not secret.isprintable():
        raise ToolFailed(
            Fault.SOURCE, "the secret of its connection has characters that no header carries"
        )
    return {**headers, "Authorization": f"Bearer {secret}"}


def _below(base: httpx2.URL, target: str) -> httpx2.URL:
    """Returns the address of a target: whatever it says, on this host and below this path."""
    path = base.raw_path.partition(b"?")[0].rstrip(b"/")
    return base.copy_with(raw_path=path + target.encode())


def _require_success(call: Call, answer: httpx2.Response) -> None:
    status = answer.status_code
    if status >= HTTPStatus.BAD_REQUEST:
        failure = ToolFailed(Fault.RAISED, f"its service answers with status {status}")
        raise unanswered(call, failure) if status in GATEWAY else failure
    if status >= HTTPStatus.MULTIPLE_CHOICES:
        raise ToolFailed(
            Fault.RAISED, f"its service answers with status {status}: no redirect is followed"
        )


async def _body(answer: httpx2.Response) -> Any:
    if answer.headers.get("content-encoding", "identity").lower() != "identity":
        raise ToolFailed(Fault.RAISED, "its service packs its answer though it was told not to")
    content = bytearray()
    async for piece in answer.aiter_raw():
        content += piece
        if len(content) > MOST_RESULT_BYTES:
            raise ToolFailed(
                Fault.LIMIT, f"its service answers with more than {MOST_RESULT_BYTES} bytes"
            )
    text = content.decode(errors="replace")
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    return _json(text) if kind.endswith(("/json", "+json")) else text


def _json(text: str) -> Any:
    """Returns what JSON says; the text itself where it is none."""
    try:
        found = json.loads(text)
        json.dumps(found, ensure_ascii=False, allow_nan=False).encode()
    except (RecursionError, ValueError):
        return text
    return found


def _failure(problem: Exception) -> ToolFailed:
    if forbidden(problem):
        return ToolFailed(
            Fault.FORBIDDEN, "its connection leads to an address that may not be called"
        )
    if isinstance(problem, httpx2.HTTPError):
        return ToolFailed(Fault.UNREACHABLE, "its service does not answer, or not to the end")
    return ToolFailed(Fault.SOURCE, "the address of its connection is none, or shows its secret")
