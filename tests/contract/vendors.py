"""The vendors whose dialects are held against one suite: how each is reached, and its server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from aiohttp import web

from schemas.events import InferenceRequested, Message, Role, Sampling, ToolCall
from tests.contract import anthropic_server, bedrock_server, cohere_server, gemini_server
from tests.contract.asking import WEATHER, Subject, ask
from tests.contract.connections import connected
from tests.contract.scripted_server import Script, ScriptedServer, by_model, scripted_server

KEY = "sk-hidden"
# A call of each of two tools, answered the other way round.
CALLS = (
    ToolCall(id="call_1", name="weather", arguments='{"city": "Paris", "unit": "celsius"}'),
    ToolCall(id="call_2", name="now", arguments=""),
)
CONVERSATION = (
    Message(role=Role.SYSTEM, content="Be brief."),
    Message(role=Role.USER, content="Hello.", name="ada"),
    Message(role=Role.USER, content="How is Paris?"),
    Message(role=Role.ASSISTANT, content="Let me look.", tool_calls=CALLS),
    Message(role=Role.TOOL, content="noon", tool_call_id="call_2"),
    Message(role=Role.TOOL, content="21 degrees", tool_call_id="call_1"),
    Message(role=Role.SYSTEM, content="Be brief still."),
    Message(role=Role.USER, content="And?"),
)
SAMPLING = Sampling(temperature=0.5, top_p=0.9, max_tokens=100, stop=("END",))
EVERY_PARAMETER = replace(SAMPLING, top_k=7, seed=3, frequency_penalty=0.1, presence_penalty=0.2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendor:
    """A vendor.

    Attributes:
        type: Type of its connections.
        scripts: How its server answers.
        named: How a request names the script: by its model.
        carries: The header that the key goes in, and what it says.
        spec: What else a connection has.
        headers: What every stream carries besides.
    """

    type: str
    scripts: Mapping[str, Script]
    named: Callable[[web.Request, dict[str, Any]], str] = by_model
    carries: tuple[str, str]
    spec: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


VENDORS: dict[str, Vendor] = {
    "anthropic": Vendor(
        type="anthropic", scripts=anthropic_server.SCRIPTS, carries=("x-api-key", KEY)
    ),
    "bedrock": Vendor(
        type="bedrock",
        scripts=bedrock_server.SCRIPTS,
        named=bedrock_server.named,
        carries=("authorization", "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/"),
        spec={"user": "AKIDEXAMPLE", "options": {"region": "eu-central-1"}},
        headers=bedrock_server.HEADERS,
    ),
    "cohere": Vendor(
        type="cohere", scripts=cohere_server.SCRIPTS, carries=("authorization", f"Bearer {KEY}")
    ),
    "gemini": Vendor(
        type="gemini",
        scripts=gemini_server.SCRIPTS,
        named=gemini_server.named,
        carries=("x-goog-api-key", KEY),
    ),
}


@asynccontextmanager
async def served(name: str) -> AsyncIterator[ScriptedServer]:
    """Runs a vendor's server."""
    vendor = VENDORS[name]
    async with scripted_server(vendor.scripts, vendor.named) as server:
        server.headers = dict(vendor.headers)
        yield server


@asynccontextmanager
async def reached(
    name: str, server: ScriptedServer, model: str = "arrives slowly", **options: str
) -> AsyncIterator[Subject]:
    """Opens the provider with a connection to a vendor's server."""
    vendor = VENDORS[name]
    spec = {**vendor.spec, "options": {**vendor.spec.get("options", {}), **options}}
    async with connected(model, server.idle, vendor.type, server.url, **spec) as subject:
        yield subject


def conversation(sampling: Sampling = SAMPLING, tool_choice: str = "weather") -> InferenceRequested:
    """Returns a request with all that a conversation can have."""
    asked = ask(sampling=sampling, tools=(WEATHER,), tool_choice=tool_choice)
    return replace(asked, messages=CONVERSATION)
