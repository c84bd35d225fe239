"""The main job with the real model: asked over the bus, answered by vLLM, written to the table."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from infra.lake import QueryInvalid, query
from infra.stack import workers
from infra.stack.local import LocalStack
from infra.stack.settings import StackSettings
from schemas.events import FinishReason, Reason, Sampling, Tool
from streams.client import Client, RequestRefused
from tests.harness import Bus, Process, eventually, running

pytestmark = [
    pytest.mark.model,
    pytest.mark.stack,
    pytest.mark.timeout(900),
    pytest.mark.usefixtures("gateway", "recorder"),
]

VLLM = "main.tests.vllm"
START_S = 600
# Sooner than a very long story is told.
IDLE_S = 20
GREEDY = Sampling(temperature=0, max_tokens=24)
WEATHER = Tool(
    name="get_weather",
    description="Get the current weather of a city.",
    parameters=json.dumps(
        {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city", "days"],
            "additionalProperties": False,
        }
    ),
)


@pytest.fixture(scope="module")
def worker(stack: LocalStack, bus: Bus, folder: Path) -> Iterator[Process]:
    """A worker with vLLM in its own environment."""
    stack.prepare(["inference"])
    service = workers.inference(StackSettings())
    environment = {**service.environment, **bus.environment, "INFERENCE_POOL": "vllm"}
    python, *command = service.command
    with running(bus, command, folder, python=python, start_s=START_S, **environment) as process:
        yield process
        assert process.stop() == 0


@pytest.fixture
async def client(bus: Bus, worker: Process) -> AsyncIterator[Client]:
    async with Client(tenant="model", kafka=bus.kafka, registry=bus.registry_settings) as client:
        yield client


def in_engine(worker: Process) -> float:
    """Returns how many requests the engine is working on, by its own metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{worker.port}/metrics", timeout=30) as found:
        text = found.read().decode()
    return sum(
        float(value)
        for value in re.findall(
            r"^vllm:num_requests_(?:running|waiting)\{[^}]*\} (\S+)$", text, re.M
        )
    )


async def test_a_streamed_answer_becomes_a_row(client: Client, folder: Path) -> None:
    question = "What is the capital of France? Answer in one short sentence."
    parts = [part async for part in client.stream(VLLM, question, sampling=GREEDY, timeout=300)]
    reply = parts[-1].reply
    assert reply is not None
    assert len(parts) > 2, "the answer did not come in parts"
    assert "".join(part.content for part in parts) == reply.content
    assert "Paris" in reply.content
    assert reply.completion.usage.prompt_tokens > 10

    def row() -> list[dict[str, object]]:
        asked = f"select * from inferences where request_id = '{reply.request_id}'"
        try:
            rows: list[dict[str, object]] = query(folder / "lake", asked).to_pylist()
        except QueryInvalid:  # The table appears with its first event.
            return []
        return rows

    await asyncio.to_thread(eventually, row, what="the row")
    [found] = row()
    assert found["outcome"] == "COMPLETED"
    assert json.loads(str(found["response"]))["choices"][0]["message"]["content"] == reply.content
    assert found["completion_tokens"] == reply.completion.usage.completion_tokens
    assert question in str(found["request"])


async def test_64_streams_from_one_worker_arrive_in_order_and_whole(client: Client) -> None:
    async def one(number: int) -> FinishReason:
        text = ""
        sampling = Sampling(temperature=0.8, seed=number, max_tokens=8)
        async for part in client.stream(
            VLLM, f"Say something about the number {number}.", sampling=sampling, timeout=800
        ):
            assert not part.restarted
            text += part.content
        assert part.reply is not None
        assert text == part.reply.content
        return part.reply.completion.finish_reason

    ends = await asyncio.gather(*(one(number) for number in range(64)))
    assert set(ends) <= {FinishReason.LENGTH, FinishReason.STOP}


async def test_a_cancelled_stream_leaves_the_engine(client: Client, worker: Process) -> None:
    sampling = Sampling(temperature=0.8, max_tokens=900)
    stream = client.stream(VLLM, "Tell a very long story.", sampling=sampling, timeout=300)
    async for _ in stream:
        break
    await asyncio.to_thread(eventually, lambda: in_engine(worker) == 1, what="a busy engine")
    await stream.aclose()
    await asyncio.to_thread(eventually, lambda: in_engine(worker) == 0, IDLE_S, "an idle engine")


@pytest.mark.usefixtures("insistent")
async def test_a_passed_deadline_leaves_the_engine(client: Client, worker: Process) -> None:
    sampling = Sampling(temperature=0.8, max_tokens=900)
    with pytest.raises(RequestRefused) as refused:
        await client.chat(VLLM, "Tell a very long story.", sampling=sampling, timeout=3)
    assert refused.value.refusal.reason is Reason.DEADLINE_EXPIRED
    await asyncio.to_thread(eventually, lambda: in_engine(worker) == 0, IDLE_S, "an idle engine")


async def test_a_prompt_over_the_context_is_refused_with_the_limit(client: Client) -> None:
    with pytest.raises(RequestRefused) as refused:
        await client.chat(VLLM, "word " * 3000, timeout=300)
    assert refused.value.refusal.reason is Reason.CONTEXT_EXCEEDED
    assert refused.value.refusal.field == "messages"
    assert "1024" in refused.value.refusal.message


async def test_a_schema_is_satisfied(client: Client) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    reply = await client.chat(
        VLLM,
        "Invent a person.",
        json_schema=json.dumps(schema),
        sampling=Sampling(temperature=0, max_tokens=60),
        timeout=300,
    )
    found = json.loads(reply.content)
    assert isinstance(found["name"], str)
    assert isinstance(found["age"], int)


async def test_a_required_tool_is_called_in_its_own_types(client: Client) -> None:
    reply = await client.chat(
        VLLM,
        "How is the weather in Paris for the next three days?",
        tools=[WEATHER],
        tool_choice="required",
        sampling=Sampling(temperature=0, max_tokens=80),
        timeout=300,
    )
    [call, *_] = reply.completion.tool_calls
    assert call.name == "get_weather"
    arguments = json.loads(call.arguments)
    assert isinstance(arguments["city"], str)
    assert isinstance(arguments["days"], int)
