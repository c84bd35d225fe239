"""Agents on the real bus: a gateway, the agents' processor, a model and tools that are played."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from infra.asker import Asker
from infra.registry import Registry
from infra.settings import KafkaSettings, RegistrySettings
from infra.signing import Signer, generate
from infra.stack.local import LocalStack
from infra.telemetry import now
from schemas.events import InferenceRequested, Message, Role, Sampling, Task
from schemas.kinds import Key
from schemas.topics import REPLY
from tests.agents.playing import gate
from tests.broker.approving import officers
from tests.broker.pools import PATIENCE_S
from tests.conftest import running as running_stack
from tests.harness import Bus, Process, running
from tests.seed import SEEDED, changed, changes, publish

TENANT, PLATFORM = "runs", "platform"
REPLIES = REPLY.member(TENANT)
CLERK, CAREFUL, LOST = "main.agents.clerk", "main.agents.careful", "main.agents.lost"
ADD, WIPE = "main.agents.add", "main.agents.wipe"
NUMBERS = {
    "type": "object",
    "properties": {name: {"type": "number"} for name in ("a", "b", "wait_s", "gate")},
    "required": ["a", "b"],
    "additionalProperties": False,
}
CODE = {"spec": {"language": "python", "source": "played", "parameters": NUMBERS}}
DOCUMENTS: list[dict[str, Any]] = [
    {"kind": "root", "name": "*", "grants": {"agents": ["MANAGE"]}},
    {"kind": "tenant", "name": TENANT, "spec": {"accept_unsigned": True}},
    {"kind": "tenant", "name": PLATFORM},
    {"kind": "service_principal", "name": "agents", "spec": {"tenant": PLATFORM}},
    {"kind": "schema", "name": "main.agents", "grants": {"everyone": ["USE", "QUERY"]}},
    {
        "kind": "endpoint",
        "name": "main.agents.model",
        "spec": {"routes": [{"name": "local", "pool": "played", "model": "played"}]},
    },
    {"kind": "function", "name": ADD, "versions": [CODE], "grants": {"everyone": ["EXECUTE"]}},
    # Nobody may, though the agent may reach it.
    {"kind": "function", "name": WIPE, "versions": [CODE]},
    {
        "kind": "agent",
        "name": CLERK,
        "spec": {"endpoint": "main.agents.model", "tools": [ADD, WIPE]},
        "grants": {"everyone": ["EXECUTE"]},
    },
    {
        "kind": "agent",
        "name": LOST,
        "spec": {"endpoint": "main.agents.gone"},
        "grants": {"everyone": ["EXECUTE"]},
    },
    {
        "kind": "agent",
        "name": CAREFUL,
        "spec": {"endpoint": "main.agents.model", "tools": [ADD], "approvals": [ADD]},
        "grants": {"everyone": ["EXECUTE"], "boss": ["MANAGE"]},
    },
]
AGENTS = ["-m", "streams", "agents"]
WORKERS = ["-m", "workers", "inference", "--provider"]


# A call that ends only with its run.
ENDLESS = ["add", {"a": 1, "b": 2, "gate": 1}]
_gates = count(2)


@dataclass(frozen=True, slots=True)
class Gate:
    """What a call of a tool waits at, or the model.

    Attributes:
        call: The call: it comes to 3, once the gate is open.
        number: What the model knows it by.
    """

    call: list[Any]
    number: int
    path: Path

    def open(self) -> None:
        """Lets go on what waits."""
        self.path.touch()


@dataclass(frozen=True, slots=True)
class Office:
    """Where runs happen.

    Attributes:
        bus: The bus.
        gateway: The gateway.
        agents: The processor.
        identity: As whom it asks, and where it keeps conversations, as settings.
        effects: What tools did, a line for each time.
    """

    bus: Bus
    gateway: Process
    agents: Process
    identity: dict[str, str]
    effects: Path

    def gate(self) -> Gate:
        """Returns a gate that nobody else knows."""
        number = next(_gates)
        call = ["add", {"a": 1, "b": 2, "gate": number}]
        return Gate(call, number, gate(self.effects, number))

    def did(self, request_id: str) -> list[str]:
        """Returns the calls of a run that had an effect, as often as they had it."""
        if not self.effects.exists():
            return []
        lines = self.effects.read_text(encoding="utf-8").splitlines()
        return [line for line in lines if line.startswith(f"{request_id}//")]


@pytest.fixture(scope="package")
def postgres() -> Iterator[LocalStack]:
    """PostgreSQL, where conversations are kept; whoever harms it must leave it ready."""
    with running_stack(["postgres"]) as stack:
        yield stack


@pytest.fixture(scope="package")
def office(bus: Bus, gateway: Process, folder: Path, postgres: LocalStack) -> Iterator[Office]:
    """The processor of agents, and what it asks."""
    signer = Signer(pem := generate())
    key = folder / "agents.pem"
    key.write_text(pem, encoding="utf-8")
    key.chmod(0o600)
    public = base64.b64encode(signer.public_key).decode()
    made = changes([*DOCUMENTS, *officers(folder)])
    made.append(
        changed("key", signer.key_id, Key(principal="agents", public_key=public, not_before=SEEDED))
    )
    publish(bus, *made)
    effects = folder / "effects"
    environment = postgres.environment().items()
    asking = {
        "CLIENT_KEY": f"file:{key}",
        "CLIENT_PRINCIPAL": "agents",
        "CLIENT_TENANT": PLATFORM,
        **{name: value for name, value in environment if name.startswith("POSTGRES_")},
    }
    with ExitStack() as opened:

        def start(command: list[str], **more: str) -> Process:
            process = running(bus, command, folder, start_s=PATIENCE_S, **more)
            return opened.enter_context(process)

        for played, pool in (("open_model", "played"), ("open_tools", "tools")):
            command = [*WORKERS, f"tests.agents.playing:{played}", "--pool", pool]
            start(command, INFERENCE_MODEL=str(effects))
        agents = start(AGENTS, **asking)
        yield Office(bus, gateway, agents, asking, effects)


@pytest.fixture
async def asker(office: Office) -> AsyncIterator[Asker]:
    """Somebody who asks agents."""
    environment = office.bus.environment
    asker = Asker(
        KafkaSettings(bootstrap_servers=environment["KAFKA_BOOTSTRAP_SERVERS"]),
        Registry(RegistrySettings(url=environment["REGISTRY_URL"])),
        TENANT,
        REPLIES.name,
        None,
    )
    async with asker:
        yield asker


def wanted(said: str, **changes: Any) -> InferenceRequested:
    """Returns a request to the clerk."""
    instant = now()
    given: dict[str, Any] = {
        "request_id": str(uuid4()),
        "tenant": TENANT,
        "principal": "",
        "endpoint": CLERK,
        "task": Task.AGENT,
        "messages": (Message(role=Role.USER, content=said),),
        "sampling": Sampling(),
        "stream": True,
        "reply_to": REPLIES.name,
        "requested_at": instant,
        "deadline": instant + timedelta(minutes=10),
        **changes,
    }
    return InferenceRequested(**given)
