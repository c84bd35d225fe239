"""Whatever is killed, nothing is lost, no row is doubled and every request has its one answer."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest

from infra.lake import query
from infra.stack.local import LocalStack
from infra.telemetry import now
from schemas.events import (
    Completion,
    FinishReason,
    InferenceCompleted,
    InferenceRequested,
    InferenceRouted,
    Message,
    Role,
    Route,
    Sampling,
    Usage,
)
from schemas.topics import INFERENCE_COMPLETED, INFERENCE_RECORDED, REPLY
from streams.client import Client
from tests.harness import Bus, Process, eventually, running

pytestmark = [pytest.mark.stack, pytest.mark.timeout(1800)]

REQUESTS = 1000
AT_ONCE = 64
ECHO = "main.tests.echo"

IDS = 10_000
KILLS = 20
PATIENCE_S = 300.0


class Crew:
    """A gateway, a worker and a recorder, revived when they end, as their supervisor would."""

    def __init__(self, processes: dict[str, Process]) -> None:
        self.processes = processes
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.1):
            # Others join and leave meanwhile.
            for name in list(self.processes):
                if process := self.processes.get(name):
                    process.revive()


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kill")


@pytest.fixture(scope="module")
def crew(bus: Bus, lake: Path) -> Iterator[Crew]:
    commands = {
        "gateway": ["-m", "streams", "gateway"],
        "recorder": ["-m", "streams", "recorder"],
        "worker": ["-m", "workers", "inference", "--provider", "echo", "--pool", "echo"],
    }
    with ExitStack() as open_processes:
        crew = Crew(
            {
                name: open_processes.enter_context(running(bus, command, lake))
                for name, command in commands.items()
            }
        )
        yield crew
        crew.close()


def rows(lake: Path) -> dict[str, list[str | None]]:
    """Returns the responses in the inference table by request id."""
    found: dict[str, list[str | None]] = {}
    table = query(
        lake / "lake",
        "select request_id, json_extract_string(response, '$.choices[0].message.content') as text "
        "from inferences",
    )
    for row in table.to_pylist():
        found.setdefault(row["request_id"], []).append(row["text"])
    return found


@pytest.mark.parametrize("victim", ["gateway", "worker", "recorder", "kafka"])
async def test_a_kill_amid_a_thousand_requests_loses_and_doubles_nothing(
    victim: str, mortal_stack: LocalStack, bus: Bus, crew: Crew, lake: Path
) -> None:
    ledger: dict[str, str] = {}
    numbers = iter(range(REQUESTS))
    struck = asyncio.Event()

    def strike() -> None:
        if victim == "kafka":
            mortal_stack.kill("kafka")
        else:
            crew.processes[victim].kill()

    async with Client(tenant="faults", kafka=bus.kafka, registry=bus.registry_settings) as client:

        async def lane() -> None:
            for number in numbers:
                question = f"{victim} {number}"
                reply = await client.chat(ECHO, question, timeout=600)
                assert reply.content == question
                assert reply.request_id not in ledger
                ledger[reply.request_id] = reply.content
                if len(ledger) >= REQUESTS // 3 and not struck.is_set():
                    struck.set()
                    await asyncio.to_thread(strike)

        await asyncio.gather(*(lane() for _ in range(AT_ONCE)))
    assert struck.is_set()
    assert len(ledger) == REQUESTS
    await asyncio.to_thread(
        eventually, lambda: ledger.keys() <= rows(lake).keys(), PATIENCE_S, "a row for each request"
    )
    stored = rows(lake)
    assert {each: stored[each] for each in ledger} == {
        each: [text] for each, text in ledger.items()
    }


def test_twenty_kills_and_two_changes_of_scale_leave_each_effect_once(
    bus: Bus, lake: Path, crew: Crew
) -> None:
    chance = random.Random(20)
    fed = 0
    with ExitStack() as open_processes:

        def feed(until: int) -> None:
            nonlocal fed
            while fed < until:
                key = f"effect-{fed}".encode()
                bus.put(INFERENCE_COMPLETED.name, key, bus.codec.encode(_completed(fed)))
                fed += 1
            bus.settle()

        extra: dict[str, Process] = {}
        for kill in range(KILLS):
            feed((kill + 1) * IDS // KILLS)
            if kill == KILLS // 4:
                for number in (2, 3):
                    extra[f"gateway{number}"] = open_processes.enter_context(
                        running(bus, ["-m", "streams", "gateway"], lake)
                    )
                crew.processes.update(extra)
            if kill == 3 * KILLS // 4:
                for name, process in extra.items():
                    del crew.processes[name]
                    process.stop()
            # Somewhere in the work: as soon as, or some while after, the group has moved on.
            moved = _moved(bus)
            eventually(moved, PATIENCE_S, "progress of the group")
            eventually(_after(chance.uniform(0, 1)), what="a moment")
            crew.processes[chance.choice(sorted(crew.processes.keys() - {"worker"}))].kill()
        wanted = {f"effect-{number}" for number in range(IDS)}
        eventually(lambda: wanted <= rows(lake).keys(), PATIENCE_S, "every effect")
    stored = rows(lake)
    assert {each for each in wanted if len(stored[each]) != 1} == set()
    recorded = Counter(
        event.request_id
        for event in bus.events(INFERENCE_RECORDED)
        if event.request_id.startswith("effect-")
    )
    assert recorded.keys() == wanted


def _moved(bus: Bus) -> Callable[[], bool]:
    before = sum(bus.committed("gateway", INFERENCE_COMPLETED.name).values())
    return lambda: (
        sum(bus.committed("gateway", INFERENCE_COMPLETED.name).values()) > before
        or bus.lag("gateway", INFERENCE_COMPLETED.name) == 0
    )


def _after(seconds: float) -> Callable[[], bool]:
    until = time.monotonic() + seconds
    return lambda: time.monotonic() > until


def _completed(number: int) -> InferenceCompleted:
    at = now()
    request = InferenceRequested(
        request_id=f"effect-{number}",
        tenant="faults",
        endpoint=ECHO,
        messages=(Message(role=Role.USER, content="count me once"),),
        sampling=Sampling(),
        reply_to=REPLY.member("faults2").name,
        requested_at=at,
        deadline=at + timedelta(minutes=10),
    )
    return InferenceCompleted(
        routed=InferenceRouted(
            request=request, route=Route(name="local", pool="echo", model="echo"), routed_at=at
        ),
        completion=Completion(
            usage=Usage(), model="echo", content=f"effect {number}", finish_reason=FinishReason.STOP
        ),
        started_at=at,
        completed_at=at,
    )
