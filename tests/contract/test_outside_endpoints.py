"""The outside provider before a server that misbehaves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from schemas.events import Delta, Reason, Sampling
from tests.contract.asking import Subject, ask, completion, hear, refused, refused_by, stream
from tests.contract.conftest import at_once, on_the_session_loop
from tests.contract.connections import connected
from tests.contract.scripted_server import ScriptedServer
from workers.providers import ProviderRefused, SecretUsed

pytestmark = pytest.mark.asyncio(loop_scope="session")


@on_the_session_loop
async def impatient(scripted: ScriptedServer) -> AsyncIterator[Subject]:
    options = {"silence_s": "0.3"}
    async with connected(
        "echo", scripted.idle, "openai", scripted.base_url, options=options
    ) as subject:
        yield subject


@pytest.mark.parametrize(
    ("script", "reason", "field"),
    [
        ("bad parameter", Reason.REQUEST_INVALID, "sampling.temperature"),
        ("echoes the prompt", Reason.REQUEST_INVALID, "sampling.temperature"),
        ("ends early", Reason.STREAM_CUT, None),
        ("fails midway", Reason.PROVIDER_FAILED, None),
        ("fails", Reason.PROVIDER_UNAVAILABLE, None),
        ("forbids", Reason.PROVIDER_FAILED, None),
        ("limits by seconds", Reason.RATE_LIMITED, None),
        ("loses the connection", Reason.STREAM_CUT, None),
        ("overflows", Reason.CONTEXT_EXCEEDED, "messages"),
        ("redirects", Reason.PROVIDER_FAILED, None),
        ("says another form", Reason.PROVIDER_FAILED, None),
        ("says no JSON", Reason.PROVIDER_FAILED, None),
        ("says nothing", Reason.PROVIDER_FAILED, None),
        ("unknown", Reason.PROVIDER_FAILED, None),
    ],
)
async def test_each_misbehaviour_is_one_kind_of_refusal(
    outside: Subject, script: str, reason: Reason, field: str | None
) -> None:
    refusal = await refused_by(outside, script)
    assert (refusal.reason, refusal.field) == (reason, field)


async def test_a_complaint_about_a_parameter_is_passed_on(outside: Subject) -> None:
    assert "temperature is at most 2" in (await refused_by(outside, "bad parameter")).message


async def test_retry_after_is_understood_in_seconds_and_as_a_date(outside: Subject) -> None:
    assert (await refused_by(outside, "limits by seconds")).retry_after_ms == 7_000
    far = (await refused_by(outside, "limits by date")).retry_after_ms
    assert far is not None
    assert far > 7_000


async def test_a_wait_in_milliseconds_is_understood_too(outside: Subject) -> None:
    assert (await refused_by(outside, "limits by milliseconds")).retry_after_ms == 1_500


async def test_nothing_is_tried_twice(outside: Subject, scripted: ScriptedServer) -> None:
    for script in ("fails", "limits by seconds", "redirects"):
        await refused_by(outside, script)
    assert len(scripted.seen) == 3


async def test_a_stalled_stream_times_out_and_is_closed(
    impatient: Subject, scripted: ScriptedServer
) -> None:
    assert (await refused_by(impatient, "stalls")).reason is Reason.PROVIDER_TIMEOUT
    await scripted.idle()


async def test_what_came_before_the_cut_was_yielded(outside: Subject) -> None:
    events = stream(replace(outside, model="ends early"), ask())
    assert await anext(events) == Delta(content="half a")
    with pytest.raises(ProviderRefused):
        await anext(events)


async def test_an_endpoint_that_is_not_there_is_unavailable() -> None:
    async with connected("echo", at_once, "openai", "http://127.0.0.1:9/v1") as nowhere:
        assert (await refused(nowhere, ask())).reason is Reason.PROVIDER_UNAVAILABLE


async def test_cached_tokens_are_reported(outside: Subject) -> None:
    assert (await completion(outside, ask())).usage.cached_tokens == 1


async def test_the_key_is_read_for_each_request(scripted: ScriptedServer, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("first\n")
    secret = f"file:{key}"
    async with connected(
        "echo", scripted.idle, "openai", scripted.base_url, secret=secret
    ) as subject:
        await hear(subject, ask())
        key.write_text("second\n")
        await hear(subject, ask())
        key.unlink()
        refusal = await refused(subject, ask())
    assert [headers["Authorization"] for headers, _ in scripted.seen] == [
        "Bearer first",
        "Bearer second",
    ]
    assert refusal.reason is Reason.PROVIDER_FAILED
    assert str(key) not in refusal.message


async def test_each_use_of_the_key_is_told_and_the_key_is_not(
    scripted: ScriptedServer, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("sk-hidden\n")
    secret = f"file:{key}"
    async with connected(
        "echo", scripted.idle, "openai", scripted.base_url, secret=secret
    ) as subject:
        used, *said = [event async for event in subject.provider.complete(ask(), subject.route)]
        assert used == SecretUsed(reference=secret)
        assert "sk-hidden" not in str(said)
        key.unlink()
        failing = subject.provider.complete(ask(), subject.route)
        used = await anext(failing)
        assert isinstance(used, SecretUsed)
        assert used.failure == f"{secret} cannot be read: FileNotFoundError"
        with pytest.raises(ProviderRefused):
            await anext(failing)


async def test_without_a_key_nothing_of_the_environment_is_sent(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "environment")
    monkeypatch.setenv("OPENAI_ORG_ID", "environment")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with connected("echo", scripted.idle, "openai", scripted.base_url) as subject:
        await hear(subject, ask())
    [(headers, _)] = scripted.seen
    assert "environment" not in str(headers)
    assert "Authorization" not in headers


async def test_the_body_is_openais(outside: Subject, scripted: ScriptedServer) -> None:
    await hear(outside, ask("hello", sampling=Sampling(temperature=0.5, max_tokens=3)))
    [(_, body)] = scripted.seen
    assert body == {
        "model": "echo",
        "messages": [{"role": "user", "content": "hello"}],
        "temperature": 0.5,
        "max_tokens": 3,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def test_an_endpoint_may_take_max_completion_tokens(scripted: ScriptedServer) -> None:
    options = {"max_tokens_field": "max_completion_tokens"}
    async with connected(
        "echo", scripted.idle, "openai", scripted.base_url, options=options
    ) as subject:
        await hear(subject, ask())
    [(_, body)] = scripted.seen
    assert body["max_completion_tokens"] == 12
    assert "max_tokens" not in body


async def test_a_connection_with_an_unknown_option_serves_nobody_and_says_so() -> None:
    options = {"dtype": "float32"}
    url = "http://127.0.0.1:9/v1"
    async with connected("echo", at_once, "openai", url, options=options) as subject:
        refusal = await refused(subject, ask())
    assert refusal.reason is Reason.PROVIDER_FAILED
    assert "take no dtype" in refusal.message
