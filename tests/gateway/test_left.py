"""Streams that are left by their callers leave nothing behind, however many they are."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from itertools import pairwise

import psutil
import pytest

from schemas.events import Delta, Reason, RequestCancelled
from schemas.topics import REQUEST_CANCELLED
from tests.contract.asking import ask, stream
from tests.contract.connections import connected
from tests.contract.scripted_server import ScriptedServer, scripted_server
from tests.gateway.town import (
    IN,
    Caller,
    Town,
    connection,
    endpoint,
    masks,
    metric,
    policy,
    request,
    tenant,
    way,
)
from tests.gateway.upstreams import says
from tests.harness import Process, eventually, soon

TENANT = "left"
AT_ONCE, ROUNDS, ROUNDS_OF_ALL = 50, 8, 3
MIB = 2**20


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with scripted_server() as server:
        yield server


async def test_of_hundreds_of_streams_that_are_left_not_one_object_each_stays(
    server: ScriptedServer,
) -> None:
    async with connected("stalls", server.idle, "openai", server.base_url) as opened:

        async def leave() -> None:
            events = stream(opened, ask("hi"))
            assert isinstance(await anext(events), Delta)
            await events.aclose()

        async def round_of(tasks: int) -> int:
            await asyncio.gather(*(leave() for _ in range(AT_ONCE)))
            await server.idle()
            server.paths.clear()
            server.seen.clear()

            async def at_rest() -> bool:
                return len(asyncio.all_tasks()) <= tasks

            await soon(at_rest, what="ended tasks")
            gc.collect()
            return len(gc.get_objects())

        # The test, the server, and connections that are kept.
        tasks = len(asyncio.all_tasks()) + AT_ONCE
        objects = [await round_of(tasks) for _ in range(ROUNDS)]
        # What streams leave behind, each round adds; a cache that fills does so once.
        assert min(later - earlier for earlier, later in pairwise(objects)) < AT_ONCE / 2


@pytest.mark.stack
@pytest.mark.timeout(600)
async def test_worker_and_gateways_are_as_before_once_their_streams_are_left(town: Town) -> None:
    up = town.upstreams
    up.scripts["so on"] = says(lambda text: ["so on "] * 900, gap_s=0.2)
    await asyncio.to_thread(
        town.define,
        tenant(TENANT),
        policy("left", masks("EMAIL_ADDRESS")),
        connection("left", up),
        endpoint("left", way("a", "left", "so on"), policies=[f"{IN}.left"]),
    )
    processes = [psutil.Process(each.child.pid) for each in (*town.gateways, town.worker)]

    async with town.caller(TENANT) as caller:
        await leave_all(town, caller, 20)
        files = [each.num_fds() for each in processes]
        sizes = [sizes_of(processes)]
        for _ in range(ROUNDS_OF_ALL):
            await leave_all(town, caller, 40)
            sizes.append(sizes_of(processes))
    await asyncio.to_thread(up.is_left, "left")
    everybody = (*town.gateways, town.worker)
    await asyncio.to_thread(eventually, lambda: not any(map(in_flight, everybody)), 90, "rest")

    def closed() -> bool:
        return all(
            each.num_fds() <= before + 2 for each, before in zip(processes, files, strict=True)
        )

    await asyncio.to_thread(eventually, closed, 90, "closed sockets")
    # What streams leave behind, each round adds; what waits for a slow broker does so once.
    grown = [min(b - a for a, b in pairwise(each)) for each in zip(*sizes, strict=True)]
    assert max(grown) < 10 * MIB, grown


def sizes_of(processes: list[psutil.Process]) -> list[int]:
    return [each.memory_info().rss for each in processes]


async def leave_all(town: Town, caller: Caller, number: int) -> None:
    """Asks for streams with a mail in each, and leaves them after some parts."""
    asked = [
        request(TENANT, f"{IN}.left", "mail ada@example.com", stream=True) for _ in range(number)
    ]
    sending = [asyncio.create_task(caller.send(each)) for each in asked]

    async def all_begun() -> bool:
        return all(caller.heard_of(each.request_id) for each in asked)

    await soon(all_begun, 120, "a part of each")
    cancelled = [
        RequestCancelled(
            request_id=each.request_id,
            tenant=TENANT,
            cancelled_at=each.requested_at,
            deadline=each.deadline,
        )
        for each in asked
    ]
    await asyncio.to_thread(town.bus.send, REQUEST_CANCELLED, *cancelled)
    assert {each.reason for each in await asyncio.gather(*sending)} == {Reason.CANCELLED}


def in_flight(process: Process) -> float:
    """Returns how many records a process has taken up and not acknowledged."""
    return metric(process, "tessera_in_flight")
