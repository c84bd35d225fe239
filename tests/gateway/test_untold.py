"""Credentials are told to nobody: in no log line, span, event, dead letter or error text.

Those of connections, those that a prompt holds, and both of them quoted by an outside provider.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from aiohttp import web

from infra.asker import Asker
from infra.registry import Registry
from schemas.events import DeadLetterCause
from schemas.topics import (
    AUDIT_RECORDED,
    DEAD_LETTERS,
    INFERENCE_ATTEMPTED,
    INFERENCE_COMPLETED,
    INFERENCE_PARTS,
    INFERENCE_RECORDED,
    INFERENCE_REFUSED,
    INFERENCE_REQUESTED,
    INFERENCE_ROUTED,
    REPLY,
    USAGE_COUNTED,
    Topic,
)
from tests.broker.speaking import letters, producer, put
from tests.contract.misbehaving import delivered, slowly
from tests.contract.openai_servers import frames
from tests.contract.scripted_server import Script, ScriptedServer, chunk
from tests.gateway.conftest import OUTSIDE, telling
from tests.gateway.town import (
    IN,
    KEYS,
    Caller,
    Town,
    connection,
    endpoint,
    one_for_each_partition,
    policy,
    tenant,
    way,
)
from tests.gateway.upstreams import heard, says
from tests.harness import READY_S, eventually, running
from tests.seed import Document

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

# One of them at least asks the gateway that tells all it can.
TENANTS = one_for_each_partition("untold")
# All of them are replied to here: one topic is read through sooner than six.
REPLIES = REPLY.member("untold")
# The key of the connections; a message may be cut amid it.
OURS = KEYS["KEY_FIRST"]
PIECE = OURS[:12]
# What a prompt holds: keys of forms that are known.
THEIRS = ("sk-untold-" + "q7" * 12, "AKIAUNTOLD7Q7Q7Q7Q7Q")
PROMPT = f"deploy with {THEIRS[0]} and {THEIRS[1]}"
GARBAGE = f"garbage that holds {OURS} and {THEIRS[0]}".encode()
STATUSES = (400, 401, 403, 404, 422, 429, 500)
VENDORS = ("anthropic", "openai", "openai_responses")


def complains(status: int, **more: str) -> Script:
    """Returns a script that quotes the key that came, and the prompt."""

    async def script(
        _: ScriptedServer, request: web.Request, body: dict[str, Any]
    ) -> web.StreamResponse:
        said = f"temperature: no {OURS} may ask {body.get('messages') or body['input']}"
        error = {"type": "invalid_request_error", "message": said, **more}
        return web.json_response({"type": "error", "error": error}, status=status)

    return script


def complains_midway(body: dict[str, Any]) -> list[bytes]:
    error = {"message": f"{OURS}: {heard(body)}", "type": "server_error", "code": None}
    return frames([chunk("half a"), {"error": error}])


# A refusal that is passed on to the caller, in words that are about a parameter and a key.
PARAMETER = complains(400, message=f"temperature is none for {OURS}", param="temperature")
CUT = complains(400, message=f"temperature is none {'.' * 260} for {OURS}", param="temperature")


@pytest.fixture(scope="module", autouse=True)
def defined(town: Town) -> Iterator[None]:
    up = town.upstreams
    forms = {"anthropic": "messages: ", "openai": "", "openai_responses": "responses: "}
    up.scripts.update(
        {
            "untold": says(lambda text: [text]),
            "untold midway": delivered(complains_midway, slowly),
            "untold parameter": PARAMETER,
            "untold cut": CUT,
            **{
                f"{form}untold {status}": complains(status)
                for form in forms.values()
                for status in STATUSES
            },
        }
    )

    def asks(name: str, vendor: str, model: str, **spec: Any) -> Document:
        to = {**way("a", f"untold-{vendor}", model), "pool": "untold"}
        return endpoint(f"untold-{name}", to, **spec)

    town.define(
        *(tenant(each, replies=["untold"]) for each in TENANTS),
        policy("untold-mask", {"type": "secrets", "name": "keys"}),
        policy("untold-deny", {"type": "secrets", "name": "keys", "action": "deny"}),
        *(
            connection(f"untold-{vendor}", up, type=vendor, secret="env:KEY_FIRST")
            for vendor in VENDORS
        ),
        asks("echo", "openai", "untold"),
        asks("mask", "openai", "untold", policies=[f"{IN}.untold-mask"]),
        asks("deny", "openai", "untold", policies=[f"{IN}.untold-deny"]),
        *(asks(each, "openai", f"untold {each}") for each in ("cut", "midway", "parameter")),
        *(
            asks(f"{vendor}-{status}", vendor, f"untold {status}")
            for vendor in VENDORS
            for status in STATUSES
        ),
    )
    command = [*OUTSIDE[:-1], "untold"]
    more = {**KEYS, **telling(town.spans), "TELEMETRY_LIBRARY_LOG_LEVEL": "debug"}
    with running(town.bus, command, town.folder, start_s=READY_S, **more):
        yield


@pytest.fixture
async def everybody(town: Town) -> AsyncIterator[list[Caller]]:
    registry = Registry(town.bus.registry_settings)
    async with Asker(town.bus.kafka, registry, TENANTS[0], REPLIES.name, None) as asker:
        yield [Caller(asker, each) for each in TENANTS]


def unsaid(town: Town, *secrets: str) -> None:
    """Asserts that no log and no span tells of any of these."""
    for text in (town.logs(), town.spans.raw):
        assert [each for each in secrets if each.encode() in text] == []


async def where(town: Town, secrets: tuple[str, ...], *topics: Topic[Any]) -> set[str]:
    """Returns the topics with a record that holds any of these."""
    read = (asyncio.to_thread(town.bus.records, topic.name) for topic in topics)
    return {
        topic.name
        for topic, records in zip(topics, await asyncio.gather(*read), strict=True)
        for record in records
        if any(
            each.encode() in (record.value or b"") + repr(record.headers).encode()
            for each in secrets
        )
    }


def told(town: Town, before: int) -> None:
    """Returns when a gateway and the worker have told of their work, behind so many spans."""
    topics = (INFERENCE_REQUESTED, INFERENCE_ROUTED.member("untold"))

    def both() -> bool:
        names = {span.name for span in town.spans.spans[before:]}
        return names >= {f"process {topic.name}" for topic in topics}

    eventually(both, 90, "spans of a gateway and the worker")


async def test_what_an_outside_provider_quotes_is_told_to_nobody(
    town: Town, everybody: list[Caller]
) -> None:
    names = [f"untold-{vendor}-{status}" for vendor in VENDORS for status in STATUSES]
    names += ["untold-cut", "untold-midway", "untold-parameter"]
    before = len(town.spans.spans)
    asked = await asyncio.gather(
        *(
            everybody[at % len(everybody)].ask(
                name, PROMPT, stream=bool(at % 2), reply_to=REPLIES.name
            )
            for at, name in enumerate(names)
        )
    )
    for name, each in zip(names, asked, strict=True):
        assert each.refusal, name
        assert [key for key in (PIECE, *THEIRS) if key in str(each.refusal)] == [], name
        await asyncio.to_thread(town.row, each.request.request_id)
    calls = [each for each in town.upstreams.calls if each.upstream.startswith("untold-")]
    assert len(calls) >= len(names)
    assert all(OURS.encode() in each.headers for each in calls)
    await asyncio.to_thread(told, town, before)
    unsaid(town, PIECE, *THEIRS)
    topics: list[Topic[Any]] = [
        *(AUDIT_RECORDED, INFERENCE_ATTEMPTED, INFERENCE_COMPLETED, INFERENCE_PARTS),
        *(INFERENCE_RECORDED, INFERENCE_ROUTED.member("untold"), USAGE_COUNTED),
        REPLIES,
    ]
    assert await where(town, (PIECE,), *topics) == set()
    assert await where(town, THEIRS, AUDIT_RECORDED, USAGE_COUNTED, REPLIES) == set()


async def test_a_key_in_a_prompt_is_in_its_request_alone_where_a_policy_masks_or_refuses_it(
    town: Town, everybody: list[Caller]
) -> None:
    # Keys that no other test asks with, so that each record that holds one is of this test.
    keys = ("ghp_" + "uNt0" * 9, "sk-alone-" + "z9" * 12)
    said = f"use {keys[0]} or {keys[1]}"
    asked = await asyncio.gather(
        *(
            each.ask(name, said, stream=stream, reply_to=REPLIES.name)
            for each in everybody
            for name in ("untold-deny", "untold-mask")
            for stream in (False, True)
        )
    )
    for each in asked:
        assert each.whole or each.refusal
        assert (each.whole is None) == (each.request.endpoint == f"{IN}.untold-deny")
        assert [key for key in keys if key in f"{each.refusal}{each.whole}{each.parts}"] == []
        await asyncio.to_thread(town.row, each.request.request_id)
    assert not any(key.encode() in each.raw for key in keys for each in town.upstreams.calls)
    unsaid(town, *keys)
    topics: list[Topic[Any]] = [
        *(AUDIT_RECORDED, DEAD_LETTERS, INFERENCE_ATTEMPTED, INFERENCE_COMPLETED, INFERENCE_PARTS),
        *(INFERENCE_RECORDED, INFERENCE_REFUSED, INFERENCE_REQUESTED, USAGE_COUNTED),
        INFERENCE_ROUTED.member("untold"),
        REPLIES,
    ]
    assert await where(town, keys, *topics) == {INFERENCE_REQUESTED.name}


async def test_a_key_in_a_prompt_that_no_policy_minds_is_in_no_log_and_no_span(
    town: Town, everybody: list[Caller]
) -> None:
    before = len(town.spans.spans)
    asked = await asyncio.gather(
        *(each.stream("untold-echo", PROMPT, reply_to=REPLIES.name) for each in everybody)
    )
    assert [each.text for each in asked] == [PROMPT] * len(asked)
    await asyncio.to_thread(told, town, before)
    unsaid(town, PIECE, *THEIRS)


async def test_a_dead_letter_keeps_its_record_and_its_words_quote_nothing_of_it(
    town: Town,
) -> None:
    headers = [("authorization", f"Bearer {OURS}".encode())]
    by = producer(town.bus)
    topics = (INFERENCE_REQUESTED, INFERENCE_ROUTED.member("untold"))
    places = [put(by, topic.name, b"key", GARBAGE, headers=headers) for topic in topics]
    for letter in await asyncio.to_thread(letters, town.bus, places):
        assert letter.cause is DeadLetterCause.UNREADABLE
        assert letter.value == GARBAGE
        assert PIECE not in letter.message
        assert THEIRS[0] not in letter.message
    unsaid(town, PIECE, *THEIRS)
