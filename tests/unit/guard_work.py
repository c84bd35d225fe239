"""What guard workers are tested with: a catalog of rules, a service and a judge that say what they
are told.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from aiohttp import web

from infra.asker import RequestRefused
from infra.settings import ClientSettings
from infra.telemetry import now
from schemas.events import (
    Completion,
    FinishReason,
    InferenceHeld,
    InferenceJudged,
    InferenceRequested,
    Refusal,
    Usage,
)
from schemas.topics import INFERENCE_JUDGED, Outgoing
from tests.seed import changes
from workers.guard import Guarding

POLICY = "main.tests.rules"
SECRET = "sk-very-secret"
TEXT = "a text that nobody may repeat"


class Asking:
    """Takes the place of what asks over the bus; answers with what it is told."""

    def __init__(self, content: str = "", refusal: Refusal | None = None) -> None:
        self.asked: list[InferenceRequested] = []
        self._content = content
        self._refusal = refusal

    async def completion(self, request: InferenceRequested) -> Completion:
        """Answers."""
        self.asked.append(request)
        if self._refusal:
            raise RequestRefused(request.request_id, self._refusal, ())
        return Completion(
            model="m", content=self._content, finish_reason=FinishReason.STOP, usage=Usage()
        )


def work(
    *rules: dict[str, Any], asking: Asking | None = None, more: Iterable[dict[str, Any]] = ()
) -> Guarding:
    """Returns the work of a guard worker whose catalog has these rules, and more."""
    named = [{"name": rule["type"], **rule} for rule in rules]
    made = Guarding(
        asking or Asking(),  # type: ignore[arg-type]
        ClientSettings(tenant="platform", principal="guard"),
    )
    documents = [{"kind": "policy", "name": POLICY, "spec": {"rules": named}}, *more]
    for change in changes(documents):
        made.view.apply(change)
    return made


def held(*rules: str, texts: tuple[str, ...] = (TEXT,)) -> InferenceHeld:
    """Returns what waits for rules."""
    instant = now()
    return InferenceHeld(
        held_id="held",
        tenant="acme",
        request_id="request",
        stage="input",
        texts=texts,
        rules=tuple(f"{POLICY}/{rule}" for rule in rules),
        held_at=instant,
        until=instant + timedelta(minutes=1),
    )


async def judged(
    guarding: Guarding, waits: InferenceHeld
) -> tuple[InferenceJudged, list[Outgoing]]:
    """Returns what is judged, and what is told on the way."""
    emitted: list[Outgoing] = []
    try:
        [(topic, event)] = await guarding.begin(waits, now()).perform(emitted.append)
    finally:
        await guarding.close()
    assert topic is INFERENCE_JUDGED
    assert isinstance(event, InferenceJudged)
    assert event.held == waits
    said = f"{event.refusal}{event.judgements}{emitted}"
    assert TEXT not in said
    assert SECRET not in said
    return event, emitted


@asynccontextmanager
async def service(answer: Any) -> AsyncIterator[tuple[str, list[web.Request], list[Any]]]:
    """Runs a service that answers every POST as it is told; yields address, requests, bodies."""
    requests: list[web.Request] = []
    bodies: list[Any] = []

    async def serve(request: web.Request) -> web.StreamResponse:
        requests.append(request)
        bodies.append(await request.json())
        found = await answer(request) if callable(answer) else answer
        if isinstance(found, web.StreamResponse):
            return found
        return web.json_response(found)

    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_post("/{tail:.*}", serve)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield f"http://127.0.0.1:{port}", requests, bodies
    finally:
        await runner.cleanup()


def connection(url: str, **spec: Any) -> dict[str, Any]:
    """Returns the connection that leads to a service."""
    return {
        "kind": "connection",
        "name": "main.tests.guard",
        "spec": {"type": "http", "url": url, "private": True, **spec},
    }
