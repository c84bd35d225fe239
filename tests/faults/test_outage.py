"""A broker that is away for a while: nothing is dropped in silence, and work goes on by itself."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPException
from urllib.request import urlopen

import psutil
import pytest

from infra.asker import GRACE_S
from infra.bus import PublishFailed
from infra.stack.local import LocalStack
from streams.client import Client, NoReply
from tests.harness import Bus, Process, eventually, running, soon

pytestmark = [pytest.mark.stack, pytest.mark.timeout(1800)]

OUTAGE_S = 90.0
PATIENCE_S = 240.0
# How long a patient request waits.
WAIT_S = 900
# A minute on a machine that does nothing else.
RESUMED_S = 180.0
# Who waited for the broker would wait until it is back, behind these.
SOON_S = 30.0
ECHO = "main.tests.echo"
# What a client may hold for its unsent requests before it waits.
HELD_BYTES = 512 * 2**20


@pytest.fixture(scope="module")
def crew(bus: Bus, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Process]]:
    folder = tmp_path_factory.mktemp("outage")
    commands = [
        ["-m", "streams", "gateway"],
        ["-m", "streams", "recorder"],
        ["-m", "workers", "inference", "--provider", "echo", "--pool", "echo"],
    ]
    with ExitStack() as processes:
        yield [processes.enter_context(running(bus, command, folder)) for command in commands]


async def test_after_ninety_seconds_without_a_broker_work_resumes_soon_and_by_itself(
    mortal_stack: LocalStack, bus: Bus, crew: list[Process]
) -> None:
    # What it asks for waits for the broker for as long as it waits for an answer.
    kafka = bus.kafka.model_copy(update={"delivery_timeout_ms": WAIT_S * 1000})
    async with Client(tenant="faults", kafka=kafka, registry=bus.registry_settings) as client:
        assert (await client.chat(ECHO, "before")).content == "before"
        await asyncio.to_thread(mortal_stack.stop, "kafka")
        gone_at = time.monotonic()
        resident = psutil.Process().memory_info().rss

        # Nobody is ready, everybody is alive: a restart would not help.
        await asyncio.to_thread(
            eventually, lambda: all(says(each, 503, 0) for each in crew), PATIENCE_S, "unreadiness"
        )
        # A request made meanwhile either waits for the broker or fails with a name.
        patient = [
            asyncio.create_task(client.chat(ECHO, f"meanwhile {number}", timeout=WAIT_S))
            for number in range(500)
        ]
        asked_at = time.monotonic()
        with pytest.raises((NoReply, PublishFailed)):
            await client.chat(ECHO, "impatient", timeout=1)
        assert time.monotonic() - asked_at < 1 + GRACE_S + SOON_S
        # Who stops waiting need not wait for the broker to hear of it.
        asked_at = time.monotonic()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await client.chat(ECHO, "never mind", timeout=WAIT_S)
        assert time.monotonic() - asked_at < 1 + SOON_S
        while time.monotonic() - gone_at < OUTAGE_S:
            for process in crew:
                process.revive()
            assert all(each.ask("/live")[0] in {0, 200} for each in crew)
            await asyncio.sleep(1)
        assert psutil.Process().memory_info().rss - resident < HELD_BYTES

        await asyncio.to_thread(mortal_stack.start, "kafka")
        await asyncio.to_thread(mortal_stack.wait_ready, ["kafka"])
        back_at = time.monotonic()

        async def answered() -> bool:
            for process in crew:
                process.revive()
            return all(task.done() for task in patient)

        await soon(answered, RESUMED_S, "every patient request's answer")
        replies = [task.result().content for task in patient]
        assert replies == [f"meanwhile {number}" for number in range(500)]
        assert (await client.chat(ECHO, "after")).content == "after"
        print(f"resumed {time.monotonic() - back_at:.1f} s after the broker's return")

        def ready() -> bool:
            for process in crew:
                process.revive()
            return all(says(each, 200, 1) for each in crew)

        await asyncio.to_thread(eventually, ready, PATIENCE_S, "readiness")


def says(process: Process, ready: int, broker: float) -> bool:
    """Returns whether a process says so of itself, and of the broker."""
    return process.ask("/ready")[0] == ready and answers(process) == broker


def answers(process: Process) -> float | None:
    """Returns whether the broker answers, as a process's metrics say: 1 or 0; None without any."""
    try:
        with urlopen(f"http://127.0.0.1:{process.port}/metrics", timeout=30) as metrics:
            found = re.search(rb"^tessera_broker_answers ([0-9.]+)$", metrics.read(), re.M)
    except (HTTPException, OSError):
        return None
    assert found
    return float(found[1])
