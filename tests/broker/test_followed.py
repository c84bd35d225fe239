"""What is heard of a run, on a log that nobody but the test writes to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from infra.telemetry import now
from schemas.agents import run_id
from schemas.events import AgentJournaled, AgentTold, InferenceReplied, Reason, Refusal
from schemas.topics import AGENT_JOURNALED, AGENT_TOLD, INFERENCE_ROUTED, REPLY
from streams.client import Client, RequestRefused, RunEvent, RunUnknown
from tests.harness import Bus, unique
from tests.routed import routed
from tests.unit.agents import said

pytestmark = pytest.mark.stack

TENANT = "client"
WAIT_S = 180.0
# When somebody took up what is answered.
TAKEN = 1
FORGED = Refusal(reason=Reason.SIGNATURE_MISSING, message="sign it")
TAKEN_BEFORE = Refusal(reason=Reason.CONFLICT, message="begun before", field="request_id")
UNDER_WAY = Refusal(reason=Reason.CONFLICT, message="still under way", field="previous")


@pytest.fixture
async def client(bus: Bus) -> AsyncIterator[Client]:
    async with Client(tenant=TENANT, kafka=bus.kafka, registry=bus.registry_settings) as client:
        yield client


@pytest.fixture
def run() -> str:
    return unique("run")


def told(run: str, seq: int, status: str) -> AgentTold:
    kind, item = f"response.{status}", json.dumps({"id": run})
    return AgentTold(request_id=run, tenant=TENANT, seq=seq, kind=kind, item=item, told_at=now())


def tell(bus: Bus, run: str, *statuses: str) -> None:
    events = [told(run, seq, status) for seq, status in enumerate(statuses)]
    bus.send(AGENT_TOLD.member(TENANT), *events)


def reply(bus: Bus, run: str, **what: Any) -> None:
    replied = InferenceReplied(request_id=run, replied_at=now(), **what)
    bus.send(REPLY.member(TENANT), replied)


def begin(bus: Bus, run: str) -> None:
    """Puts the beginning of a run on the log that was asked without parts."""
    taken = routed(request_id=run, tenant=TENANT)
    request = replace(taken.request, reply_to=REPLY.member(TENANT).name)
    entry = AgentJournaled(
        run_id=run_id(run, TENANT),
        tenant=TENANT,
        agent="main.tests.agent",
        seq=0,
        cause_id="began",
        cause_topic=INFERENCE_ROUTED.member("agents").name,
        cause=bus.codec.encode(replace(taken, request=request)),
        at=now(),
    )
    bus.send(AGENT_JOURNALED, entry)


async def heard(client: Client, run: str) -> list[RunEvent]:
    async with asyncio.timeout(WAIT_S):
        return [event async for event in client.follow(run)]


@pytest.mark.parametrize("of_another", [{"refusal": FORGED}, {"refusal": TAKEN_BEFORE, "epoch": 2}])
async def test_what_another_record_is_refused_with_ends_no_run(
    client: Client, bus: Bus, run: str, of_another: dict[str, Any]
) -> None:
    reply(bus, run, **of_another)
    tell(bus, run, "created", "completed")
    following = asyncio.create_task(heard(client, run))
    reply(bus, run, **of_another)
    reply(bus, run, completion=said("It is 3."), epoch=TAKEN)
    *_, end = await following
    assert end.reply is not None
    assert end.reply.content == "It is 3."


async def test_a_run_ends_with_a_refusal_of_its_own(client: Client, bus: Bus, run: str) -> None:
    tell(bus, run, "created", "failed")
    reply(bus, run, refusal=UNDER_WAY, epoch=TAKEN)
    with pytest.raises(RequestRefused, match="still under way"):
        await heard(client, run)


async def test_a_run_that_was_refused_before_it_began_is_told_so(
    client: Client, bus: Bus, run: str
) -> None:
    reply(bus, run, refusal=FORGED)
    with pytest.raises(RequestRefused, match="sign it"):
        await heard(client, run)


async def test_a_run_that_tells_nothing_is_waited_for(client: Client, bus: Bus, run: str) -> None:
    begin(bus, run)
    following = asyncio.create_task(heard(client, run))
    # Whoever asks later is told meanwhile that there is no such run, where there is none.
    with pytest.raises(RunUnknown):
        await heard(client, unique("none"))
    reply(bus, run, refusal=FORGED)
    done, _ = await asyncio.wait([following], timeout=2)
    assert not done
    reply(bus, run, completion=said("It is 3."), epoch=TAKEN)
    [end] = await following
    assert end.reply is not None
    assert end.reply.content == "It is 3."
