"""What is personal data and what is not, as an upstream gets it: by form, and at length."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Any, get_args

import pytest

from schemas.policies import Entity
from tests.contract.misbehaving import byte_by_byte, delivered, packed
from tests.contract.openai_servers import chunks
from tests.gateway.town import (
    IN,
    Caller,
    Town,
    connection,
    endpoint,
    masks,
    policy,
    tenant,
    way,
)
from tests.gateway.upstreams import says
from tests.harness import soon

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

TENANT = "forms"
ADA = "ada@example.com"
WEATHER = "北京今天多云🙂 and 👩🏽‍🚀 e\u0301"
ORDINARY = (
    "110bcd25-a55d-453a-8046-1297901ea002",
    "2026-11-25T06:22:33.123456Z",
    "1732515753123",
    "trace 4bf92f3577b34da6a3ce929d0e0e4736",
    "commit 3f786850e387550fdab836ed7e6dc881de23001b",
    "v1.2.3.4567",
    "build 10.4.1.2 of version 1.2.3.4",
    "S3 EKS C4 H1 D3 m2",
    "INTRODUCTORY",
    "order 6033391",
    "sha512-0UPjpq0G+v2RnNzZ4111111111111111kQ/Mike+Bob==",
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAUA4111AAAFCAYAAACNbyblAAAAHElEQVQI12P4",
    "chatcmpl-9aBcD4kQ2LmN8xYz",
    "call_abc123DEF456ghi789",
    "ISBN 978-3-16-148410-0 and 9783161484100",
    "4111 1111 1111 1112",
)
# A text, what of it must not go on, and what stands there instead.
PERSONAL = {
    "a card": ("pay with 4111 1111 1111 1111 now", "4111 1111 1111 1111", "<CREDIT_CARD_1>"),
    "a card in one": ("4111111111111111", "4111111111111111", "<CREDIT_CARD_1>"),
    "a mail in a link": (f"https://a.example/?m={ADA}&n=1", ADA, "<EMAIL_ADDRESS_1>"),
    "a mail in JSON": (json.dumps({"to": ADA}), ADA, "<EMAIL_ADDRESS_1>"),
    "a mail with a tag": ("ada+tag@example.com", "ada+tag@example.com", "<EMAIL_ADDRESS_1>"),
    "a number of a bank": (
        "to DE89370400440532013000",
        "DE89370400440532013000",
        "<IBAN_CODE_1>",
    ),
    "a number of IPv6": (
        "ping 2001:db8::8a2e:370:7334",
        "2001:db8::8a2e:370:7334",
        "<IP_ADDRESS_1>",
    ),
    "a number of social security": ("mine is 078-05-1120", "078-05-1120", "<US_SSN_1>"),
    "a telephone": ("call +49 30 1234567", "+49 30 1234567", "<PHONE_NUMBER_1>"),
}


def escaped(body: dict[str, Any]) -> list[bytes]:
    """Returns the frames of an answer in which JSON escapes what stands in angle brackets."""
    frames = chunks(body)
    assert any(b"<" in frame for frame in frames)
    return [frame.replace(b"<", b"\\u003c").replace(b">", b"\\u003e") for frame in frames]


@pytest.fixture(scope="module", autouse=True)
def defined(town: Town) -> None:
    scripts = {
        "as-it-is": says(lambda text: [text]),
        "by-byte": delivered(chunks, byte_by_byte),
        "escaped-by-byte": delivered(escaped, byte_by_byte),
        "packed": delivered(chunks, packed, **{"Content-Encoding": "gzip"}),
        "short": says(lambda text: [text[-20:]]),
    }
    town.upstreams.scripts.update(scripts)
    town.define(
        tenant(TENANT),
        policy("forms", masks(*get_args(Entity))),
        connection("forms", town.upstreams),
        *(
            endpoint(f"forms-{name}", way("a", "forms", name), policies=[f"{IN}.forms"])
            for name in scripts
        ),
        endpoint("forms-plain", way("a", "forms", "packed")),
    )


@pytest.fixture
async def caller(town: Town) -> AsyncIterator[Caller]:
    async with town.caller(TENANT) as caller:
        yield caller


def received(town: Town) -> str:
    """Returns the last words that the upstream was sent."""
    content: str = town.upstreams.to("forms")[-1].form["messages"][-1]["content"]
    return content


@pytest.mark.parametrize("text", ORDINARY)
async def test_what_only_looks_like_personal_data_arrives_as_it_is(
    town: Town, caller: Caller, text: str
) -> None:
    heard = await caller.ask("forms-as-it-is", text)
    assert (received(town), heard.text) == (text, text)


@pytest.mark.parametrize("name", sorted(PERSONAL))
async def test_personal_data_is_withheld_whatever_its_form(
    town: Town, caller: Caller, name: str
) -> None:
    text, value, placeholder = PERSONAL[name]
    heard = await caller.stream("forms-as-it-is", text)
    assert received(town) == text.replace(value, placeholder)
    assert heard.text == heard.shown == text


async def test_of_what_overlaps_nothing_goes_on_and_all_comes_back(
    town: Town, caller: Caller
) -> None:
    # A name that is told by itself, and that is part of an address, too.
    text = "Ada Lovelace is at Ada Lovelace@example.com, Ada.Lovelace@example.com"
    heard = await caller.ask("forms-as-it-is", "I am Ada Lovelace.", text)
    assert b"Lovelace" not in town.upstreams.to("forms")[-1].body
    assert heard.text == text


@pytest.mark.parametrize("model", ["by-byte", "escaped-by-byte"])
async def test_a_placeholder_is_restored_though_every_byte_of_it_comes_alone(
    town: Town, caller: Caller, model: str
) -> None:
    text = f"mail <{ADA}> and {WEATHER}"
    heard = await caller.stream(f"forms-{model}", text)
    assert "<<EMAIL_ADDRESS_1>>" in received(town)
    assert heard.text == heard.shown == text


async def test_a_packed_stream_is_asked_for_or_unpacked_as_it_comes(
    town: Town, caller: Caller
) -> None:
    words = " ".join(["北京今天多云🙂"] * 20)

    # What else runs on the machine may hold up some pieces: one answer says what is possible.
    async def comes_in_pieces() -> bool:
        heard = await caller.stream("forms-plain", words)
        assert heard.text == heard.shown == words
        pieces = [part for part in heard.parts if part.content]
        return len(pieces) > 10 and heard.times[-1] - heard.times[0] > 0.2

    await soon(comes_in_pieces, what="an answer in pieces")


async def test_a_prompt_of_five_thousand_mails_is_masked_and_answered_in_time(
    town: Town, caller: Caller
) -> None:
    mails = (f"Mail user.{number}@example.com about this and that." for number in range(5000))
    text = (" and so on, as it was said and agreed upon before in all the letters, ").join(mails)
    text = text[: 1024 * 1000]
    took = []
    for _ in range(2):
        began = time.monotonic()
        heard = await caller.ask("forms-short", text)
        took.append(time.monotonic() - began)
        assert heard.text == text[-20:]
    assert "user." not in received(town)
    assert "<EMAIL_ADDRESS_5000>" in received(town)
    print(f"{len(text)} characters in {min(took):.2f} s")
    assert min(took) < 60
