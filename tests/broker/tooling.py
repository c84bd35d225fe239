"""What tests of tool calls share: their stack, functions, a pool of workers, and executors."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from infra.settings import PostgresSettings, ToolsSettings
from infra.stack.local import LocalStack
from infra.stack.service import LOOPBACK
from infra.telemetry import now
from schemas.agents import run_id
from schemas.events import (
    InferenceCompleted,
    InferenceRequested,
    InferenceRouted,
    RequestCancelled,
    Route,
    Sampling,
    Task,
)
from schemas.topics import INFERENCE_COMPLETED, INFERENCE_ROUTED, REQUEST_CANCELLED
from tests.broker.climbing import CLIMB
from tests.broker.pools import Follower, following
from tests.conftest import running as running_stack
from tests.harness import Bus, Process, eventually, running, unique
from tests.seed import Document, seed

PATIENCE_S = 240.0
# Long enough that a machine which others use, too, renews it in time.
LEASE_MS = 60_000
# Where whoever holds a call is lost, others wait for so long.
LOST_SOON = {"TOOLS_LEASE_MS": "8000"}
# And for so long where it first holds it for a while: in each third, the journal must answer once.
LOST_LATER = {"TOOLS_LEASE_MS": "18000"}
# So short that the queue gives a call out again while it runs.
VISIBILITY_MS = 2000
PARAMETERS = {
    "type": "object",
    "properties": {
        "notes": {"type": "string"},
        "until": {"type": "string"},
        "after": {"type": "string"},
    },
    "required": ["notes"],
    "additionalProperties": False,
}
# Of Redis's databases: each yard has a queue of its own.
_numbers = count(2)
EFFECTS = "tests.broker.effects:open_effects"
RUNNERS = json.dumps(dict.fromkeys(("http", "python", "sql"), EFFECTS))


KEY = "def key(idempotency_key): return idempotency_key"
SERVER = {"type": "mcp", "url": "stdio://server"}
ORDER: dict[str, object] = {
    "language": "mcp",
    "connection": "main.tools.server",
    "parameters": {"properties": {"id": {"type": "string"}}, "required": ["id"]},
}
NAP = """
import time

def nap():
    time.sleep(5000)
"""


def _function(name: str, effect: str, source: str = "none", **changes: object) -> Document:
    spec = {
        "language": "python",
        "source": source,
        "parameters": PARAMETERS,
        "effect": effect,
        "timeout": "20m",
        **changes,
    }
    return {"kind": "function", "name": f"main.tools.{name}", "versions": [{"spec": spec}]}


FUNCTIONS = (
    _function("pure", "pure"),
    _function("idempotent", "idempotent"),
    _function("hooked", "reconcile", "hook"),
    _function("hookless", "reconcile"),
    _function("other", "pure", language="sql"),
    # These run as they are, in the sandbox.
    _function("key", "pure", KEY, parameters={}),
    _function("nap", "pure", NAP, parameters={}),
    _function("climb", "idempotent", CLIMB, parameters={}, network=True),
    # And these by a server of MCP, which the executor runs.
    {"kind": "connection", "name": "main.tools.server", "spec": SERVER},
    *(
        _function(f"server_{effect}", effect, "order", **ORDER)
        for effect in ("idempotent", "reconcile")
    ),
)


class Yard:
    """A pool of workers that have tools called, and the executors that call them."""

    def __init__(
        self,
        bus: Bus,
        stack: LocalStack,
        folder: Path,
        completed: Follower[InferenceCompleted],
    ) -> None:
        self.bus = bus
        self.name = unique("tools")
        self.postgres = PostgresSettings(
            port=stack.settings.postgres_port,
            password=stack.environment()["POSTGRES_PASSWORD"],
        )
        self.settings = ToolsSettings(
            broker=f"redis://{LOOPBACK}:{stack.settings.redis_port}/{next(_numbers)}",
            database=self.name.replace("-", "_"),
            lease_ms=LEASE_MS,
            look_ms=300,
        )
        self._folder = folder
        self._completed = completed
        self._topic = replace(INFERENCE_ROUTED.member(self.name), partitions=3)
        bus.make(self._topic)

    @contextmanager
    def worker(self) -> Iterator[Process]:
        """Runs a worker of the pool for a block."""
        command = ["-m", "workers", "inference", "--provider", "tools", "--pool", self.name]
        environment = {**self._environment(), "INFERENCE_MAX_IN_FLIGHT": "1000"}
        with _running(self.bus, command, self._folder, environment) as process:
            yield process

    @contextmanager
    def executor(self, **extra: str) -> Iterator[Process]:
        """Runs an executor for a block."""
        environment = {"TOOLS_RUNNERS": RUNNERS, **self._environment(), **extra}
        with _running(self.bus, ["-m", "workers", "tools"], self._folder, environment) as process:
            yield process

    def notes(self) -> Path:
        """Returns a new file for lines."""
        path = self._folder / f"{uuid4().hex}.notes"
        path.touch()
        return path

    def call(self, function: str, deadline_s: float = 1200, **arguments: object) -> InferenceRouted:
        """Returns a call of version 1 of a function."""
        instant = now()
        request = InferenceRequested(
            request_id=uuid4().hex,
            tenant="acme",
            principal="ann",
            endpoint=f"main.tools.{function}",
            messages=(),
            sampling=Sampling(),
            reply_to="reply.v1.acme",
            requested_at=instant,
            deadline=instant + timedelta(seconds=deadline_s),
            task=Task.TOOL,
            inputs=(json.dumps({name: str(value) for name, value in arguments.items()}),),
        )
        name = f"main.tools.{function}"
        route = Route(name="tool", pool=self.name, model=name, entity=f"{name}@1")
        return InferenceRouted(request=request, route=route, routed_at=instant)

    def send(self, *calls: InferenceRouted) -> None:
        """Sends calls."""
        self.bus.send(self._topic, *calls)

    def cancel(self, call: InferenceRouted) -> None:
        """Says that nobody waits for a call any more."""
        request = call.request
        cancelled = RequestCancelled(
            request_id=request.request_id,
            tenant=request.tenant,
            cancelled_at=now(),
            deadline=request.deadline,
        )
        self.bus.send(REQUEST_CANCELLED, cancelled)

    def ends(self, call: InferenceRouted) -> list[InferenceCompleted]:
        """Returns what concluded a call so far."""
        request_id = call.request.request_id
        return [
            each for each in self._completed.seen() if each.routed.request.request_id == request_id
        ]

    def answers(self, call: InferenceRouted, times: int = 1) -> list[Any]:
        """Returns what a call came to, when it has so many times."""
        self.waits_for(lambda: len(self.ends(call)) >= times, "the end of a call")
        ends = self.ends(call)
        assert [each.refusal for each in ends] == [None] * times
        return [json.loads(each.completion.content) for each in ends if each.completion]

    def waits_for(self, condition: Any, what: str) -> None:
        """Returns when something holds."""
        eventually(condition, PATIENCE_S, what)

    def _environment(self) -> dict[str, str]:
        return {
            "TOOLS_BROKER": self.settings.broker,
            "TOOLS_DATABASE": self.settings.database,
            "TOOLS_LEASE_MS": str(self.settings.lease_ms),
            "TOOLS_LOOK_MS": str(self.settings.look_ms),
            "TOOLS_DRAIN_MS": "500",
            "TOOLS_VISIBILITY_MS": str(VISIBILITY_MS),
        }


def _running(
    bus: Bus, command: list[str], folder: Path, environment: dict[str, str]
) -> AbstractContextManager[Process]:
    return running(bus, command, folder, python=sys.executable, start_s=PATIENCE_S, **environment)


def id_of(call: InferenceRouted) -> str:
    """Returns a call's id, as functions know it."""
    return run_id(call.request.request_id, call.request.tenant)


def lines(notes: Path, call: InferenceRouted | None = None) -> list[str]:
    """Returns what happened, in its order; of one call, or of all."""
    told = [line.split() for line in notes.read_text().splitlines()]
    return [what for what, call_id, _ in told if call is None or call_id == id_of(call)]


# Of each module that imports them: none would end before the session, and all be kept until then.
@pytest.fixture(scope="module")
def tools_stack() -> Iterator[LocalStack]:
    """Kafka, PostgreSQL, Redis and the registry; whoever harms them must leave them ready."""
    with running_stack(["kafka", "postgres", "redis", "registry"]) as stack:
        yield stack


@pytest.fixture(scope="module")
def tools_bus(tools_stack: LocalStack) -> Bus:
    """The bus of these tests, provisioned, with functions in its catalog."""
    bus = Bus(tools_stack)
    seed(bus, FUNCTIONS)
    return bus


@pytest.fixture(scope="module")
def yard(tools_bus: Bus, tools_stack: LocalStack, folder: Path) -> Iterator[Yard]:
    """A yard without a process."""
    with following(tools_bus, INFERENCE_COMPLETED) as completed:
        yield Yard(tools_bus, tools_stack, folder, completed)
