"""Kafka Connect's REST interface: what connectors there are, and how they stand.

Everybody on the machine may speak to it, so a connector is only ever taken for ours by its name and
what it remembers; a password is in none of its answers.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx2

from infra.connectors.source import MARK

TIMEOUT_S = 30.0
STOP_S = 30.0
POLL_S = 0.2
MISSING, REFUSED = 404, 400
GONE_IS_FINE = ("DELETE", "GET")
# The classes of exceptions in a trace; what stands behind the colon may quote a row.
THROWN = re.compile(r"(?:^|Caused by: )(?:[a-z0-9_]+\.)+([A-Z]\w+)", re.M)


class ConnectUnreachable(RuntimeError):
    """Kafka Connect does not answer, or is busy; what was asked can be asked again."""


class ConnectRefused(RuntimeError):
    """Kafka Connect takes a connector not; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Connector:
    """A connector as it stands.

    Attributes:
        told: What it is told, its password as a reference.
        state: RUNNING, PAUSED, STOPPED, UNASSIGNED, FAILED or RESTARTING.
        tasks: The same of its tasks.
        trace: How it, or its task, failed; Java's words, which may quote anything.
    """

    told: Mapping[str, str]
    state: str
    tasks: tuple[str, ...] = ()
    trace: str = field(default="", repr=False)

    @property
    def failed(self) -> bool:
        """Whether it, or its task, has given up."""
        return "FAILED" in (self.state, *self.tasks)

    @property
    def cause(self) -> str:
        """What failed, as the innermost exception is called; never its words."""
        thrown = THROWN.findall(self.trace)
        return thrown[-1] if thrown else "unknown"


class Connect:
    """Kafka Connect.

    Every call may raise ConnectUnreachable.

    Args:
        url: Where its REST interface is.
    """

    def __init__(self, url: str) -> None:
        self._client = httpx2.AsyncClient(base_url=url, timeout=TIMEOUT_S, trust_env=False)

    async def close(self) -> None:
        """Closes the connection."""
        await self._client.aclose()

    async def connectors(self) -> dict[str, Connector]:
        """Returns our connectors by name."""
        # Asked for both at once, it leaves out those that have no status yet.
        told = await self._ask("GET", "/connectors?expand=info")
        standing = await self._ask("GET", "/connectors?expand=status")
        return {
            name: _connector(info, standing.get(name, {}))
            for name, info in told.items()
            if name.startswith(MARK)
        }

    async def create(self, name: str, told: Mapping[str, str]) -> None:
        """Makes a connector, stopped.

        Raises:
            ConnectRefused: It cannot be as it is told.
            ConnectUnreachable: Also where there is one of this name.
        """
        body = {"name": name, "config": dict(told), "initial_state": "STOPPED"}
        await self._ask("POST", "/connectors", body)

    async def begin(self, name: str) -> None:
        """Lets a connector that is stopped begin anew, whatever one of its name has read."""
        await self._ask("DELETE", f"/connectors/{quote(name)}/offsets")
        await self.resume(name)

    async def resume(self, name: str) -> None:
        """Lets a connector that is stopped or paused go on."""
        await self._ask("PUT", f"/connectors/{quote(name)}/resume")

    async def put(self, name: str, told: Mapping[str, str]) -> None:
        """Tells a connector something else.

        Raises:
            ConnectRefused: It cannot be as it is told.
        """
        await self._ask("PUT", f"/connectors/{quote(name)}/config", dict(told))

    async def restart(self, name: str, *, only_failed: bool = True) -> None:
        """Starts a connector and its task again."""
        only = str(only_failed).lower()
        path = f"/connectors/{quote(name)}/restart?includeTasks=true&onlyFailed={only}"
        await self._ask("POST", path)

    async def stop(self, name: str) -> None:
        """Stops a connector until somebody resumes it; it stays known."""
        await self._ask("PUT", f"/connectors/{quote(name)}/stop")

    async def offset(self, name: str) -> dict[str, Any] | None:
        """Returns up to where a connector has read its database; None before the first word."""
        found = await self._ask("GET", f"/connectors/{quote(name)}/offsets")
        offsets = found.get("offsets") or [{}]
        offset: dict[str, Any] | None = offsets[0].get("offset")
        return offset

    async def note(self, name: str, prefix: str, offset: Mapping[str, Any]) -> None:
        """Lets a connector that is halted go on at another place.

        Args:
            name: Its name.
            prefix: What its topics begin with.
            offset: The place, as ``offset`` returns one.

        Raises:
            ConnectRefused: It is not halted.
        """
        places = [{"partition": {"server": prefix}, "offset": dict(offset)}]
        await self._ask("PATCH", f"/connectors/{quote(name)}/offsets", {"offsets": places})

    async def halt(self, name: str) -> None:
        """Stops a connector and returns when its task has ended; one that is gone has ended.

        Raises:
            ConnectUnreachable: Its task does not end.
        """
        await self._ask("PUT", f"/connectors/{quote(name)}/stop", gone=True)
        try:
            async with asyncio.timeout(STOP_S):
                while (await self._ask("GET", f"/connectors/{quote(name)}/status")).get("tasks"):
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise ConnectUnreachable(f"the task of {name} does not end") from None

    async def delete(self, name: str) -> None:
        """Deletes a connector that is halted, and what it has read."""
        await self._ask("DELETE", f"/connectors/{quote(name)}/offsets")
        await self._ask("DELETE", f"/connectors/{quote(name)}")

    async def _ask(
        self, method: str, path: str, body: object = None, *, gone: bool = False
    ) -> dict[str, Any]:
        try:
            reply = await self._client.request(method, path, json=body)
        except httpx2.HTTPError as problem:
            kind = type(problem).__name__
            raise ConnectUnreachable(f"Kafka Connect does not answer: {kind}") from None
        # While it starts, it says of everything that it is not there, but not in JSON.
        gone = gone or method in GONE_IS_FINE
        if reply.status_code == MISSING and gone and _is_json(reply):
            return {}
        if reply.status_code == REFUSED and body is not None:
            raise ConnectRefused(str(reply.json().get("message", "no reason given")))
        if reply.is_error:
            place = path.partition("?")[0]
            raise ConnectUnreachable(
                f"Kafka Connect answers {reply.status_code} to {method} {place}"
            )
        found: dict[str, Any] = reply.json() if reply.content else {}
        return found


def _is_json(reply: httpx2.Response) -> bool:
    return reply.headers.get("content-type", "").startswith("application/json")


def _connector(info: Mapping[str, Any], standing: Mapping[str, Any]) -> Connector:
    status = standing.get("status", {})
    states = [status.get("connector", {}), *status.get("tasks", ())]
    traces = [each["trace"] for each in states if each.get("trace")]
    return Connector(
        told=info.get("info", {}).get("config", {}),
        state=states[0].get("state", "UNASSIGNED"),
        tasks=tuple(each.get("state", "UNASSIGNED") for each in states[1:]),
        trace=traces[-1] if traces else "",
    )
