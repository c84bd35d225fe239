"""Serves a provider to a test process that lacks what it needs: JSON lines in, JSON lines out.

In:   {"op": "complete", "id": ..., "route": <Route>, "request": <InferenceRequested>}
      {"op": "cancel", "id": ...}
      {"op": "drain", "id": ...}      answered once the provider has nothing left to do
Out:  {"ready": <what there is to say>} first, then
      {"id": ..., "delta" | "completion" | "refusal": <record>},
      {"id": ..., "cancelled": true}, {"id": ..., "drained_s": <seconds>}
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TextIO

from schemas.events import Completion, InferenceRequested, Route
from workers.providers import Provider, ProviderRefused, SecretUsed

# Lines hold whole answers, and a vector takes 20 characters a number.
MOST_LINE = 2**26


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A provider to be driven.

    Attributes:
        provider: The provider.
        ready: What is said of it when it can be asked.
        drain: Returns once it has nothing left to do.
    """

    provider: Provider
    ready: str
    drain: Callable[[], Awaitable[object]]


class Driver:
    def __init__(self, opened: Opened, group: asyncio.TaskGroup, out: TextIO) -> None:
        self.opened = opened
        self.group = group
        self.out = out
        self.tasks: dict[str, asyncio.Task[None]] = {}

    def say(self, **line: object) -> None:
        print(json.dumps(line), file=self.out, flush=True)

    def obey(self, line: dict[str, Any]) -> None:
        key = line["id"]
        if line["op"] == "cancel":
            if key in self.tasks:
                self.tasks[key].cancel()
            return
        task = self.drain(key) if line["op"] == "drain" else self.complete(line)
        self.tasks[key] = self.group.create_task(task)

    async def complete(self, line: dict[str, Any]) -> None:
        key, record = line["id"], line["request"]
        for instant in ("requested_at", "deadline"):
            record[instant] = datetime.fromisoformat(record[instant])
        request = InferenceRequested.from_avro(record)
        route = Route.from_avro(line["route"])
        try:
            async for event in self.opened.provider.complete(request, route):
                assert not isinstance(event, SecretUsed), "what runs here needs no secret"
                kind = "completion" if isinstance(event, Completion) else "delta"
                self.say(id=key, **{kind: event.to_avro()})
        except ProviderRefused as refused:
            self.say(id=key, refusal=refused.refusal.to_avro())
        except asyncio.CancelledError:
            self.say(id=key, cancelled=True)
        finally:
            del self.tasks[key]

    async def drain(self, key: str) -> None:
        began = time.monotonic()
        await self.opened.drain()
        self.say(id=key, drained_s=time.monotonic() - began)
        del self.tasks[key]


async def drive(opening: Awaitable[Opened]) -> None:
    """Opens a provider and serves it until standard input ends."""
    # Standard output is the protocol's; whatever a library prints goes to standard error.
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    lines = asyncio.StreamReader(limit=MOST_LINE)
    protocol = asyncio.StreamReaderProtocol(lines)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    opened = await opening
    # A dead engine is no refusal: it leaves the group as an exception and ends the process.
    async with asyncio.TaskGroup() as group:
        driver = Driver(opened, group, out)
        driver.say(ready=opened.ready)
        async for line in lines:
            driver.obey(json.loads(line))
        for task in driver.tasks.values():
            task.cancel()
    await opened.provider.close()
