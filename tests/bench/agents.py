"""What runs of agents cost: a step, a run, one that waits, one that is over, and a fresh start.

python -m tests.bench agents                  all parts (minutes)
python -m tests.bench agents --only steps     some: steps, waiting, known

The bench plays all that runs ask, so that nothing is measured but the agents' process and the bus.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from infra.bus import Record, fetch
from infra.signing import claim, claimed
from infra.telemetry import now
from schemas.agents import run_id, run_of
from schemas.events import (
    AgentJournaled,
    Completion,
    FinishReason,
    InferenceCompleted,
    InferenceReplied,
    InferenceRequested,
    InferenceRouted,
    Message,
    Role,
    Route,
    Sampling,
    Task,
    ToolCall,
    Usage,
)
from schemas.topics import (
    AGENT_JOURNALED,
    INFERENCE_COMPLETED,
    INFERENCE_REQUESTED,
    INFERENCE_ROUTED,
    REPLY,
)
from tests.agents.identity import AGENTS, PLATFORM, identity
from tests.bench.asking import TEXT, hearing, listening
from tests.bench.figures import Spent, family, millis
from tests.conftest import CATALOG
from tests.conftest import running as running_stack
from tests.harness import Bus, Process, eventually, running, unique
from tests.seed import changes, publish, seed

TENANT = "asking"
AGENT, MODEL, LOOK = "main.tests.clerk", "main.tests.thinker", "main.tests.look"
PARAMETERS = {"type": "object", "properties": {"at": {"type": "string"}}}
DOCUMENTS: list[dict[str, Any]] = [
    {"kind": "tenant", "name": TENANT},
    {
        "kind": "endpoint",
        "name": MODEL,
        "spec": {"routes": [{"name": "local", "pool": "echo", "model": "echo"}]},
    },
    {
        "kind": "function",
        "name": LOOK,
        "versions": [{"spec": {"language": "python", "source": "none", "parameters": PARAMETERS}}],
    },
    {"kind": "agent", "name": AGENT, "spec": {"endpoint": MODEL, "tools": [LOOK]}},
]
# A run asks its model, a tool, and so on, so often; then the model says what it makes of it.
CALLS = 3
STEPS = 2 * CALLS + 1
FEW, MANY = 10, 1000
ALONE, TOGETHER, AT_ONCE = 100, 600, 50
HOPS = 200
OVER = 5000
WARMING = 20
PATIENCE_S = 300.0


def run(*arguments: str) -> None:
    """Prints the figures of all parts, or of some."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench agents")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=[*PARTS])
    given = parser.parse_args(arguments)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores", flush=True)
    with (
        running_stack(["kafka", "postgres", "registry"]) as stack,
        tempfile.TemporaryDirectory() as folder,
    ):
        bus = Bus(stack)
        seed(bus, CATALOG)
        bench = Bench(bus, Path(folder))
        for part in given.only:
            PARTS[part](bench)


class Bench:
    """A provisioned bus that knows as whom agents ask, and a folder for logs."""

    def __init__(self, bus: Bus, folder: Path) -> None:
        self.bus = bus
        self._folder = folder
        who, self._asks = identity(folder)
        publish(bus, *changes([*who, *DOCUMENTS]))

    @contextmanager
    def agents(self) -> Iterator[Process]:
        """Runs the processor of agents for a block, which begins when it knows the journal."""
        started = running(self.bus, AGENTS, self._folder, start_s=PATIENCE_S, **self._asks)
        with started as process:
            eventually(lambda: "runs known" in process.log(), PATIENCE_S, "what is on the journal")
            yield process

    @contextmanager
    def playing(self) -> Iterator[Played]:
        """Answers what runs ask, for a block."""
        played = Played(self.bus)
        thread = threading.Thread(target=played.play, daemon=True)
        thread.start()
        try:
            yield played
        finally:
            played.closing.set()
            thread.join()


class Played:
    """All that runs ask: a gateway, a model that calls a tool again and again, and that tool.

    Attributes:
        closing: Set, it answers no more.
        ended: Runs that are over.
        held: Runs that asked a tool while tools were to wait.
        slow: Whether tools wait.
        steps: Seconds from each answer until the run's next request, or its end, was here.
    """

    def __init__(self, bus: Bus) -> None:
        self.closing = threading.Event()
        self.ended = 0
        self.held: set[str] = set()
        self.slow = False
        self.steps: list[float] = []
        self._bus, self._codec = bus, bus.codec
        self._ear = listening(bus, [INFERENCE_REQUESTED.name, INFERENCE_COMPLETED.name])
        # What others began may be said again.
        self._going: set[str] = set()
        # When what each run waits for was answered.
        self._answered: dict[str, float] = {}

    def begin(self, runs: int) -> None:
        """Begins so many runs."""
        topic = INFERENCE_ROUTED.member("agents")
        for _ in range(runs):
            routed = InferenceRouted(
                request=_asked(),
                route=Route(name="agent", pool="agents", model=AGENT),
                routed_at=now(),
                decision_id=unique("decision"),
            )
            self._going.add(run_id(routed.request.request_id, TENANT))
            self._bus.put(topic.name, topic.key(routed).encode(), self._codec.encode(routed))

    def finish(self, runs: int, at_once: int) -> None:
        """Begins runs, so many at once, and returns when they are over."""
        begun, before, until = 0, self.ended, time.monotonic() + PATIENCE_S
        while (done := self.ended - before) < runs:
            assert time.monotonic() < until, f"{done} of {runs} runs were over in time"
            if more := min(at_once - (begun - done), runs - begun):
                self.begin(more)
                begun += more
            self._bus.producer.poll(0.001)

    def holds(self, runs: int) -> bool:
        """Returns whether so many runs wait for a tool."""
        return len(self.held) == runs

    def play(self) -> None:
        """Answers until it is to close."""
        while not self.closing.is_set():
            for record in fetch(self._ear, 500, 0.05):
                self._hear(record)
        self._ear.close()

    def _hear(self, record: Record) -> None:
        at = time.perf_counter()
        if record.topic == INFERENCE_COMPLETED.name:
            request = self._codec.decode(record.value, InferenceCompleted).routed.request
            run = run_id(request.request_id, request.tenant)
            self._came(run, at)
            self.ended += run in self._going
            self._going.discard(run)
            return
        asked = self._codec.decode(record.value, InferenceRequested)
        run, _ = run_of(asked.request_id) or ("", 0)
        self._came(run, at)
        if run in self._going:
            self._play(asked, claim(claimed(record.headers, record.value or b"")))

    def _came(self, run: str, at: float) -> None:
        if answered := self._answered.pop(run, None):
            self.steps.append(at - answered)

    def _play(self, asked: InferenceRequested, claim: str) -> None:
        if asked.task is Task.TOOL:
            if self.slow:
                self.held.add(asked.request_id)
            else:
                self._answer(asked, claim, _completion(LOOK, TEXT))
            return
        number = sum(each.role is Role.ASSISTANT for each in asked.messages)
        call = ToolCall(id=f"call_{number}", name="look", arguments='{"at": "it"}')
        calls = (call,) if number < CALLS else ()
        self._answer(asked, claim, _completion(MODEL, TEXT, *calls))

    def _answer(self, asked: InferenceRequested, claim: str, completion: Completion) -> None:
        topic = REPLY.member(PLATFORM)
        replied = InferenceReplied(
            request_id=asked.request_id, completion=completion, claim=claim, replied_at=now()
        )
        value = self._codec.encode(replied)
        run, _ = run_of(asked.request_id) or ("", 0)
        self._answered[run] = time.perf_counter()
        self._bus.put(topic.name, topic.key(replied).encode(), value)


def waiting(bench: Bench) -> None:
    """What runs that wait for slow tools hold in memory."""
    with bench.agents() as agents, bench.playing() as played:
        played.finish(WARMING, WARMING)
        played.slow = True
        sizes = []
        for runs in (FEW, MANY):
            played.begin(runs - len(played.held))
            eventually(partial(played.holds, runs), PATIENCE_S, "tools that are asked")
            sizes.append(_size(agents))
        few, many = sizes
        print(
            f"memory with {FEW} runs that wait for a tool {few:.0f} MiB, with {MANY:,} {many:.0f}: "
            f"{many - few:.0f} MiB more, {(many - few) / (MANY - FEW) * 1024:.0f} KiB a run",
            flush=True,
        )


def steps(bench: Bench) -> None:
    """What a step takes, from what comes to what goes, and what a processor's core does of runs."""
    hops = _hops(bench)
    print(f"a record over the bus alone: {millis(hops)}", flush=True)
    with bench.agents() as agents, bench.playing() as played:
        played.finish(WARMING, 1)
        for runs, at_once in ((ALONE, 1), (TOGETHER, AT_ONCE)):
            played.steps.clear()
            began, spent = time.perf_counter(), Spent({"agents": agents.child.pid})
            used = family(agents.child.pid)
            played.finish(runs, at_once)
            passed, used = time.perf_counter() - began, family(agents.child.pid) - used
            print(
                f"{runs} runs of {STEPS} steps, {at_once} at once: from answer to next request "
                f"{millis(played.steps)}, {median(played.steps) / median(hops):.1f} times that; "
                f"{runs / passed:.1f} runs/s, {runs / used:.1f} "
                f"per core of the agents; {spent.told(runs, 'run')}",
                flush=True,
            )


def known(bench: Bench) -> None:
    """What runs that are over hold in memory, and how long a fresh process reads their entries."""
    with bench.agents(), bench.playing() as played:
        played.finish(1, 1)
    few = _fresh(bench)
    topic, entries = AGENT_JOURNALED, _a_run(bench)
    for number in range(OVER):
        run = run_id(unique("over"), TENANT)
        for each in entries:
            place = f"{each.cause_id}{number:05d}"
            copy = replace(each, run_id=run, cause_id=place)
            bench.bus.put(topic.name, topic.key(copy).encode(), bench.bus.codec.encode(copy))
        bench.bus.settle()
    many = _fresh(bench)
    _write_down(bench)
    told = _fresh(bench)
    count = OVER * len(entries)
    print(
        f"{OVER:,} runs more that are over, {count:,} entries: a fresh process knows them after "
        f"{many[0] - few[0]:.1f} s more ({many[0]:.1f}) and holds {many[1] - few[1]:.0f} MiB more "
        f"({many[1]:.0f}), {(many[1] - few[1]) / OVER * 1024:.1f} KiB a run; where snapshots "
        f"tell of them {told[0] - few[0]:.1f} s more ({told[0]:.1f}) and {told[1] - few[1]:.0f} "
        "MiB",
        flush=True,
    )


PARTS: dict[str, Callable[[Bench], None]] = {
    "steps": steps,
    "waiting": waiting,
    "known": known,
}


def _hops(bench: Bench) -> list[float]:
    """Returns how many seconds records take that nobody does anything with, one after another."""
    topic, found = REPLY.member(TENANT).name, []
    with hearing(bench.bus, [topic]) as heard:
        for number in range(HOPS):
            place = topic, b"hop-%d" % number
            at = time.perf_counter()
            bench.bus.put(*place, b"")
            while place not in heard:
                bench.bus.producer.poll(0.0005)
            found.append(heard[place][0] - at)
    return found


def _fresh(bench: Bench) -> tuple[float, float]:
    """Returns how many seconds a fresh process reads the journal, and its size then."""
    with bench.agents() as agents:
        said = next(line for line in agents.log().splitlines() if '"runs known"' in line)
        return json.loads(said)["elapsed_ms"] / 1000, _size(agents)


def _write_down(bench: Bench) -> None:
    """Has all that is known of runs written down."""
    with bench.agents() as agents, bench.playing() as played:
        # Whoever goes on with the runs of a partition writes of it: there are some on each.
        played.finish(AT_ONCE, AT_ONCE)
        eventually(
            lambda: agents.log().count("snapshot written") >= AGENT_JOURNALED.partitions,
            PATIENCE_S,
            "snapshots of all partitions",
        )


def _a_run(bench: Bench) -> list[AgentJournaled]:
    """Returns the entries of a run that is over."""
    found = bench.bus.events(AGENT_JOURNALED)
    last = next(each for each in found if each.ended)
    return [each for each in found if each.run_id == last.run_id]


def _size(process: Process) -> float:
    """Returns how much memory a process has, in MiB."""
    return float(psutil.Process(process.child.pid).memory_info().rss / 2**20)


def _asked() -> InferenceRequested:
    instant = now()
    return InferenceRequested(
        request_id=unique("run"),
        tenant=TENANT,
        endpoint=AGENT,
        task=Task.AGENT,
        messages=(Message(role=Role.USER, content=TEXT),),
        sampling=Sampling(),
        reply_to=REPLY.member(TENANT).name,
        requested_at=instant,
        deadline=instant + timedelta(minutes=30),
    )


def _completion(model: str, text: str, *calls: ToolCall) -> Completion:
    return Completion(
        model=model,
        content=text,
        tool_calls=calls,
        finish_reason=FinishReason.TOOL_CALLS if calls else FinishReason.STOP,
        usage=Usage(prompt_tokens=100, completion_tokens=100),
    )
