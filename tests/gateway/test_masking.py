"""Personal data that a model does not see and its caller does, over the bus and HTTP."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import AsyncIterator

import pytest

from schemas.events import Tool
from tests.contract.misbehaving import byte_by_byte, delivered
from tests.contract.openai_servers import chunks
from tests.gateway.town import (
    IN,
    Caller,
    Heard,
    Town,
    connection,
    endpoint,
    masks,
    policy,
    tenant,
    way,
)
from tests.gateway.upstreams import calls, says
from tests.harness import soon

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

TENANT = "masking"
ADA, BOB = "ada@example.com", "bob@example.com"
MARK = "<EMAIL_ADDRESS_1>"
PLACEHOLDER = re.compile(r"<[A-Z_]+_[0-9]+>")
SEND = Tool(name="send", parameters='{"type": "object", "properties": {"to": {"type": "string"}}}')
PEOPLE = (
    *("Anna Schmidt", "Peter Weber", "Maria Rossi", "John Smith", "Laura Garcia", "Hans Becker"),
    *("Julia Meyer", "Thomas Wagner", "Sarah Johnson", "David Brown", "Emma Wilson"),
)
ORDINARY = (
    "id 110bcd25-a55d-453a-8046-1297901ea002 at 2026-11-25T06:22:33.123456Z, order 6033391, "
    "version 1.2.3.4567 of build 10.4.1.2, ISBN 978-3-16-148410-0, commit "
    "3f786850e387550fdab836ed7e6dc881de23001b, card 4111 1111 1111 1112"
)


def cut_in_two(text: str) -> tuple[str, str]:
    """Cuts a text where it says itself, by its first word."""
    at = int(text.split(" ", maxsplit=1)[0])
    return text[:at], text[at:]


def to_whom(text: str) -> str:
    return json.dumps({"to": PLACEHOLDER.findall(text)[0], "subject": 'é "a" <b>'})


@pytest.fixture(scope="module", autouse=True)
def defined(town: Town) -> None:
    draw = random.Random(7)
    scripts = {
        "as-it-is": says(lambda text: [text]),
        "by-byte": delivered(chunks, byte_by_byte),
        "by-case": says(lambda text: ["**<email_addr", "ess_1>** and <EMAIL_ADDRESS>"]),
        "by-character": says(list),
        "by-people": says(lambda text: ["<PERSON_1> <PERSON_10> ", "<PERSON_11>"]),
        "calling": calls(to_whom),
        "cut": says(cut_in_two, gap_s=0.02),
        "cut-card": says(lambda text: ["card 4111 11", "11 1111 1111 is there"], gap_s=0.02),
        "late": says(lambda text: [text[:20], text[20:]], gap_s=lambda: draw.random() / 20),
        "odd": says(lambda text: ["a < b and <b>bo", "ld</b> <PERS", "ON"]),
        "slow": says(lambda text: ["so on "] * 64, gap_s=0.02),
    }
    town.upstreams.scripts.update(scripts)
    kinds = ("CREDIT_CARD", "EMAIL_ADDRESS", "IP_ADDRESS", "PERSON", "PHONE_NUMBER")
    town.define(
        tenant(TENANT),
        policy("masking", masks(*kinds)),
        policy("asking", masks(*kinds, on=["input"])),
        policy("hiding", masks(*kinds, deal="mask")),
        connection("masking", town.upstreams),
        *(
            endpoint(name, way("a", "masking", name), policies=[f"{IN}.masking"])
            for name in scripts
        ),
        endpoint("asking", way("a", "masking", "slow"), policies=[f"{IN}.asking"]),
        endpoint("hiding", way("a", "masking", "as-it-is"), policies=[f"{IN}.hiding"]),
    )


@pytest.fixture
async def caller(town: Town) -> AsyncIterator[Caller]:
    async with town.caller(TENANT) as caller:
        yield caller


def received(town: Town, model: str) -> str:
    """Returns what was said to a model, as its provider reads it."""
    bodies = [each.form for each in town.upstreams.to("masking")]
    return json.dumps([body for body in bodies if body["model"] == model], ensure_ascii=False)


def restored(heard: Heard, text: str) -> None:
    assert heard.text == heard.shown == text
    assert not any("<" in part.content for part in heard.parts)


@pytest.mark.parametrize("model", ["by-byte", "by-character"])
async def test_a_mail_is_never_upstream_and_whole_for_its_caller(
    town: Town, caller: Caller, model: str
) -> None:
    restored(await caller.stream(model, f"mail {ADA} now"), f"mail {ADA} now")
    said = received(town, model)
    assert MARK in said
    assert "ada@" not in said


async def test_a_placeholder_may_be_cut_anywhere(caller: Caller) -> None:
    texts = [f"{at:02} <{ADA}> and on" for at in range(3, 4 + len(f"<{MARK}>"))]
    for text, heard in zip(
        texts, await asyncio.gather(*(caller.stream("cut", text) for text in texts)), strict=True
    ):
        assert heard.text == heard.shown == text


async def test_what_only_looks_like_a_placeholder_arrives_as_it_was_said(caller: Caller) -> None:
    heard = await caller.stream("odd", f"mail {ADA}, says Mike Miller")
    assert heard.text == heard.shown == "a < b and <b>bold</b> <PERSON"


async def test_no_more_is_held_back_of_a_stream_than_what_may_be_masked_in_it(
    caller: Caller,
) -> None:
    # Of what is only put back, a piece waits; what may be somebody's data waits for the next words.
    for name, held in (("asking", 1), ("slow", 5)):
        # What else runs on the machine may hold up some pieces: one answer says what is possible.
        async def flows(name: str = name, held: int = held) -> bool:
            heard = await caller.stream(name, f"mail {ADA}")
            assert heard.shown == "so on " * 64
            visible = [at for at, part in enumerate(heard.parts) if part.content]
            assert visible[0] <= held
            # It is shown while more than half of it is still to be said.
            shown = heard.times[visible[0] :]
            return len(visible) > 30 and shown[-1] - shown[0] > 0.65

        await soon(flows, what=f"that {name} is shown as it comes")


async def test_arguments_of_a_call_in_pieces_are_json_with_what_was_masked(caller: Caller) -> None:
    # The whole may come before its pieces, and then none of them is heard: once they were.
    async def comes_in_pieces() -> bool:
        heard = await caller.stream("calling", f"write to {ADA}", tools=(SEND,))
        assert heard.whole
        [call] = heard.whole.tool_calls
        assert json.loads(call.arguments) == {"to": ADA, "subject": 'é "a" <b>'}
        assert (call.id, call.name) == ("call_1", "send")
        pieces = [piece for part in heard.parts for piece in part.tool_calls]
        if not pieces:
            return False
        assert {piece.index for piece in pieces} == {0}
        assert "".join(piece.id for piece in pieces) == "call_1"
        assert "".join(piece.name for piece in pieces) == "send"
        shown = "".join(piece.arguments for piece in pieces)
        assert call.arguments.startswith(shown)
        assert "<EMAIL" not in shown
        return True

    await soon(comes_in_pieces, 60, "a call in pieces")


async def test_a_name_is_restored_exactly(town: Town, caller: Caller) -> None:
    text = "Mike. What is my name?"
    restored(await caller.stream("as-it-is", text), text)
    assert "<PERSON_1>. What is my name?" in received(town, "as-it-is")


async def test_the_same_value_has_the_same_placeholder_in_all_of_a_conversation(
    town: Town, caller: Caller
) -> None:
    await caller.ask("as-it-is", f"{ADA} {ADA} {BOB}", f"again {ADA}, then {BOB} and {ADA}")
    said = json.dumps(town.upstreams.to("masking")[-1].form["messages"])
    assert PLACEHOLDER.findall(said).count(MARK) == 4
    assert PLACEHOLDER.findall(said).count("<EMAIL_ADDRESS_2>") == 2


async def test_of_two_hundred_pairs_at_once_nobody_hears_of_the_other(town: Town) -> None:
    async with town.caller(TENANT) as one, town.caller(TENANT) as other:
        callers = (one, other)
        texts = [f"write to person.{number}@example.com, please" for number in range(400)]
        heard = await asyncio.gather(
            *(callers[at % 2].stream("late", text) for at, text in enumerate(texts))
        )
    assert [(each.text, each.shown) for each in heard] == [(text, text) for text in texts]
    assert "person." not in received(town, "late")


async def test_the_first_of_eleven_people_is_not_taken_for_the_tenth(caller: Caller) -> None:
    heard = await caller.stream("by-people", f"Ask {', '.join(PEOPLE)}.")
    assert heard.text == heard.shown == f"{PEOPLE[0]} {PEOPLE[9]} {PEOPLE[10]}"


async def test_what_a_model_does_to_a_placeholder_is_undone_where_only_one_can_be_meant(
    caller: Caller,
) -> None:
    heard = await caller.stream("by-case", f"mail {ADA}")
    assert heard.text == heard.shown == f"**{ADA}** and {ADA}"
    heard = await caller.stream("by-case", f"mail {ADA} and {BOB}")
    assert heard.text == heard.shown == f"**{ADA}** and <EMAIL_ADDRESS>"


async def test_a_card_that_an_answer_gives_in_two_parts_is_masked_in_both(
    town: Town, caller: Caller
) -> None:
    heard = await caller.stream("cut-card", "which card?")
    # Restored means: the caller sees what is its own; what a model made up is recorded masked.
    assert heard.text == heard.shown
    row = await asyncio.to_thread(town.row, heard.request.request_id)
    assert "4111" not in (row.response or "")


async def test_behind_emoji_and_marks_that_combine_it_is_still_the_entity_that_is_masked(
    town: Town, caller: Caller
) -> None:
    card = "4111 1111 1111 1111"
    text = f"👩🏽‍🚀 e\u0301 Ada's card is {card}, again {card} 🙂 to {ADA}"
    restored(await caller.stream("as-it-is", text), text)
    masked = text.replace(card, "<CREDIT_CARD_1>").replace(ADA, MARK)
    assert masked in received(town, "as-it-is")
    heard = await caller.ask("hiding", text)
    assert heard.text == masked


async def test_numbers_that_are_no_personal_data_arrive_as_they_are(
    town: Town, caller: Caller
) -> None:
    restored(await caller.stream("as-it-is", ORDINARY), ORDINARY)
    assert ORDINARY in received(town, "as-it-is")
