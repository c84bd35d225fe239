"""Masking: the same placeholders for the same texts, and nothing left of what they stand for."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.events import Message, Role, Tool
from streams.guards.found import Deal, Hit
from streams.guards.masking import Names, joined, masked
from streams.guards.restoring import restored
from streams.guards.views import Place, View, view
from tests.unit.asking import ask
from tests.unit.events import TEXT
from tests.unit.guarding import ADA, BOB, MASK, RESTORE, Policies, passed, pii, policies, said

NAMES = (
    *("Ada Miller", "Bob Smith", "Carol Jones", "David Brown", "Emma Wilson", "Frank Taylor"),
    *("Grace Johnson", "Henry Davis", "Irene Clark", "Jack Lewis", "Karen Walker"),
)


def contents(*texts: str, held_to: Policies = RESTORE) -> list[str]:
    return [message.content for message in passed(said(*texts), held_to).request.messages]


def test_the_same_text_has_one_placeholder_in_the_whole_conversation() -> None:
    assert contents(f"{ADA} {ADA} {BOB}", ADA) == [
        "<EMAIL_ADDRESS_1> <EMAIL_ADDRESS_1> <EMAIL_ADDRESS_2>",
        "<EMAIL_ADDRESS_1>",
    ]


def test_a_name_is_masked_as_it_was_said() -> None:
    guarded = passed(said("My name is Mike. What is my name?"))
    assert guarded.withheld == {"<PERSON_1>": "Mike", "<PERSON>": "Mike"}


def test_a_name_that_is_told_once_is_masked_wherever_it_stands() -> None:
    assert contents("Mike is late. Mike!", "My name is Mike.") == [
        "<PERSON_1> is late. <PERSON_1>!",
        "My name is <PERSON_1>.",
    ]


def test_placeholders_stay_as_a_conversation_grows() -> None:
    turns = [f"Write to {ADA}.", "Who?", f"To {BOB} and {ADA}.", "I am Mike Smith.", BOB]
    tool = Tool(name="send", description="like eve@example.com", parameters="{}")
    request = said(*turns)
    whole = passed(replace(request, tools=(tool,))).request.messages
    for length in range(1, len(turns) + 1):
        begun = replace(request, messages=request.messages[:length], tools=(tool,))
        assert passed(begun).request.messages == whole[:length]


def test_eleven_people_come_back_as_themselves() -> None:
    guarded = passed(said(*(f"My name is {name}." for name in NAMES)))
    answer = "<PERSON_1> <PERSON_10> <PERSON_11>"
    assert restored(answer, guarded.withheld) == f"{NAMES[0]} {NAMES[9]} {NAMES[10]}"


def test_what_the_caller_wrote_like_a_placeholder_stands_for_nothing() -> None:
    guarded = passed(said(f"Keep <email_address_1> and <EMAIL_ADDRESS>, mail {ADA}"))
    assert guarded.request.messages[0].content == (
        "Keep <email_address_1> and <EMAIL_ADDRESS>, mail <EMAIL_ADDRESS_2>"
    )
    assert guarded.withheld == {"<EMAIL_ADDRESS_2>": ADA}


def test_what_is_masked_for_good_keeps_its_number_when_it_was_told_before() -> None:
    again = ask(
        messages=(
            Message(role=Role.USER, content=ADA),
            Message(role=Role.ASSISTANT, content="I wrote to <EMAIL_ADDRESS_1>."),
        )
    )
    [first, second] = passed(again, MASK).request.messages
    assert (first.content, second) == ("<EMAIL_ADDRESS_1>", again.messages[1])


def test_a_placeholder_without_a_number_is_meant_only_where_there_is_one() -> None:
    assert "<EMAIL_ADDRESS>" in passed(said(ADA)).withheld
    assert "<EMAIL_ADDRESS>" not in passed(said(ADA, BOB)).withheld


def test_the_strictest_of_two_policies_wins() -> None:
    both = [*RESTORE, *MASK]
    guarded = passed(said(ADA), both)
    assert guarded.request.messages[0].content == "<EMAIL_ADDRESS_1>"
    assert guarded.sealed is None
    assert guarded.withheld == {}


def test_a_tenants_policy_and_the_endpoints_hold_together() -> None:
    cards = policies(pii(CREDIT_CARD="mask"))
    text = f"{ADA} 4111 1111 1111 1111"
    assert contents(text, held_to=[*RESTORE, *cards]) == ["<EMAIL_ADDRESS_1> <CREDIT_CARD_1>"]


def test_emoji_and_combining_marks_before_it_move_nothing() -> None:
    assert contents(f"👩‍👩‍👧 e\u0301\u0302 🙂{BOB}!") == [
        "👩‍👩‍👧 e\u0301\u0302 🙂<EMAIL_ADDRESS_1>!"
    ]


def test_of_two_that_overlap_nothing_is_left() -> None:
    text = "0123456789" * 3
    mail, person = Hit(6, 20, "EMAIL_ADDRESS", "restore"), Hit(0, 10, "PERSON", "restore")
    assert joined([mail, person]) == [Hit(0, 20, "EMAIL_ADDRESS", "restore")]
    names = Names([text], {"EMAIL_ADDRESS"})
    after = masked(view(text), joined([person, mail]), lambda place: named(names, place))
    assert after == f"<EMAIL_ADDRESS_1>{text[20:]}"
    assert restored(after, names.restorable()) == text


def test_what_is_masked_for_good_takes_in_what_it_overlaps() -> None:
    hits = [Hit(0, 20, "EMAIL_ADDRESS", "restore"), Hit(18, 22, "SECRET", "mask")]
    assert joined(hits) == [Hit(0, 22, "SECRET", "mask")]


def named(names: Names, place: Place) -> str:
    return names.name(place.kind, place.said, restore=place.deal == "restore")


LIKE = st.sampled_from(
    ["<A_1>", "<a_2>", "<A>", "<B_1", "_1>", "<", ">", "<A\\_1>", "<B_2>", "<B>"]
)
TEXTS = st.lists(LIKE | TEXT, max_size=8).map("".join)


@st.composite
def hit_texts(draw: st.DrawFn) -> tuple[str, list[Hit]]:
    text = draw(TEXTS)
    place = st.integers(0, len(text))
    pairs = draw(st.lists(st.tuples(place, place, st.sampled_from("AB")), max_size=5))
    deals: list[Deal] = ["restore"]
    hits = [
        Hit(min(a, b), max(a, b), kind, draw(st.sampled_from(deals)))
        for a, b, kind in pairs
        if a != b
    ]
    return text, hits


@settings(max_examples=500, deadline=None)
@given(hit_texts())
def test_what_is_masked_and_restored_is_what_it_was(drawn: tuple[str, list[Hit]]) -> None:
    text, hits = drawn
    one = joined(hits)
    assert all(first.end <= second.start for first, second in pairwise(one))
    covered = {at for hit in hits for at in range(hit.start, hit.end)}
    assert {at for hit in one for at in range(hit.start, hit.end)} == covered
    names = Names([text], {"A", "B"})
    after = masked(View.rest(text), one, lambda place: named(names, place))
    assert restored(after, names.restorable()) == text


@settings(max_examples=100, deadline=None)
@given(mails=st.lists(st.from_regex(r"[a-z]{3,8}[0-9]{1,3}@[a-z]{3,8}\.com", fullmatch=True)))
def test_nothing_of_the_originals_goes_on(mails: list[str]) -> None:
    texts = [f"please write to {mail}, and ({mail})" for mail in mails]
    guarded = passed(said(*texts, "x"))
    assert not any(mail in repr(guarded.request) for mail in mails)
    back = [restored(m.content, guarded.withheld) for m in guarded.request.messages]
    assert back == [*texts, "x"]


@pytest.mark.parametrize("repeated", [False, True])
def test_a_long_prompt_takes_time_that_grows_with_it_and_no_faster(repeated: bool) -> None:
    def seconds(count: int) -> float:
        mails = (f"Mail user.{0 if repeated else at}@example.com about it" for at in range(count))
        request = said(" and so on, as it was said and agreed upon before. ".join(mails) + "x" * 4)
        taken = []
        for _ in range(3):
            began = time.process_time()
            passed(request)
            taken.append(time.process_time() - began)
        return min(taken)

    seconds(10)
    # Four times as long; what is quadratic would take sixteen times as long, each time.
    assert any(seconds(5_000) < 7 * seconds(1_250) for _ in range(5))
    assert seconds(5_000) < 3.0
