"""The client against the gateway and an echo worker, all of them real processes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from infra.bus import Record
from infra.tail import Tail
from schemas.events import InferenceReplied, Message, Reason, Role, Sampling
from schemas.topics import INFERENCE_REQUESTED, REPLY, REQUEST_CANCELLED
from streams.client import Client, ClientClosed, RequestRefused
from tests.harness import PATIENCE_S, Bus, Process, eventually, running, unique

pytestmark = [pytest.mark.stack, pytest.mark.usefixtures("gateway", "echo")]

ECHO = "main.tests.echo"
GUARDED = "main.tests.guarded"
SCRIPTED = "main.tests.scripted"
FALLBACK = "main.tests.fallback"


@pytest.fixture
async def client(bus: Bus) -> AsyncIterator[Client]:
    async with Client(tenant="client", kafka=bus.kafka, registry=bus.registry_settings) as client:
        yield client


@pytest.fixture(scope="module")
def journal(folder: Path) -> Path:
    return folder / "client-journal"


@pytest.fixture(scope="module", autouse=True)
def scripted(bus: Bus, folder: Path, journal: Path) -> Iterator[Process]:
    command = [
        "-m",
        "workers",
        "inference",
        "--pool",
        "scripted",
        "--model",
        str(journal),
        "--provider",
        "tests.scripted:open_scripted",
    ]
    with running(bus, command, folder) as process:
        yield process


def script(**what: object) -> str:
    return json.dumps(what)


# What says nothing, and what says no more than one word, until it is stopped.
NOTHING, NO_MORE = (script(words=words, until="/nowhere") for words in (1, 2))
LONG_S = 900.0


async def test_a_question_is_answered(client: Client) -> None:
    reply = await client.chat(ECHO, "hello over the bus")
    assert reply.content == "hello over the bus"
    assert reply.completion.usage.completion_tokens == 4


async def test_texts_are_embedded_in_their_order(client: Client) -> None:
    vectors = await client.embed(ECHO, ["sea", "mountain", ""])
    assert vectors == ((3.0,), (8.0,), (0.0,))


async def test_documents_are_ranked_in_their_order(client: Client) -> None:
    scores = await client.rerank(ECHO, "the deep sea", ["the sea", "a hill", "deep sea the"])
    assert scores == (2.0, 0.0, 3.0)


async def test_nothing_to_embed_is_refused(client: Client) -> None:
    with pytest.raises(RequestRefused) as refused:
        await client.embed(ECHO, [])
    assert refused.value.refusal.field == "inputs"
    assert refused.value.retry_after is None


@pytest.mark.parametrize("endpoint", [ECHO, GUARDED])
async def test_a_stream_grows_to_the_whole_answer(client: Client, endpoint: str) -> None:
    question = " ".join(f"word{number}" for number in range(300))
    parts = [part async for part in client.stream(endpoint, question)]
    assert "".join(part.content for part in parts) == question
    assert not any(part.restarted for part in parts)
    assert parts[-1].reply is not None
    assert parts[-1].reply.content == question


async def test_parts_come_while_the_model_still_speaks(client: Client, tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    said = ""
    async for part in client.stream(SCRIPTED, script(words=2, until=str(heard))):
        said += part.content
        # Else it would say nothing more.
        heard.touch()
    assert said == "w0 w1 "


async def test_many_requests_are_under_way_on_one_client(client: Client) -> None:
    questions = [f"question number {number}" for number in range(200)]
    replies = await asyncio.gather(*(client.chat(ECHO, question) for question in questions))
    assert [reply.content for reply in replies] == questions
    assert len({reply.request_id for reply in replies}) == 200


async def test_64_streams_arrive_in_order_and_whole(client: Client) -> None:
    async def one(number: int) -> str:
        question = " ".join(f"s{number}w{word}" for word in range(100))
        parts = [part async for part in client.stream(ECHO, question)]
        assert "".join(part.content for part in parts) == question
        return parts[-1].reply.content if parts[-1].reply else ""

    answers = await asyncio.gather(*(one(number) for number in range(64)))
    assert len(set(answers)) == 64


async def test_two_clients_of_a_tenant_hear_only_their_own_replies(
    client: Client, bus: Bus
) -> None:
    other = Client(tenant="client", kafka=bus.kafka, registry=bus.registry_settings)
    async with other:
        replies = await asyncio.gather(
            *(
                asker.chat(ECHO, f"{name} {number}")
                for number in range(50)
                for name, asker in (("one", client), ("two", other))
            )
        )
    assert sorted(reply.content for reply in replies) == sorted(
        f"{name} {number}" for number in range(50) for name in ("one", "two")
    )


async def test_a_cancelled_task_frees_the_worker(client: Client, journal: Path) -> None:
    asking = asyncio.create_task(client.chat(SCRIPTED, NOTHING, timeout=LONG_S))
    started = await asyncio.to_thread(_line_after, journal, "start ")
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    wanted = started.replace("start", "cancelled")
    await asyncio.to_thread(eventually, lambda: wanted in journal.read_text())


async def test_leaving_a_stream_early_frees_the_worker(client: Client, journal: Path) -> None:
    stream = client.stream(SCRIPTED, NO_MORE, timeout=LONG_S)
    async for _ in stream:
        break
    started = await asyncio.to_thread(_line_after, journal, "start ")
    await stream.aclose()
    wanted = started.replace("start", "cancelled")
    await asyncio.to_thread(eventually, lambda: wanted in journal.read_text())


async def test_a_task_that_outlives_its_client_ends_with_a_name(bus: Bus, journal: Path) -> None:
    async with Client(tenant="client", kafka=bus.kafka, registry=bus.registry_settings) as client:
        asking = asyncio.create_task(client.chat(SCRIPTED, NOTHING, timeout=LONG_S))
        started = await asyncio.to_thread(_line_after, journal, "start ")
    with pytest.raises(ClientClosed):
        await asyncio.wait_for(asking, PATIENCE_S)
    wanted = started.replace("start", "cancelled")
    await asyncio.to_thread(eventually, lambda: wanted in journal.read_text())


async def test_an_answered_request_is_not_cancelled(client: Client, bus: Bus) -> None:
    reply = await client.chat(ECHO, "done")
    cancelled = {event.request_id for event in bus.events(REQUEST_CANCELLED)}
    assert reply.request_id not in cancelled


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A request that cannot be answered, and what is to be said of it."""

    reason: Reason
    field: str | None = None
    question: str = "hi"
    endpoint: str = ECHO
    sampling: Sampling = Sampling()  # noqa: RUF009 - immutable
    timeout: float = 120


@pytest.mark.parametrize(
    "case",
    [
        Refused(endpoint="main.tests.nowhere", reason=Reason.ENDPOINT_UNKNOWN, field="endpoint"),
        Refused(
            sampling=Sampling(temperature=9),
            reason=Reason.REQUEST_INVALID,
            field="sampling.temperature",
        ),
        Refused(
            sampling=Sampling(max_tokens=0),
            reason=Reason.REQUEST_INVALID,
            field="sampling.max_tokens",
        ),
        Refused(timeout=0, reason=Reason.DEADLINE_EXPIRED, field="deadline"),
        Refused(timeout=10_000, reason=Reason.REQUEST_INVALID, field="deadline"),
        Refused(question="x" * 5_000_000, reason=Reason.REQUEST_TOO_LARGE, field="messages"),
        Refused(
            endpoint=SCRIPTED,
            question=script(refuse="CONTEXT_EXCEEDED"),
            reason=Reason.CONTEXT_EXCEEDED,
        ),
        Refused(
            endpoint=SCRIPTED,
            question=NOTHING,
            timeout=2,
            reason=Reason.DEADLINE_EXPIRED,
            field="deadline",
        ),
    ],
    ids=lambda case: f"{case.reason}-{case.field}",
)
@pytest.mark.usefixtures("insistent")
async def test_what_cannot_be_answered_is_refused_with_the_reason(
    client: Client, case: Refused
) -> None:
    with pytest.raises(RequestRefused) as refused:
        await client.chat(
            case.endpoint, case.question, sampling=case.sampling, timeout=case.timeout
        )
    assert refused.value.refusal.reason is case.reason
    assert refused.value.refusal.field == case.field
    assert "xxx" not in refused.value.refusal.message


async def test_a_foreign_reply_address_is_refused_on_the_callers_own(bus: Bus) -> None:
    heard: asyncio.Queue[Record] = asyncio.Queue()
    errors: list[BaseException] = []

    def hear(records: list[Record]) -> None:
        for record in records:
            heard.put_nowait(record)

    tail = Tail(
        bus.kafka,
        [REPLY.member("client").name],
        None,
        hear,
        unique("listener"),
        fail=errors.append,
    )
    await tail.start()
    thief = Client(
        tenant="client", reply_to="acme", kafka=bus.kafka, registry=bus.registry_settings
    )
    said = unique("let me in")
    async with thief:
        asking = asyncio.create_task(thief.chat(ECHO, said, timeout=LONG_S))

        def asked() -> list[str]:
            requests = bus.events(INFERENCE_REQUESTED, "client")
            return [each.request_id for each in requests if said in str(each.messages)]

        await asyncio.to_thread(eventually, asked, what="the request")
        [request_id] = await asyncio.to_thread(asked)
        record = await asyncio.wait_for(heard.get(), PATIENCE_S)
        while record.key != request_id.encode():
            record = await asyncio.wait_for(heard.get(), PATIENCE_S)
        assert not asking.done()
    with pytest.raises(ClientClosed):
        await asking
    await tail.close()
    assert not errors
    refusal = bus.codec.decode(record.value, InferenceReplied).refusal
    assert refusal is not None
    assert refusal.reason is Reason.REPLY_ADDRESS_FORBIDDEN
    assert REPLY.member("client").name in refusal.message


async def test_a_failing_route_falls_back_and_the_reply_names_what_was_tried(
    client: Client,
) -> None:
    question = script(refuse="PROVIDER_UNAVAILABLE", words=3)
    parts = [part async for part in client.stream(FALLBACK, question)]
    reply = parts[-1].reply
    assert reply is not None
    assert reply.content == question, "the second route echoes"
    assert [(each.route.name, each.refusal.reason) for each in reply.tried] == [
        ("first", Reason.PROVIDER_UNAVAILABLE)
    ]
    restart = max(index for index, part in enumerate(parts) if part.restarted)
    assert "".join(part.content for part in parts[restart:]) == question


async def test_a_callers_own_fault_never_falls_back(client: Client) -> None:
    with pytest.raises(RequestRefused) as refused:
        await client.chat(FALLBACK, script(refuse="REQUEST_INVALID"))
    assert refused.value.tried == ()


async def test_a_conversation_keeps_its_roles(client: Client) -> None:
    turns = [Message(role=Role.SYSTEM, content="be brief"), Message(role=Role.USER, content="last")]
    assert (await client.chat(ECHO, turns)).content == "last"


def _line_after(journal: Path, start: str) -> str:
    """Returns the last line of the journal that starts so, once there is one not yet ended."""
    found: list[str] = []

    def there() -> bool:
        text = journal.read_text() if journal.exists() else ""
        lines = text.splitlines()
        ended = {line.split()[1] for line in lines if not line.startswith(start)}
        found[:] = [
            line for line in lines if line.startswith(start) and line.split()[1] not in ended
        ]
        return bool(found)

    eventually(there, what="a request under way")
    return found[-1]
