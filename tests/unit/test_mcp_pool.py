"""Sessions with MCP servers that are kept: whose they are, and when they end; on real processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra.bootstrap import ROOT
from infra.mcp import pipes
from infra.mcp import pool as pools
from infra.mcp.pool import Place, Pool, Session
from infra.mcp.server import Lack, Server, ServerFailed
from schemas.kinds import ConnectionSpec
from tests.harness import eventually, soon
from tests.unit.calling import CONNECTION, call, fails
from tests.unit.mcp_calling import (
    COMMANDS,
    closing,
    order,
    over_pipes,
    running,
    runs,
)
from workers.tools import Fault, ToolFailed
from workers.tools.running import in_time

__all__ = ["closing"]

TOLD = Place(
    tenant="acme",
    connection=CONNECTION,
    spec=ConnectionSpec.model_validate(over_pipes("told")),
    secret="a secret",
)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives kept sessions the time that they may need on a busy machine to show their use."""
    monkeypatch.setattr(pools, "CHECK_S", 30.0)


MUTE = replace(TOLD, spec=ConnectionSpec.model_validate(over_pipes("mute")))


@asynccontextmanager
async def pool(**bounds: Any) -> AsyncIterator[Pool]:
    given = {"most": 8, "most_alike": 4, "idle_s": 60.0, "age_s": 60.0, **bounds}
    made = Pool(COMMANDS, **given)
    try:
        yield made
    finally:
        await made.close()


async def listed(server: Server) -> None:
    await server.tools()


async def asked(session: Session, what: str = "works") -> int:
    """Returns the process of a session's server, which goes on as it is told."""
    return int(await session.ask(lambda server: server.call("order", {"id": what}, {})))


async def process_of(pool: Pool, place: Place = TOLD, what: str = "works") -> int:
    async with pool.lent(place, listed) as session:
        return await asked(session, what)


async def ends(*processes: int) -> None:
    await asyncio.to_thread(eventually, lambda: not any(map(runs, processes)), 60, "their end")


async def left(number: int, processes: Sequence[int]) -> None:
    """Returns when so many of them run, and no fewer do."""
    await asyncio.to_thread(
        eventually, lambda: len([*filter(runs, processes)]) <= number, 60, "the end of some"
    )
    assert len([*filter(runs, processes)]) == number


async def test_a_session_serves_one_call_after_another() -> None:
    async with pool() as kept:
        processes = {await process_of(kept) for _ in range(3)}
    assert len(processes) == 1


async def test_calls_at_the_same_time_have_a_session_each_and_more_than_are_kept() -> None:
    async with pool(most=2, most_alike=2) as kept:
        first = await asyncio.gather(*(process_of(kept) for _ in range(3)))
        assert len(set(first)) == 3
        await left(2, first)
        second = await asyncio.gather(*(process_of(kept) for _ in range(2)))
        assert set(second) == set(filter(runs, first))


@pytest.mark.parametrize("bounds", [{"most": 2}, {"most_alike": 1}, {"most": 0}])
async def test_no_more_are_kept_than_may_be_in_all_and_of_one_place(bounds: dict[str, int]) -> None:
    places = [TOLD, TOLD, replace(TOLD, tenant="other"), replace(TOLD, tenant="third")]
    async with pool(**bounds) as kept:
        async with AsyncExitStack() as held:
            sessions = [await held.enter_async_context(kept.lent(each, listed)) for each in places]
            processes = [await asked(each) for each in sessions]
        expected = {"most": bounds.get("most", 8), "most_alike": 3}[next(iter(bounds))]
        await left(expected, processes)


async def test_one_more_than_may_be_kept_ends_the_one_that_nobody_took_for_longest() -> None:
    second, third = replace(TOLD, tenant="second"), replace(TOLD, tenant="third")
    async with pool(most=2) as kept:
        first, other = await process_of(kept), await process_of(kept, second)
        assert await process_of(kept) == first
        last = await process_of(kept, third)
        await ends(other)
        assert (await process_of(kept), await process_of(kept, third)) == (first, last)


@pytest.mark.parametrize("other", [{"tenant": "other"}, {"connection": "main.tests.other"}])
async def test_another_tenant_or_connection_has_sessions_of_its_own(other: dict[str, Any]) -> None:
    async with pool() as kept:
        first, second = await process_of(kept), await process_of(kept, replace(TOLD, **other))
        assert first != second
        assert (await process_of(kept), runs(second)) == (first, True)


CHANGES: dict[str, Place] = {
    "secret": replace(TOLD, secret="another"),
    "spec": replace(TOLD, spec=TOLD.spec.model_copy(update={"secret": "env:OTHER"})),
}


@pytest.mark.parametrize("what", CHANGES)
async def test_what_its_connection_was_before_ends_for_all_tenants(what: str) -> None:
    async with pool() as kept:
        before = [await process_of(kept), await process_of(kept, replace(TOLD, tenant="other"))]
        after = await process_of(kept, CHANGES[what])
        assert after not in before
        await ends(*before)
        assert runs(after)


@pytest.mark.parametrize("what", ["changed", "leaves"])
async def test_a_kept_session_that_is_of_no_use_any_more_is_replaced(what: str) -> None:
    async def check(server: Server) -> None:
        [tool] = await server.tools()
        if "day" in tool.parameters["properties"]:
            raise ServerFailed(Lack.UNFIT, "it takes other parameters now")

    async with pool() as kept:
        async with kept.lent(TOLD, check) as session:
            before = await asked(session, what)
        async with kept.lent(TOLD, check) as session:
            assert await asked(session) != before
        await ends(before)


async def test_a_kept_session_that_hangs_is_replaced_while_there_is_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pools, "CHECK_S", 2.0)
    async with pool() as kept:
        before = await process_of(kept, what="deaf")
        assert runs(before)
        async with asyncio.timeout(120):
            assert await process_of(kept) != before
        await ends(before)


async def test_a_new_session_that_is_of_no_use_is_not_replaced() -> None:
    checked: list[Server] = []

    async def check(server: Server) -> None:
        checked.append(server)
        raise ServerFailed(Lack.UNFIT, "it has no such tool")

    async with pool() as kept:
        with pytest.raises(ServerFailed, match="no such tool"):
            await kept.lent(TOLD, check).__aenter__()
    assert len(checked) == 1


@pytest.mark.parametrize("what", ["garbage", "refuses", "dies"])
async def test_a_session_that_failed_is_not_used_again(what: str) -> None:
    async with pool() as kept:
        before = await process_of(kept)
        with pytest.raises(ServerFailed):
            await process_of(kept, what=what)
        await ends(before)
        assert await process_of(kept) != before


async def test_a_tool_that_failed_leaves_its_session_as_it_was() -> None:
    async with pool() as kept:
        before = await process_of(kept)
        with pytest.raises(ServerFailed, match="its server says"):
            await process_of(kept, what="fails")
        assert await process_of(kept) == before


@pytest.mark.parametrize("bounds", [{"idle_s": 0.3}, {"age_s": 3.0}])
async def test_a_kept_session_ends_when_its_time_is_over(bounds: dict[str, float]) -> None:
    process = 0

    # On a busy machine its time may be over before anybody has looked.
    async def is_kept() -> bool:
        nonlocal process
        process = await process_of(kept)
        return runs(process)

    async with pool(**bounds) as kept:
        await soon(is_kept, 60, "a session that is kept")
        await ends(process)


async def test_a_session_that_is_too_old_is_not_kept() -> None:
    async with pool(age_s=0.001) as kept:
        await ends(await process_of(kept))


async def test_with_the_pool_all_ends_also_what_is_under_way() -> None:
    async with pool() as kept, kept.lent(TOLD, listed) as session:
        processes = [await asked(session), await process_of(kept)]
        under_way = asyncio.create_task(asked(session, "silent"))
        # It begins before the end does.
        await asyncio.sleep(0)
        await kept.close()
        with pytest.raises(ServerFailed, match="does not answer"):
            await under_way
        # They were killed by now, and are gone a moment later.
        await ends(*processes)


KEEPING = f"""
import asyncio
from infra.mcp.pool import Place, Pool
from schemas.kinds import ConnectionSpec

async def main():
    commands = {{"told": {json.dumps(COMMANDS["told"])}}}
    pool = Pool(commands, most=1, most_alike=1, idle_s=60, age_s=60)
    spec = ConnectionSpec.model_validate({{"type": "mcp", "url": "stdio://told"}})
    place = Place(tenant="acme", connection="main.tests.outside", spec=spec, secret=None)
    async with pool.lent(place, lambda server: server.tools()) as session:
        made = await session.ask(lambda server: server.call("order", {{"id": "deaf"}}, {{}}))
    print(made, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def test_a_kept_session_ends_with_who_keeps_it_even_if_that_is_killed() -> None:
    command = [sys.executable, "-c", KEEPING]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as keeper:
        assert keeper.stdout is not None
        kept = int(keeper.stdout.readline())
        assert runs(kept)
        keeper.send_signal(signal.SIGKILL)
    eventually(lambda: not runs(kept), 60, "the end of what was kept")


async def test_a_session_that_is_cut_off_twice_sees_the_end_of_its_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    began, ending, ended = asyncio.Event(), asyncio.Event(), list[int]()
    started, gone = pipes._started, pipes._gone

    async def noted_start(*given: Any) -> Process:
        process = await started(*given)
        began.set()
        return process

    async def told(process: Process) -> None:
        ending.set()
        await gone(process)
        ended.append(process.pid)

    monkeypatch.setattr(pipes, "_started", noted_start)
    monkeypatch.setattr(pipes, "_gone", told)
    async with pool() as made:
        lending = asyncio.create_task(process_of(made, MUTE))
        await began.wait()
        lending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await lending
        await ending.wait()
    # Once before what is left of it is killed, and once behind that.
    assert len(ended) == 2


async def test_a_runner_keeps_a_session_for_the_next_call_of_its_tenant() -> None:
    runner = await running(over_pipes("told"))
    first, again = [await runner.run(order(what="works")) for _ in range(2)]
    other = await runner.run(replace(order(what="works"), tenant="other"))
    assert first == again != other


async def test_a_runner_keeps_the_session_with_a_server_of_the_sdks() -> None:
    runner = await running(over_pipes("real"))
    asked = call("surroundings", language="mcp", timeout="60s", seconds=60)
    first, again = [(await runner.run(asked))["server"] for _ in range(2)]
    assert first == again


async def test_a_call_that_runs_out_of_time_leaves_its_session_to_nobody() -> None:
    runner = await running(over_pipes("told"))
    before = int(await runner.run(order(what="works")))
    await fails(runner, order(what="silent", timeout="10s"), Fault.UNSETTLED, "longer than it may")
    assert int(await runner.run(order(what="works"))) != before
    await ends(before)


async def test_a_call_that_runs_out_of_time_says_so_however_long_its_server_takes_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The server takes longer to end than anybody waits for that, also on a machine that is busy.
    monkeypatch.setattr(pipes, "CLOSE_S", 60.0)
    monkeypatch.setattr("workers.tools.running.GRACE_S", 30.0)
    runner, holder = await running(over_pipes("holds"), mcp_kept=0), tmp_path / "holder"
    hanging = order(what=str(holder), timeout="10s")
    try:
        with pytest.raises(ToolFailed, match="whether it had its effect is not known") as failure:
            await in_time(runner.run(hanging), hanging)
        assert failure.value.fault is Fault.UNSETTLED
    finally:
        os.kill(int(holder.read_text()), signal.SIGKILL)


async def test_a_call_that_is_cancelled_leaves_its_session_to_nobody(tmp_path: Path) -> None:
    runner, there, fresh = (
        await running(over_pipes("notes")),
        tmp_path / "there",
        tmp_path / "fresh",
    )
    there.touch()
    await runner.run(order(what=str(there)))
    # It hangs, which is where the server notes it.
    cut_off = asyncio.create_task(runner.run(order(what=str(fresh))))
    await asyncio.to_thread(eventually, lambda: noted(fresh), 60, "the call at its server")
    assert noted(fresh) == noted(there)
    cut_off.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cut_off
    await ends(*noted(there))
    await runner.run(order(what=str(there)))
    assert len(set(noted(there))) == 2


def noted(notes: Path) -> list[int]:
    """Returns the process of each call that a server has heard."""
    if not notes.exists():
        return []
    return [int(line.split()[1]) for line in notes.read_text().splitlines()]


async def test_a_kept_session_that_died_is_replaced() -> None:
    runner = await running(over_pipes("told"))
    before = int(await runner.run(order(what="leaves")))
    await ends(before)
    assert int(await runner.run(order(what="works"))) != before


async def test_a_kept_session_that_dies_in_a_call_leaves_the_effect_unknown() -> None:
    runner = await running(over_pipes("told"))
    await runner.run(order(what="works"))
    await fails(runner, order(what="dies"), Fault.UNSETTLED, "not to the end")
