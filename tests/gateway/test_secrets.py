"""Credentials: each goes to the provider that it is for, and shows up nowhere else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from schemas.events import Message, Reason, Role
from schemas.topics import (
    AUDIT_RECORDED,
    CATALOG_CHANGED,
    DEAD_LETTERS,
    INFERENCE_ATTEMPTED,
    INFERENCE_COMPLETED,
    INFERENCE_PARTS,
    INFERENCE_RECORDED,
    INFERENCE_REFUSED,
    INFERENCE_REQUESTED,
    INFERENCE_ROUTED,
    REPLY,
    Topic,
)
from tests.contract.scripted_server import Script, fails
from tests.gateway.town import KEYS, Caller, Town, connection, endpoint, tenant, way
from tests.gateway.upstreams import Call, says
from tests.harness import eventually

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

TENANT, ANN = "secrets", "secrets-ann"
FIRST, SECOND = (key.encode() for key in KEYS.values())
VENDORS = {
    "azure_openai": {"options": {"api_version": "2024-10-21"}},
    "anthropic": {},
    "openai": {},
    "openai_responses": {},
}
MODELS = {"anthropic": "is well", "openai_responses": "is well"}


def quoting() -> Script:
    """Returns a script that quotes the key in its complaint."""
    return fails(401, message=f"Incorrect API key provided: {FIRST.decode()}")


@pytest.fixture(scope="module", autouse=True)
def defined(town: Town) -> None:
    up = town.upstreams
    up.scripts.update({"good": says(lambda text: ["go", "od"]), "quotes": quoting()})
    keyed = {"secret": "env:KEY_FIRST"}
    town.define(
        tenant(TENANT),
        {"kind": "user", "name": ANN, "spec": {"tenant": TENANT}},
        *(
            connection(f"secrets-{vendor}", up, type=vendor, **keyed, **more)
            for vendor, more in VENDORS.items()
        ),
        connection("secrets-second", up, type="anthropic", secret="env:KEY_SECOND"),
        connection("secrets-none", up, secret="env:KEY_OF_NOBODY"),
        connection("secrets-metadata", up, url="http://169.254.169.254/v1", private=False),
        connection("secrets-loopback", up, private=False),
        *(
            endpoint(f"secrets-{vendor}", way("a", f"secrets-{vendor}", MODELS.get(vendor, "good")))
            for vendor in VENDORS
        ),
        endpoint(
            "secrets-over",
            way("a", "secrets-openai", "fails"),
            way("b", "secrets-second", "is well"),
        ),
        endpoint("secrets-quoted", way("a", "secrets-openai", "quotes")),
        endpoint("secrets-missing", way("a", "secrets-none", "good")),
        endpoint("secrets-metadata", way("a", "secrets-metadata", "good")),
        endpoint("secrets-loopback", way("a", "secrets-loopback", "good")),
    )


@pytest.fixture
async def caller(town: Town) -> AsyncIterator[Caller]:
    async with town.caller(TENANT) as caller:
        yield caller


def headers_of(call: Call) -> set[str]:
    return {line.split(b": ")[0].decode().lower() for line in call.headers.splitlines()}


@pytest.mark.parametrize("vendor", sorted(VENDORS))
async def test_a_provider_is_sent_its_own_key_and_nothing_of_the_callers(
    town: Town, caller: Caller, vendor: str
) -> None:
    tags = {"x-custom-host": "http://169.254.169.254", "authorization": "Bearer of-the-caller"}
    messages = (Message(role=Role.USER, content="say it"),)
    heard = await caller.ask(f"secrets-{vendor}", messages=messages, tags=tags, principal=ANN)
    assert heard.reason is None, heard.refusal
    call = town.upstreams.to(f"secrets-{vendor}")[-1]
    assert call.raw.count(FIRST) == 1
    foreign = (SECOND, b"of-the-caller", b"169.254", ANN.encode(), b"cookie")
    assert all(word not in call.raw for word in foreign)
    # What OpenAI's library says of itself is no secret.
    assert {each for each in headers_of(call) if not each.startswith("x-stainless-")} <= {
        *("accept", "accept-encoding", "connection", "content-length", "content-type", "host"),
        *("user-agent", "authorization", "api-key", "x-api-key", "anthropic-version"),
    }


async def test_the_key_of_one_provider_is_not_sent_to_the_next(town: Town, caller: Caller) -> None:
    heard = await caller.ask("secrets-over")
    assert [name for name, _ in heard.routes] == ["a"]
    first, second = town.upstreams.to("secrets-openai")[-1], town.upstreams.to("secrets-second")[-1]
    assert (FIRST in first.raw, SECOND in first.raw) == (True, False)
    assert (FIRST in second.raw, SECOND in second.raw) == (False, True)


@pytest.mark.parametrize("where", ["loopback", "metadata"])
async def test_an_address_of_this_machine_is_not_called_where_that_is_not_allowed(
    town: Town, caller: Caller, where: str
) -> None:
    heard = await caller.ask(f"secrets-{where}")
    assert heard.refusal
    assert heard.reason is Reason.PROVIDER_FAILED
    assert "may not be called from here" in heard.refusal.message
    assert town.upstreams.to(f"secrets-{where}") == []


async def test_no_key_is_in_a_topic_a_table_a_refusal_or_a_log(town: Town, caller: Caller) -> None:
    heard = await caller.ask("secrets-quoted")
    assert heard.refusal
    assert heard.reason is Reason.PROVIDER_FAILED
    assert "sk-" not in str(heard.refusal)
    assert (await caller.ask("secrets-over")).reason is None
    missing = await caller.ask("secrets-missing")
    assert missing.refusal
    assert "KEY_OF_NOBODY" not in missing.refusal.message
    await asyncio.to_thread(town.row, missing.request.request_id)
    bus = town.bus
    await asyncio.to_thread(
        eventually, lambda: bus.lag("recorder", INFERENCE_RECORDED.name) == 0, 60, "the rows"
    )
    topics: list[Topic[Any]] = [
        *(AUDIT_RECORDED, CATALOG_CHANGED, DEAD_LETTERS, INFERENCE_ATTEMPTED, INFERENCE_PARTS),
        *(INFERENCE_COMPLETED, INFERENCE_RECORDED, INFERENCE_REFUSED, INFERENCE_REQUESTED),
        *(INFERENCE_ROUTED.member("outside"), REPLY.member(TENANT)),
    ]
    found = [
        topic.name
        for topic in topics
        for record in await asyncio.to_thread(bus.records, topic.name)
        if any(
            key in (record.value or b"") + repr(record.headers).encode() for key in (FIRST, SECOND)
        )
    ]
    assert found == []
    lake = town.stored()
    assert lake
    for text in (town.logs(), *lake.values()):
        assert FIRST not in text
        assert SECOND not in text

    def told() -> bool:
        used = [each for each in bus.events(AUDIT_RECORDED) if each.action == "secret.used"]
        return {each.name for each in used} >= {"env:KEY_FIRST", "env:KEY_SECOND"}

    await asyncio.to_thread(eventually, told, what="an entry for each secret")
