"""Agents on the real bus: a gateway, the agents' processor, a model and tools that are played."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from infra.asker import Asker
from infra.registry import Registry
from infra.settings import KafkaSettings, RegistrySettings
from infra.signing import Signer, generate
from infra.telemetry import now
from schemas.events import InferenceRequested, Message, Role, Sampling, Task
from schemas.kinds import Key
from schemas.topics import REPLY
from tests.broker.approving import officers
from tests.broker.pools import PATIENCE_S
from tests.harness import Bus, Process, running
from tests.seed import SEEDED, changed, changes, publish

TENANT, PLATFORM = "runs", "platform"
REPLIES = REPLY.member(TENANT)
CLERK, CAREFUL = "main.agents.clerk", "main.agents.careful"
ADD, WIPE = "main.agents.add", "main.agents.wipe"
NUMBERS = {
    "type": "object",
    "properties": {name: {"type": "number"} for name in ("a", "b", "wait_s")},
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
        "name": CAREFUL,
        "spec": {"endpoint": "main.agents.model", "tools": [ADD], "approvals": [ADD]},
        "grants": {"everyone": ["EXECUTE"], "boss": ["MANAGE"]},
    },
]
WORKERS = ["-m", "workers", "inference", "--provider"]


@dataclass(frozen=True, slots=True)
class Office:
    """Where runs happen.

    Attributes:
        bus: The bus.
        gateway: The gateway.
        agents: The processor.
        effects: What tools did, a line for each time.
    """

    bus: Bus
    gateway: Process
    agents: Process
    effects: Path

    def did(self, request_id: str) -> list[str]:
        """Returns the calls of a run that had an effect, as often as they had it."""
        if not self.effects.exists():
            return []
        lines = self.effects.read_text(encoding="utf-8").splitlines()
        return [line for line in lines if line.startswith(f"{request_id}//")]


@pytest.fixture(scope="package")
def office(bus: Bus, gateway: Process, folder: Path) -> Iterator[Office]:
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
    asking = {"CLIENT_KEY": f"file:{key}", "CLIENT_PRINCIPAL": "agents", "CLIENT_TENANT": PLATFORM}
    with ExitStack() as opened:

        def start(command: list[str], **more: str) -> Process:
            process = running(bus, command, folder, start_s=PATIENCE_S, **more)
            return opened.enter_context(process)

        start([*WORKERS, "tests.agents.playing:open_model", "--pool", "played"])
        start(
            [*WORKERS, "tests.agents.playing:open_tools", "--pool", "tools"],
            INFERENCE_MODEL=str(effects),
        )
        yield Office(bus, gateway, start(["-m", "streams", "agents"], **asking), effects)


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
        "deadline": instant + timedelta(minutes=2),
        **changes,
    }
    return InferenceRequested(**given)
