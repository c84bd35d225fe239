"""Requests to ask with, and ways to hear an answer out."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from schemas.events import (
    Completion,
    Delta,
    InferenceRequested,
    Message,
    Refusal,
    Role,
    Route,
    Sampling,
    Tool,
)
from tests.contract.scripted_server import SECRET_WORDS
from workers.providers import Provider, ProviderRefused, SecretUsed

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "adult": {"type": "boolean"}},
    "required": ["name", "adult"],
    "additionalProperties": False,
}
WEATHER = Tool(
    name="weather",
    description="Tells the weather in a city.",
    parameters=json.dumps(
        {
            "type": "object",
            "properties": {
                "city": {"type": "string", "maxLength": 12},
                "unit": {"enum": ["celsius", "fahrenheit"]},
            },
            "required": ["city", "unit"],
            "additionalProperties": False,
        }
    ),
)


@dataclass(slots=True)
class Subject:
    """A provider under test.

    Attributes:
        provider: The provider.
        model: A model that it serves.
        connection: The connection that it is reached by; empty for none.
        idle: Returns once whatever stands behind the provider has nothing left to do.
    """

    provider: Provider
    model: str
    idle: Callable[[], Awaitable[object]]
    connection: str = ""

    @property
    def route(self) -> Route:
        return Route(name="local", pool="tests", model=self.model, connection=self.connection)


@dataclass(slots=True)
class Heard:
    """All that a provider yielded for one request."""

    deltas: list[Delta] = field(default_factory=list)
    completions: list[Completion] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(delta.content for delta in self.deltas)


def ask(
    content: str = "Tell me about the sea.",
    *,
    sampling: Sampling | None = None,
    json_schema: str | None = None,
    tools: tuple[Tool, ...] = (),
    tool_choice: str = "auto",
) -> InferenceRequested:
    return InferenceRequested(
        request_id="request",
        tenant="acme",
        endpoint="main.default.smollm2",
        messages=(Message(role=Role.USER, content=content),),
        sampling=sampling or Sampling(temperature=0, max_tokens=12),
        json_schema=json_schema,
        tools=tools,
        tool_choice=tool_choice,
        stream=True,
        reply_to="reply.v1.acme",
        requested_at=NOON,
        deadline=NOON + timedelta(minutes=10),
    )


async def stream(
    subject: Subject, request: InferenceRequested
) -> AsyncGenerator[Delta | Completion, None]:
    """Yields what is said; secrets that are used on the way are another matter."""
    events = subject.provider.complete(request, subject.route)
    async with aclosing(events) as heard:
        async for event in heard:
            if not isinstance(event, SecretUsed):
                yield event


async def hear(subject: Subject, request: InferenceRequested) -> Heard:
    heard = Heard()
    async for event in stream(subject, request):
        assert not heard.completions, "something came after the completion"
        if isinstance(event, Completion):
            heard.completions.append(event)
        else:
            heard.deltas.append(event)
    assert len(heard.completions) == 1
    return heard


async def completion(subject: Subject, request: InferenceRequested) -> Completion:
    return (await hear(subject, request)).completions[0]


async def refused(subject: Subject, request: InferenceRequested) -> Refusal:
    """Returns the refusal; a completion before it, or instead of it, fails the test."""
    try:
        async for event in stream(subject, request):
            assert isinstance(event, Delta), "a refused request was completed"
    except ProviderRefused as error:
        return error.refusal
    raise AssertionError("the request was not refused")


async def refused_by(subject: Subject, script: str) -> Refusal:
    """Returns the refusal by a server that misbehaves; it quotes neither the request nor a key."""
    request = ask(f"I say: {SECRET_WORDS}", sampling=Sampling(max_tokens=1_000))
    refusal = await refused(replace(subject, model=script), request)
    assert SECRET_WORDS[:16] not in refusal.message
    assert "sk-" not in refusal.message
    return refusal
