"""Restoring: the caller's own texts in an answer, whatever a model made of their placeholders."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.guards.jsontext import Balance, end_of, escaped
from streams.guards.restoring import Restorer, restored
from tests.unit.events import TEXT
from tests.unit.guarding import ADA, BOB

ONE = {"<EMAIL_ADDRESS_1>": ADA, "<EMAIL_ADDRESS>": ADA}
TWO = {"<EMAIL_ADDRESS_1>": ADA, "<EMAIL_ADDRESS_2>": BOB}
PEOPLE = {f"<PERSON_{number}>": f"Person no. {number}" for number in range(1, 12)}


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("<EMAIL_ADDRESS_1>", ADA),
        ("**<email_address_1>**", f"**{ADA}**"),
        ("`<Email_Address_1>`,", f"`{ADA}`,"),
        ("<EMAIL\\_ADDRESS\\_1>", ADA),
        ("<<EMAIL_ADDRESS_1>>", f"<{ADA}>"),
        ("<EMAIL_ADDRESS>", ADA),
        ("_<email\\_address>_", f"_{ADA}_"),
        ("<EMAIL_ADDRESS_2>", "<EMAIL_ADDRESS_2>"),
        ("<EMAIL_ADDRESS_01>", "<EMAIL_ADDRESS_01>"),
        ("<EMAIL_ADDRESS_11>", "<EMAIL_ADDRESS_11>"),
        ("<EMAIL_ADDRESS_1 >", "<EMAIL_ADDRESS_1 >"),
        ("EMAIL_ADDRESS_1", "EMAIL_ADDRESS_1"),
        ("<PERSON_1>", "<PERSON_1>"),
        ("<EMA\u0131L_ADDRESS_1>", "<EMA\u0131L_ADDRESS_1>"),
        ("<EMAIL_ADDRE\u017f\u017f_1>", "<EMAIL_ADDRE\u017f\u017f_1>"),
    ],
)
def test_a_placeholder_is_restored_where_it_is_certain(said: str, meant: str) -> None:
    assert restored(said, ONE) == meant


def test_a_placeholder_without_a_number_stays_where_it_may_mean_two() -> None:
    assert restored("<EMAIL_ADDRESS> <email_address_2>", TWO) == f"<EMAIL_ADDRESS> {BOB}"


def test_one_and_ten_and_eleven_are_three() -> None:
    said = "<PERSON_1> <PERSON_10> <PERSON_11> <PERSON_111>"
    meant = "Person no. 1 Person no. 10 Person no. 11 <PERSON_111>"
    assert restored(said, PEOPLE) == meant


def test_what_is_restored_is_not_restored_again() -> None:
    values = {"<PERSON_1>": "<PERSON_2>", "<PERSON_2>": "Bob"}
    assert restored("<PERSON_1> <PERSON_2>", values) == "<PERSON_2> Bob"


@pytest.mark.parametrize(
    "written",
    ["<PERSON_1>", "\\u003cPERSON_1\\u003e", "\\u003CPERSON\\u005f1>", "\\u003c\\u0050ERSON_1>"],
)
def test_in_json_it_is_restored_as_json_has_it(written: str) -> None:
    value = 'Ada "the" L\\ \n\u2028é🙂'
    said = f'{{"to":"x \\" {written}\\n","n":1}}'
    after = restored(said, {"<PERSON_1>": value}, json=True)
    assert json.loads(after) == {"to": f'x " {value}\n', "n": 1}


def test_an_escaped_backslash_before_it_makes_it_no_escape() -> None:
    said = '{"to":"\\\\u003cPERSON_1>"}'
    assert restored(said, {"<PERSON_1>": "Ada"}, json=True) == said


def test_half_a_character_is_restored_as_something_that_can_be_sent() -> None:
    values = {"<PERSON_1>": "\ud83d"}
    assert restored("<PERSON_1>", values) == "?"
    assert restored('{"a":"<PERSON_1>"}', values, json=True) == '{"a":"\\ud83d"}'


PIECES = st.sampled_from(
    [
        *("<PERSON_1>", "<person_1", ">", "<PERSON_10>", "<", "PERSON", "_", "1", "\\_", "\\u003c"),
        *("\\u003e", "\\", "u00", "3c", '"', "\\\\", "{", "}", "🙂", "x", "\\ud83d\\ude42"),
    ]
)


@settings(max_examples=400)
@given(
    pieces=st.lists(PIECES, max_size=12),
    cuts=st.lists(st.integers(0, 80), max_size=8),
    is_json=st.booleans(),
)
def test_it_is_restored_the_same_however_it_is_cut(
    pieces: list[str], cuts: list[int], is_json: bool
) -> None:
    values = {"<PERSON_1>": 'A"', "<PERSON_10>": "B"}
    text = "".join(pieces)
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    restorer = Restorer(values, json=is_json)
    shown = "".join(restorer.feed(text[start:end]) for start, end in pairwise(places))
    assert shown + restorer.finish() == restored(text, values, json=is_json)


@settings(max_examples=400)
@given(text=st.lists(PIECES | TEXT, max_size=12).map("".join))
def test_without_values_any_text_is_what_it_was(text: str) -> None:
    assert restored(text, {}) == text
    assert restored(text, {"<OTHER_1>": "x"}) == text
    assert restored(text, {"<OTHER_1>": "x"}, json=True) == text


@given(value=st.dictionaries(TEXT, TEXT | st.lists(TEXT)), tail=TEXT, cut=st.integers(0, 200))
def test_json_in_pieces_ends_where_it_does_in_one(
    value: dict[str, object], tail: str, cut: int
) -> None:
    said = json.dumps(value)
    text = f" {said}{tail}"
    cut %= len(text) + 1
    balance = Balance()
    first = balance.end_in(text[:cut])
    if first is None:
        end = balance.end_in(text[cut:])
        assert end is not None
        first = cut + end
    assert first == len(said) + 1 == end_of(text)


@given(TEXT)
def test_a_text_stands_in_a_string_of_json(text: str) -> None:
    assert json.loads(f'"{escaped(text)}"') == text
