"""Agents, tools and a model that are killed again and again, and what their runs leave behind."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from infra.stack.local import LocalStack
from infra.stack.service import LOOPBACK
from infra.telemetry import now
from schemas.events import AgentJournaled, InferenceRequested, Message, Role, Sampling, Task
from schemas.topics import AGENT_JOURNALED, INFERENCE_REQUESTED, REPLY, root_of
from streams.agents.run import Run
from tests.agents.identity import AGENTS, identity
from tests.broker.pools import following
from tests.conftest import CATALOG
from tests.faults.test_kill import Crew
from tests.harness import READY_S, Bus, eventually, running, unique
from tests.seed import Document, seed

PATIENCE_S = 600.0
TENANT = "killed"
REPLIES = REPLY.member(TENANT)
MODEL, NOTE = "main.faults.model", "main.faults.note"
# An agent as others are, one whose runs are short, and one that answers in JSON, too.
CLERK, NOVICE, STRICT = (f"main.faults.{name}" for name in ("clerk", "novice", "strict"))
TURNS, REPAIRS = 5, 2
# As much as a gateway takes: the machine may be slow.
TIME = {"time": "14m"}
SHORT = {"endpoint": MODEL, "tools": [NOTE], "repairs": REPAIRS, "limits": {"turns": TURNS, **TIME}}
SPEC = {
    "language": "python",
    "source": "none",
    "effect": "reconcile",
    "timeout": "60s",
    "parameters": {
        "type": "object",
        "properties": {"notes": {"type": "string"}},
        "required": ["notes"],
    },
}
EXECUTE = {"everyone": ["EXECUTE"]}
SPECS: dict[str, dict[str, Any]] = {
    CLERK: {"endpoint": MODEL, "tools": [NOTE], "limits": TIME},
    NOVICE: SHORT,
    STRICT: {**SHORT, "output": {"type": "object"}},
}
DOCUMENTS: tuple[Document, ...] = (
    {"kind": "tenant", "name": TENANT, "spec": {"accept_unsigned": True}},
    {"kind": "schema", "name": "main.faults", "grants": {"everyone": ["USE", "QUERY"]}},
    {
        "kind": "endpoint",
        "name": MODEL,
        "spec": {"routes": [{"name": "local", "pool": "played", "model": "played"}]},
    },
    {"kind": "function", "name": NOTE, "versions": [{"spec": SPEC}], "grants": EXECUTE},
    *(
        {"kind": "agent", "name": name, "spec": spec, "grants": EXECUTE}
        for name, spec in SPECS.items()
    ),
)


@dataclass(frozen=True, slots=True)
class Scene:
    """Where runs happen, and what may be killed of it.

    Attributes:
        bus: The bus.
        crew: What serves runs, each by its name.
        notes: The effects, a line each.
    """

    bus: Bus
    crew: Crew
    notes: Path

    @property
    def note(self) -> list[Any]:
        """A call that notes something."""
        return ["note", {"notes": str(self.notes)}]

    @property
    def gate(self) -> Path:
        """A file that is there when nobody is killed any more: another each time."""
        return self.notes.with_name(unique("gate"))

    def wanted(
        self, turns: Sequence[Any], agent: str = CLERK, gate: Path | None = None
    ) -> InferenceRequested:
        """Returns a request to an agent whose model says this, turn by turn, at an open gate."""
        instant, told = now(), {"turns": turns} | ({"until": str(gate)} if gate else {})
        return InferenceRequested(
            request_id=str(uuid4()),
            tenant=TENANT,
            endpoint=agent,
            task=Task.AGENT,
            messages=(Message(role=Role.USER, content=json.dumps(told)),),
            sampling=Sampling(),
            reply_to=REPLIES.name,
            requested_at=instant,
            deadline=instant + timedelta(minutes=14),
        )

    def effects(self, requests: Collection[str]) -> list[str]:
        """Returns the calls of runs that had an effect, as often as they had it."""
        return [each for each in self.notes.read_text().splitlines() if root_of(each) in requests]

    def journals(self) -> dict[str, list[AgentJournaled]]:
        """Returns what came for each run, by its id."""
        found: defaultdict[str, list[AgentJournaled]] = defaultdict(list)
        for entry in self.bus.events(AGENT_JOURNALED):
            # Of two that two processes wrote under one number, the first counts.
            if entry.seq == len(found[entry.run_id]):
                found[entry.run_id].append(entry)
        return found

    def asked(self) -> dict[str, set[bytes | None]]:
        """Returns what was asked under each id that was ever asked under; copies count once."""
        found: defaultdict[str, set[bytes | None]] = defaultdict(set)
        for record in self.bus.records(INFERENCE_REQUESTED.name):
            event = self.bus.codec.decode(record.value, InferenceRequested)
            found[event.request_id].add(record.value)
        return found


@contextmanager
def opened(stack: LocalStack, folder: Path) -> Iterator[Scene]:
    """A gateway, and a crew: agents, a model that is played, tools, and what executes them."""
    who, asks = identity(folder)
    bus = Bus(stack)
    seed(bus, [*CATALOG, *who, *DOCUMENTS])
    tools = {
        "TOOLS_BROKER": f"redis://{LOOPBACK}:{stack.settings.redis_port}/2",
        "TOOLS_DRAIN_MS": "500",
        "TOOLS_LEASE_MS": "5000",
        "TOOLS_LOOK_MS": "300",
        "TOOLS_VISIBILITY_MS": "2000",
    }
    runners = json.dumps({"python": "tests.faults.counting:open_counted"})
    inference = ["-m", "workers", "inference", "--provider"]
    commands: dict[str, tuple[list[str], dict[str, str]]] = {
        "agents": (AGENTS, asks),
        "executor": (["-m", "workers", "tools"], {**tools, "TOOLS_RUNNERS": runners}),
        "model": ([*inference, "tests.faults.holding:open_held", "--pool", "played"], {}),
        "tools": ([*inference, "tools", "--pool", "tools"], tools),
    }
    (notes := folder / "notes").touch()
    with ExitStack() as processes:
        processes.enter_context(running(bus, ["-m", "streams", "gateway"], folder))
        crew = Crew(
            {
                name: processes.enter_context(
                    running(bus, command, folder, start_s=READY_S, **settings)
                )
                for name, (command, settings) in commands.items()
            }
        )
        processes.callback(crew.close)
        yield Scene(bus, crew, notes)


@contextmanager
def nobody(scene: Scene) -> Iterator[None]:
    """Has no agents run for a block."""
    agents = scene.crew.processes.pop("agents")
    assert agents.stop() == 0
    yield
    agents.start()
    agents.ready()
    scene.crew.processes["agents"] = agents


def kill_often(
    scene: Scene,
    asking: Mapping[str, asyncio.Task[Any]],
    victims: Sequence[str],
    entries: int,
    gate: Path,
) -> int:
    """Kills one of the crew after another while runs go on; returns how often one went on then.

    Args:
        scene: Where.
        asking: Who waits for the end of a run, by the run's id.
        victims: Who is killed, in this order.
        entries: What all these runs take in.
        gate: Opened behind the last kill: whoever waits for it goes on however late that is.
    """
    drawn, killed = random.Random(11), 0
    with following(scene.bus, AGENT_JOURNALED) as journal:
        for number, victim in enumerate(victims, start=1):
            # A third is left when the last one is killed.
            steps = 2 * number * entries // (3 * len(victims))

            def far(steps: int = steps) -> bool:
                return sum(each.run_id in asking for each in journal.seen()) >= steps

            eventually(far, PATIENCE_S, f"{steps} steps of the runs")
            moment = time.monotonic() + drawn.uniform(0, 0.5)
            eventually(partial(_past, moment), what="a moment")
            killed += any(not each.done() for each in asking.values())
            scene.crew.processes[victim].kill()
    gate.touch()
    return killed


def state(run: Run) -> dict[str, Any]:
    """Returns what a run came to, without what no two runs have alike: its id and its times."""
    said = json.loads(replace(run, deadline=run.request.deadline).to_json())
    for name in ("request_id", "requested_at", "deadline"):
        del said["request"][name]
    del said["deadline"]
    return dict(said)


def _past(moment: float) -> bool:
    return time.monotonic() > moment
