"""Runs that are left before anybody has taken them up."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

from infra.bus import PublishFailed
from schemas.topics import INFERENCE_REQUESTED, REQUEST_CANCELLED
from streams.client import Client
from tests.harness import Bus, Process, eventually, unique

pytestmark = pytest.mark.stack

WAIT_S = 180.0


@pytest.fixture
def halted(gateway: Process) -> Iterator[None]:
    """No gateway takes anything up."""
    os.kill(gateway.child.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(gateway.child.pid, signal.SIGCONT)


@pytest.mark.usefixtures("halted")
async def test_a_run_that_is_left_before_it_has_begun_is_cancelled(bus: Bus) -> None:
    agent = f"main.tests.{unique('agent')}"

    def asked() -> list[str]:
        requests = bus.events(INFERENCE_REQUESTED)
        return [each.request_id for each in requests if each.endpoint == agent]

    async with Client(tenant="client", kafka=bus.kafka, registry=bus.registry_settings) as client:
        starting = asyncio.create_task(client.start_run(agent, "hello"))
        await asyncio.to_thread(eventually, asked, WAIT_S, "the request")
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
    [request_id] = asked()
    assert request_id in [each.request_id for each in bus.events(REQUEST_CANCELLED)]


async def test_a_cancellation_that_is_not_on_the_log_is_said_to_have_failed(bus: Bus) -> None:
    async with Client(tenant="client", kafka=bus.kafka, registry=bus.registry_settings) as client:
        await client.cancel("one")
    with pytest.raises(PublishFailed):
        await client.cancel("another")
    said = {each.request_id for each in bus.events(REQUEST_CANCELLED)}
    assert said & {"one", "another"} == {"one"}
