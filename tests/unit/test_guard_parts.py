"""Parts of an answer: however they are cut, they come to what the whole comes to."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from itertools import pairwise
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.events import Completion, Delta, Reason, Refusal, ToolCallDelta
from schemas.policies import Entity
from streams.guards import PartGuard, Released, holds_all, holds_parts
from tests.pii.sentences import judged
from tests.unit.guarding import (
    ADA,
    BOB,
    RESTORE,
    SEAL,
    Policies,
    answer,
    cut,
    deltas,
    pii,
    policies,
    put_together,
    replied,
    sealed,
    streamed,
    whole,
)

CARD = "4111 1111 1111 1111"
TOKEN = "ghp_" + "a1B2" * 9
VALUES = {"<EMAIL_ADDRESS_1>": ADA, "<PERSON_1>": 'Ada "the" L\\', "<PERSON_10>": "Björn 🙂"}
NONE: Policies = []
WORDS = policies({"type": "keywords", "words": ["forbidden", "credit card", "C++"]})
STRICT = policies(
    {"type": "keywords", "words": ["forbidden", "credit card", "北京"]},
    {"type": "regex", "patterns": [r"PROJ-\d+", r"^top", r"end$"], "action": "mask"},
    {"type": "secrets"},
    pii(CREDIT_CARD="mask", EMAIL_ADDRESS="restore", PHONE_NUMBER="mask", IBAN_CODE="block"),
)
STRICT_BUT_REGEX = [
    (name, spec.model_copy(update={"rules": spec.rules[:1] + spec.rules[2:]}))
    for name, spec in STRICT
]
HIDING = policies(
    {"type": "keywords", "words": ["forbidden", "credit card"]},
    {"type": "regex", "patterns": [r"PROJ-\d+"], "action": "mask"},
    {"type": "secrets"},
    pii(CREDIT_CARD="mask"),
)
LENGTH = policies({"type": "length", "most_characters": 40, "on": ["output", "tools"]})
SCHEMA = policies({"type": "json_schema", "json_schema": {"type": "object"}})
ALL_POLICIES = [NONE, RESTORE, WORDS, STRICT, LENGTH, SCHEMA]

FRAGMENTS = st.sampled_from(
    [
        *("<EMAIL_ADDRESS_1>", "**<email_address_1>**", "<PERSON_1>", "<PERSON_10>", "<PERSON_11>"),
        *("<EMAIL\\_ADDRESS\\_1>", "<PERSON>", "<PERSON", "<", ">", "a < b and <b>bold</b>"),
        *("\\u003cPERSON_1\\u003e", "\\\\u003c", "\\u003CPERSON\\u005f10>", "\\", '"', '\\"'),
        *(ADA, CARD, "4111 1111 1111 1112", TOKEN, "DE89 3704 0044 0532 0130 00", "AKIA"),
        *("+49 30 1234567", "call me at 030 1234567", "PROJ-12", "PROJ-", "top", "end"),
        *("forbidden", "forbid", "den", "credit  card", "credit", " card", "C++", "北京今天多云🙂"),
        *("{", "}", "[", "]", '{"to": "', '", "n": ', "12345678", ": ", ",", "[1, 2]", "null"),
        *(
            " ",
            "\n",
            "e\u0301",
            "x",
            "The answer is ",
            "plain words. ",
            "-----BEGIN PRIVATE KEY-----",
        ),
        *("abc", "-----END PRIVATE KEY-----", "https://ada:pa55word@example.com/"),
    ]
)
TEXTS = st.lists(FRAGMENTS, max_size=9).map("".join)
VALID = st.dictionaries(TEXTS, TEXTS | st.lists(TEXTS, max_size=2) | st.integers(), max_size=3).map(
    json.dumps
)

many = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))


def pieces(text: str, cuts: list[int]) -> list[str]:
    places = sorted({0, len(text), *(each % (len(text) + 1) for each in cuts)})
    return [text[start:end] for start, end in pairwise(places)]


def same(completion: Completion, parts: list[Delta], held_to: Policies) -> None:
    """Parts and whole are refused alike, or the caller sees the same of both."""
    asked = sealed(VALUES)
    released = whole(completion, asked, held_to)
    seen, refusal = streamed(parts, asked, held_to)
    if isinstance(released, Refusal):
        assert refusal is not None
        assert refusal.reason is released.reason
    else:
        assert refusal is None
        assert put_together(seen, completion) == replace(released.reply, logprobs=())


@many
@given(text=TEXTS | VALID, cuts=st.lists(st.integers(0, 400), max_size=30), which=st.integers(0, 5))
def test_content_comes_to_the_same_however_it_is_cut(
    text: str, cuts: list[int], which: int
) -> None:
    parts = [Delta(content=piece) for piece in pieces(text, cuts)]
    same(answer(text), parts, ALL_POLICIES[which])


@many
@given(
    texts=st.lists(VALID | TEXTS, min_size=1, max_size=3),
    cuts=st.lists(st.integers(0, 400), max_size=30),
    which=st.integers(0, 5),
)
def test_arguments_of_several_calls_come_to_the_same_however_they_are_cut(
    texts: list[str], cuts: list[int], which: int
) -> None:
    completion = answer("", *texts)
    cutting = [
        Delta(tool_calls=(ToolCallDelta(index=index, arguments=piece),))
        for index, text in enumerate(texts)
        for piece in pieces(text, cuts)
    ]
    # Pieces of different calls may come in turn.
    turns = sorted(cutting, key=lambda delta: len(delta.tool_calls[0].arguments) % 7)
    order = {index: [p for p in cutting if p.tool_calls[0].index == index] for index in range(3)}
    mixed = [order[each.tool_calls[0].index].pop(0) for each in turns]
    first = [
        Delta(tool_calls=(ToolCallDelta(index=index, id=call.id, name=call.name),))
        for index, call in enumerate(completion.tool_calls)
    ]
    same(completion, [*first, *mixed], ALL_POLICIES[which])


@many
@given(text=TEXTS, cuts=st.lists(st.integers(0, 400), max_size=30))
def test_what_is_refused_or_masked_is_never_seen_on_the_way(text: str, cuts: list[int]) -> None:
    seen, _ = streamed([Delta(content=each) for each in pieces(text, cuts)], sealed(VALUES), HIDING)
    shown = "".join(part.content for part in seen)
    alone = rf"(?<!\S)(?:forbidden|credit\s{{1,8}}card|{CARD}|{TOKEN}|PROJ-12)(?!\S)"
    assert not re.search(alone, shown)


@pytest.mark.parametrize("held_to", ALL_POLICIES[:5], ids=str)
def test_an_answer_comes_to_the_same_at_every_cut(held_to: Policies) -> None:
    text = f"Hi <PERSON_1>, mail **<email_address_1>** or {BOB}. Pay with {CARD}! a < b <PERSON_10"
    for place in range(len(text) + 1):
        same(answer(text), [Delta(content=text[:place]), Delta(content=text[place:])], held_to)
    same(answer(text), [Delta(content=each) for each in text], held_to)


def test_the_callers_own_text_comes_back_in_parts_of_one_character() -> None:
    seen, refusal = streamed(deltas(answer("mail <EMAIL_ADDRESS_1>, now"), 1), sealed(VALUES), NONE)
    assert refusal is None
    assert "".join(part.content for part in seen) == f"mail {ADA}, now"
    assert not any("<" in part.content for part in seen)


def test_what_only_looks_like_a_placeholder_comes_out_as_it_was() -> None:
    text = "a < b and <b>bold</b> <PERSON"
    for size in range(1, len(text) + 1):
        seen, _ = streamed(deltas(answer(text), size), sealed(VALUES), RESTORE)
        assert "".join(part.content for part in seen) == text


def test_plain_text_is_not_late() -> None:
    words = [f"{word} " for word in ("and", "so", "it", "went", "on", "from", "there") * 9]
    parts = [Delta(content=word) for word in words]
    restoring, _ = streamed(parts, sealed(VALUES), NONE)
    assert [part.content for part in restoring] == [*words, ""]
    guarded, _ = streamed(parts, sealed(VALUES), STRICT_BUT_REGEX)
    for at, _ in enumerate(words):
        late = "".join(words[: at + 1]).removeprefix("".join(p.content for p in guarded[: at + 1]))
        assert len(late) <= len(words[at])


def test_no_more_is_held_back_than_the_longest_placeholder_has() -> None:
    longest = max(len(name) + name.count("_") for name in VALUES)
    guard = PartGuard(NONE, SEAL, tenant="acme", request_id="request", sealed=sealed(VALUES).sealed)
    text = "<<EMAIL_ADDRES <EMAIL\\_ADDRESS\\_12 <PERSON_1000000000 <PERSON_" * 3
    told = 0
    for place, character in enumerate(text, 1):
        shown = guard.feed(Delta(content=character))
        assert isinstance(shown, Delta)
        told += len(shown.content)
        assert place - told <= longest


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
@pytest.mark.parametrize("written", ["<EMAIL_ADDRESS_1>", "\\u003cEMAIL_ADDRESS_1\\u003e"])
@pytest.mark.parametrize("held_to", [NONE, RESTORE], ids=["no policy", "a policy"])
def test_arguments_in_parts_are_json_with_the_callers_own_text(
    size: int, written: str, held_to: Policies
) -> None:
    completion = answer("", f'{{"to": "{written}", "n": [1]}}', '{"who": "<PERSON_1>"}')
    seen, refusal = streamed(deltas(completion, size), sealed(VALUES), held_to)
    assert refusal is None
    first, second = put_together(seen, completion).tool_calls
    assert (first.id, first.name, json.loads(first.arguments)) == (
        "call_0",
        "send",
        {"to": ADA, "n": [1]},
    )
    assert (second.id, json.loads(second.arguments)) == ("call_1", {"who": VALUES["<PERSON_1>"]})


def test_arguments_need_no_end_of_the_stream_to_be_whole() -> None:
    completion = answer("", '{"to": "<EMAIL_ADDRESS_1>"}')
    seen, _ = streamed(deltas(completion, 3), sealed(VALUES), RESTORE)
    assert seen[-1] == Delta()


@pytest.mark.parametrize("place", range(1, len("forbidden")))
def test_a_word_cut_in_two_is_refused_and_never_said(place: int) -> None:
    parts = [
        Delta(content=f"this is {'forbidden'[:place]}"),
        Delta(content=f"{'forbidden'[place:]} here"),
    ]
    seen, refusal = streamed(parts, sealed({}), WORDS)
    assert refusal is not None
    assert refusal.reason is Reason.POLICY_DENIED
    assert "forbid" not in refusal.message
    assert "".join(part.content for part in seen) == "this is "


@pytest.mark.parametrize("size", range(1, 20))
def test_a_card_number_in_pieces_is_masked(size: int) -> None:
    held_to = policies(pii(CREDIT_CARD="mask"))
    text = f"🙂 Pay e\u0301 with {CARD}, please. Not with 4111 1111 1111 1112."
    seen, refusal = streamed(deltas(answer(text), size), sealed({}), held_to)
    assert refusal is None
    assert "".join(part.content for part in seen) == text.replace(CARD, "[CREDIT_CARD]")


def test_a_secret_in_arguments_is_masked_and_they_stay_json() -> None:
    held_to = policies({"type": "secrets"})
    completion = answer("", json.dumps({"header": f'"{TOKEN}"', "n": 1}))
    seen, _ = streamed(deltas(completion, 4), sealed({}), held_to)
    [call] = put_together(seen, completion).tool_calls
    assert json.loads(call.arguments) == {"header": '"[SECRET]"', "n": 1}


def test_once_refused_nothing_more_is_shown() -> None:
    guard = PartGuard(WORDS, SEAL, tenant="acme", request_id="request", sealed=None)
    assert isinstance(guard.feed(Delta(content="forbidden ")), Refusal)
    assert isinstance(guard.feed(Delta(content="but this is fine ")), Refusal)
    assert isinstance(guard.finish(), Refusal)


def test_parts_of_another_tenants_request_are_refused() -> None:
    guard = PartGuard(
        NONE, SEAL, tenant="other", request_id="request", sealed=sealed(VALUES).sealed
    )
    refusal = guard.feed(Delta(content="mail <EMAIL_ADDRESS_1>"))
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.POLICY_FAILED
    assert ADA not in repr(refusal)


@pytest.mark.parametrize(
    ("held_to", "held"),
    [
        (NONE, False),
        (WORDS, True),
        (policies({"type": "keywords", "words": ["x"], "on": ["input"]}), False),
        (policies({"type": "keywords", "words": ["x"], "shadow": True}), False),
        (policies(pii(EMAIL_ADDRESS="none")), False),
    ],
)
def test_parts_go_through_release_only_where_something_is_done_to_them(
    held_to: Policies, held: bool
) -> None:
    assert holds_parts(held_to, None) is held
    assert holds_parts(held_to, b"sealed")


def test_requests_side_by_side_get_their_own_texts() -> None:
    guards, texts = [], []
    for number in range(200):
        mail = f"user{number}@example.com"
        opened = SEAL.seal("acme", f"request {number}", {"<EMAIL_ADDRESS_1>": mail})
        guards.append(
            PartGuard(RESTORE, SEAL, tenant="acme", request_id=f"request {number}", sealed=opened)
        )
        texts.append("")
    for piece in cut("write to <EMAIL_ADDRESS_1> today", 5):
        for number, guard in enumerate(guards):
            shown = guard.feed(Delta(content=piece))
            assert isinstance(shown, Delta)
            texts[number] += shown.content
    for number, guard in enumerate(guards):
        shown = guard.finish()
        assert isinstance(shown, Delta)
        assert texts[number] + shown.content == f"write to user{number}@example.com today"


def test_what_is_kept_never_holds_the_callers_own_text() -> None:
    completion = answer("mail <EMAIL_ADDRESS_1>", '{"to": "<EMAIL_ADDRESS_1>"}')
    released = whole(completion, sealed(VALUES), RESTORE)
    assert isinstance(released, Released)
    assert released.kept == completion
    assert released.reply == replied(completion, sealed(VALUES), NONE)
    assert ADA in released.reply.content


@pytest.mark.parametrize("size", [1, 4, 9])
def test_personal_data_of_all_kinds_is_masked_in_parts_as_in_the_whole(size: int) -> None:
    held_to = policies(pii(**dict.fromkeys(get_args(Entity), "mask")))
    sentences = [each.text for each in judged(360)]
    for at in range(0, len(sentences), 6):
        text = "\n".join(("Well:", *sentences[at : at + 6]))
        seen, refusal = streamed(deltas(answer(text), size), sealed({}), held_to)
        assert refusal is None
        shown = "".join(part.content for part in seen)
        assert shown == replied(answer(text), sealed({}), held_to).content


@pytest.mark.parametrize(
    "text", ["a1B2" * 20_000, "forbidde " * 9_000, f"-----BEGIN {CARD} " * 3_000]
)
def test_a_long_answer_in_small_parts_takes_time_that_grows_with_it(text: str) -> None:
    held_to = [*STRICT, *RESTORE]

    def seconds(length: int) -> float:
        parts, taken = deltas(answer(text[:length]), 4), []
        for _ in range(3):
            began = time.process_time()
            streamed(parts, sealed(VALUES), held_to)
            taken.append(time.process_time() - began)
        return min(taken)

    # Four times as long; what is quadratic would take sixteen times as long, each time.
    assert any(seconds(80_000) < 8 * seconds(20_000) for _ in range(5))


@pytest.mark.parametrize(
    ("rule", "held"),
    [
        ({"type": "judge", "endpoint": "a.b.judge", "on": ["output"]}, True),
        ({"type": "judge", "endpoint": "a.b.judge", "on": ["output"], "shadow": True}, False),
        ({"type": "judge", "endpoint": "a.b.judge", "on": ["input"]}, False),
        ({"type": "secrets"}, False),
    ],
)
def test_no_part_is_seen_of_what_others_are_asked_about(rule: dict[str, Any], held: bool) -> None:
    assert holds_all(policies(rule)) is held
