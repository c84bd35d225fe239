"""The outside provider: many connections side by side, none of which sees or holds up another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from structlog.testing import capture_logs

from infra import dialling
from schemas.events import Delta, Reason, Route
from tests.contract.asking import Subject, ask, completion, hear, refused, stream
from tests.contract.conftest import at_once, on_the_session_loop
from tests.contract.connections import connect, connected
from tests.contract.openai_servers import CHAT
from tests.contract.scripted_server import SECRET_WORDS, ScriptedServer, scripted_server
from tests.harness import PATIENCE_S, soon
from tests.routed import routed
from tests.unit.test_inference_work import Tried
from workers.providers import outside
from workers.providers.outside import Outside

pytestmark = pytest.mark.asyncio(loop_scope="session")

OTHER = "main.tests.other"
ALLOWED = {
    "accept",
    "accept-encoding",
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "host",
    "user-agent",
}


@on_the_session_loop
async def server() -> AsyncIterator[ScriptedServer]:
    async with scripted_server(CHAT) as running:
        yield running


@on_the_session_loop
async def other() -> AsyncIterator[ScriptedServer]:
    async with scripted_server(CHAT) as running:
        yield running


@on_the_session_loop
async def subject(server: ScriptedServer) -> AsyncIterator[Subject]:
    async with connected("is well", server.idle, "openai", server.base_url) as opened:
        yield opened


def provider_of(subject: Subject) -> Outside:
    assert isinstance(subject.provider, Outside)
    return subject.provider


@pytest.mark.parametrize(
    ("connection", "said"), [("main.tests.nowhere", "main.tests.nowhere"), ("", "no connection")]
)
async def test_a_connection_that_is_not_known_is_a_fault_of_the_route(
    subject: Subject, connection: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outside, "HEARSAY_S", 0.05)
    refusal = await refused(replace(subject, connection=connection), ask())
    assert refusal.reason is Reason.PROVIDER_FAILED
    assert said in refusal.message


async def test_a_connection_that_is_heard_of_a_moment_later_is_waited_for(
    subject: Subject, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outside, "HEARSAY_S", PATIENCE_S)
    asking = asyncio.create_task(completion(replace(subject, connection=OTHER), ask("hi")))
    await asyncio.sleep(0)
    connect(provider_of(subject), {"type": "openai", "url": server.base_url}, "main.tests.third")
    connect(provider_of(subject), {"type": "openai", "url": server.base_url}, OTHER)
    assert (await asking).content == "hi"


@pytest.mark.parametrize("kind", ["http", "mcp", "postgresql"])
async def test_a_connection_that_no_dialect_speaks_is_a_fault_of_the_route(kind: str) -> None:
    async with connected("m", at_once, kind, "http://127.0.0.1:9") as opened:
        refusal = await refused(opened, ask())
    assert refusal.reason is Reason.PROVIDER_FAILED
    assert kind in refusal.message


async def test_each_key_goes_to_its_own_connection_and_nothing_else_goes_anywhere(
    server: ScriptedServer, other: ScriptedServer, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text(f"sk-{name}")
    server.headers["Set-Cookie"] = "whose=mine; Path=/"
    secret = f"file:{tmp_path / 'one'}"
    async with connected(
        "is well", server.idle, "openai", server.base_url, secret=secret
    ) as opened:
        spec = {"type": "openai", "url": other.base_url, "secret": f"file:{tmp_path / 'two'}"}
        connect(provider_of(opened), spec, OTHER)
        for _ in range(2):
            await hear(opened, ask())
            await hear(replace(opened, connection=OTHER), ask())
    assert {headers["Authorization"] for headers, _ in server.seen} == {"Bearer sk-one"}
    assert {headers["Authorization"] for headers, _ in other.seen} == {"Bearer sk-two"}
    for headers, body in server.seen + other.seen:
        sent = {name.lower() for name in headers}
        assert not {name for name in sent - ALLOWED if not name.startswith("x-stainless-")}
        assert "acme" not in str(headers) + str(body)


@pytest.mark.parametrize("url", ["http://169.254.169.254/v1", "http://[fe80::1]/v1"])
async def test_no_connection_reaches_link_local_addresses(url: str) -> None:
    async with connected("m", at_once, "openai", url) as opened:
        refusal = await refused(opened, ask())
    assert refusal.reason is Reason.PROVIDER_FAILED
    assert "may not be called" in refusal.message


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://models.example/v1", "over https"),
        ("ftp://models.example/v1", "http or https"),
        ("https://models.example:port/v1", "no address"),
        ("https:///v1", "http or https"),
    ],
)
async def test_no_key_is_sent_where_it_could_be_read_or_to_what_is_no_server(
    url: str, said: str
) -> None:
    async with connected("m", at_once, "openai", url, private=False, secret="env:PATH") as opened:
        refusal = await refused(opened, ask())
    assert refusal.reason is Reason.PROVIDER_FAILED
    assert said in refusal.message


async def test_a_key_that_no_header_can_carry_is_refused_and_not_quoted(
    server: ScriptedServer, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("sk-ключ")
    secret = f"file:{tmp_path / 'key'}"
    async with connected(
        "is well", server.idle, "openai", server.base_url, secret=secret
    ) as opened:
        refusal = await refused(opened, ask())
    assert refusal.reason is Reason.PROVIDER_FAILED
    assert "sk-" not in refusal.message


async def test_this_machine_is_reached_only_where_the_connection_says_so(
    server: ScriptedServer,
) -> None:
    async with connected(
        "is well", server.idle, "openai", server.base_url, private=False
    ) as opened:
        refusal = await refused(opened, ask())
    assert refusal.reason is Reason.PROVIDER_FAILED
    assert server.seen == []


async def test_a_changed_connection_serves_the_next_request_and_ends_those_under_way(
    subject: Subject, server: ScriptedServer, other: ScriptedServer
) -> None:
    slow = stream(replace(subject, model="arrives slowly"), ask("one two three four"))
    first = await anext(slow)
    connect(provider_of(subject), {"type": "openai", "url": other.base_url})
    assert (await completion(subject, ask("elsewhere"))).content == "elsewhere"
    assert (len(server.seen), len(other.seen)) == (1, 1)
    assert isinstance(first, Delta)
    assert [piece async for piece in slow][-1].content == "one two three four"


async def test_a_connection_that_is_gone_serves_nobody(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outside, "HEARSAY_S", 0.05)
    await hear(subject, ask())
    connect(provider_of(subject), None)
    assert (await refused(subject, ask())).reason is Reason.PROVIDER_FAILED


async def test_a_connection_may_have_so_many_requests_under_way(server: ScriptedServer) -> None:
    options = {"max_in_flight": "2"}
    async with connected(
        "hangs", server.idle, "openai", server.base_url, options=options
    ) as opened:
        hanging = [asyncio.create_task(completion(opened, ask())) for _ in range(2)]

        async def both() -> bool:
            return server.open == 2

        await soon(both, 90, "two requests")
        assert (await refused(opened, ask())).reason is Reason.RATE_LIMITED
        for task in hanging:
            task.cancel()
        await asyncio.wait(hanging)
        assert await completion(replace(opened, model="is well"), ask())


async def test_a_server_that_hangs_holds_up_no_other(
    subject: Subject, server: ScriptedServer, other: ScriptedServer
) -> None:
    connect(provider_of(subject), {"type": "openai", "url": other.base_url}, OTHER)
    stuck = replace(subject, model="hangs", connection=OTHER)
    hanging = [asyncio.create_task(completion(stuck, ask())) for _ in range(100)]

    async def all_stuck() -> bool:
        return other.open == 100

    await soon(all_stuck, 90, "100 requests that hang")
    async with asyncio.timeout(120):
        told = await asyncio.gather(*(completion(subject, ask("fine")) for _ in range(200)))
    assert {each.content for each in told} == {"fine"}
    for task in hanging:
        task.cancel()
    await asyncio.wait(hanging)
    await other.idle()


async def test_streams_that_are_abandoned_leave_no_socket_and_no_task(
    server: ScriptedServer,
) -> None:
    this = psutil.Process()
    async with connected("falls silent", server.idle, "openai", server.base_url) as opened:

        async def abandon() -> None:
            events = stream(opened, ask("one two three four five six"))
            assert isinstance(await anext(events), Delta)
            await events.aclose()

        async def round_of(number: int) -> None:
            await asyncio.gather(*(abandon() for _ in range(number)))

        await round_of(20)
        await server.idle()
        tasks, files = len(asyncio.all_tasks()), this.num_fds()
        for _ in range(10):
            await round_of(50)
        await server.idle()

        async def all_closed() -> bool:
            return this.num_fds() <= files + 2 and len(asyncio.all_tasks()) <= tasks + 2

        await soon(all_closed, 90, "closed sockets and ended tasks")


async def test_a_stream_that_falls_silent_ends_in_time_and_frees_everything(
    subject: Subject, server: ScriptedServer
) -> None:
    event = routed(stream=True)
    route = Route(
        name="local",
        pool="tests",
        model="falls silent",
        connection=subject.connection,
        idle_ms=300,
    )
    asked = replace(ask("one two three four five six"), deadline=event.request.deadline)
    tried = Tried(replace(event, request=asked, route=route), subject.provider)
    completed = await tried.perform()
    assert completed.first_token_at is not None
    # What is promised is 300 ms after the last token, not after the first.
    assert completed.completed_at - completed.first_token_at < timedelta(seconds=30)
    assert completed.refusal is not None
    assert completed.refusal.reason is Reason.PROVIDER_TIMEOUT
    assert completed.completion is None
    assert completed.parts > 0
    assert completed.usage is not None
    assert completed.usage.completion_tokens > 0
    async with asyncio.timeout(30):
        await server.idle()


async def test_no_log_and_no_event_tells_a_key_or_what_was_said(
    server: ScriptedServer, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("sk-hidden")
    secret = f"file:{tmp_path / 'key'}"
    told: list[object] = []
    async with connected(
        "is well", server.idle, "openai", server.base_url, secret=secret
    ) as opened:
        with capture_logs() as logs:
            for way in ("is well", "has a bad line", "breaks off", "is cut"):
                event = routed(stream=False)
                asked = replace(ask(SECRET_WORDS), deadline=event.request.deadline)
                route = replace(opened.route, model=way)
                tried = Tried(replace(event, request=asked, route=route), opened.provider)
                completed = await tried.perform()
                told += [tried.emitted, completed.refusal, completed.completion]
    assert "sk-hidden" not in f"{told}{logs}"
    assert SECRET_WORDS[:16] not in str(logs)


async def test_a_body_without_end_is_not_read_to_its_end(
    subject: Subject, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialling, "MOST_BYTES", 2_000)
    assert await completion(subject, ask("short"))
    refusal = await refused(subject, ask("long " * 200))
    assert refusal.reason is Reason.STREAM_CUT
    await server.idle()
