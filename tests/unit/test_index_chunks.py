"""Texts are cut where the definition says, and nothing of them is lost."""

from __future__ import annotations

import doctest
from itertools import accumulate, pairwise
from time import process_time
from types import ModuleType

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from infra.documents import chunks, headings, sentences
from infra.documents.chunks import Piece, pieces
from infra.documents.headings import sections
from infra.tokens import count
from schemas.indexes import Chunking

WAYS = ("heading", "sentence", "tokens")
FAMILY = "👩‍👩‍👧"
FLAG = "🇩🇪"

# What a cut may break: marks, joined pictures, flags, fences, line ends, runs without a space.
PARTS = [
    "one two three", " ", "\n", "\n\n", "\r\n", ". ", "! ", "世界", "。", "e\u0301\u0302", FAMILY,
    FLAG, "\n# Title\n", "\n## Part #\n", "\n```\n", "\n~~~ sh\n", "# no", "Dr. Who", "3.14",
    "a" * 40, "\n===\n", "\n---\n", "한국어", "नमस्ते", "\u200d", "\x00", "?!?",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(PARTS) | st.text(max_size=5), max_size=40).map("".join)
CHUNKINGS = st.builds(
    Chunking,
    by=st.sampled_from(WAYS),
    size=st.sampled_from([16, 17, 40]),
    overlap=st.sampled_from([0, 1, 8, 16]),
)


def cut(text: str, by: str, size: int = 16, overlap: int = 0) -> list[Piece]:
    return list(pieces(text, Chunking.model_validate({"by": by, "size": size, "overlap": overlap})))


@given(TEXTS, CHUNKINGS)
def test_pieces_joined_are_the_text(text: str, chunking: Chunking) -> None:
    found = list(pieces(text, chunking))
    assert "".join(piece.body for piece in found) == text
    assert all(piece.body for piece in found)


@given(TEXTS, CHUNKINGS)
def test_no_piece_has_more_tokens_than_it_may(text: str, chunking: Chunking) -> None:
    assert all(count(piece.text) <= chunking.size for piece in pieces(text, chunking))


@given(TEXTS, CHUNKINGS)
def test_a_piece_ends_where_a_character_does(text: str, chunking: Chunking) -> None:
    borders = {0, *(found.end() for found in regex.finditer(r"\X", text))}
    end = 0
    for piece in pieces(text, chunking):
        end += len(piece.body)
        character = regex.match(r"\X", piece.body)
        # One that is larger than a piece is cut all the same.
        assert end in borders or (character and count(character[0]) > chunking.size // 2)


@given(TEXTS, st.sampled_from(["heading", "sentence"]))
def test_what_is_appended_changes_no_piece_but_the_last(text: str, by: str) -> None:
    before, after = cut(text, by), cut(f"{text}\n\nAnd more. Much more.", by)
    # What is appended may belong to the last sentence, which is cut by its tokens if it is long.
    last = len(text) - len(next(reversed(list(sentences.sentences(text))), ""))
    ends = accumulate(len(piece.body) for piece in before[:-1])
    kept = before[: sum(end <= last for end in ends)]
    assert after[: len(kept)] == kept


def test_a_changed_section_changes_no_other() -> None:
    text = "# A\n\n{}\n\n# B\n\nstays\n\n## C\n\nstays, too\n"
    before, after = (
        cut(text.format(body), "heading") for body in ("short", "A much longer one. " * 9)
    )
    assert len(after) > len(before)
    assert after[-2:] == before[-2:]


def test_overlaps_repeat_the_end_of_the_piece_before() -> None:
    text = " ".join(f"word{number}" for number in range(200))
    found = cut(text, "tokens", size=32, overlap=8)
    for before, after in pairwise(found):
        assert before.text.endswith(after.lead)
        assert 0 < count(after.lead) <= 8
    assert len(found) > 5


def test_a_text_that_fits_is_one_piece() -> None:
    assert [cut("A short one.", by) for by in WAYS] == [[Piece("", "A short one.")]] * 3
    assert [cut("", by) for by in (*WAYS, "none")] == [[]] * 4
    long = "word " * 1_000
    assert cut(long, "none") == [Piece("", long)]


def test_sentences_are_packed_as_far_as_they_have_room() -> None:
    text = "The first is here. The second as well! Is this really the third one? A fourth."
    assert [piece.text for piece in cut(text, "sentence")] == [
        "The first is here. The second as well!",
        " Is this really the third one? A fourth.",
    ]


@pytest.mark.parametrize(
    "sentence",
    [
        "Mr. Smith met Dr. J. K. Jones on St. James St. at 5 p.m. with his dog.",
        "It costs 3.50 or 1.000,00 in the U.S. Bank, e.g. in No. 5 of Vol. 2 or so.",
        "Am 3. Mai kam er ca. 2 Std. zu spät, z.B. Montag.",
        "See https://models.example/a.b?c=d! for more.",
        "“What?” she asked… and left.",
        "Version 1.2.3 is out.",
    ],
)
def test_abbreviations_and_numbers_are_not_cut(sentence: str) -> None:
    assert list(sentences.sentences(f"{sentence} Next one.")) == [sentence, " Next one."]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("One. Two! Three? Four", ["One.", " Two!", " Three?", " Four"]),
        ("He said “Never.” Then he left.", ["He said “Never.”", " Then he left."]),
        ("It was 1999. Then came 2000.", ["It was 1999.", " Then came 2000."]),
        ("今日は。いい天気\uff01そうか\uff1f", ["今日は。", "いい天気\uff01", "そうか\uff1f"]),
        ("क्या हाल है? ठीक है। अच्छा", ["क्या हाल है?", " ठीक है।", " अच्छा"]),
        ("No stop\n \n\nNew one", ["No stop\n \n\n", "New one"]),
        ("Wait... What?! Yes.", ["Wait...", " What?!", " Yes."]),
    ],
)
def test_sentences_end_at_their_marks(text: str, parts: list[str]) -> None:
    assert list(sentences.sentences(text)) == parts


MARKDOWN = """\
Before all.

# Guide #

## Setup
Install it.

```sh
# not a heading
pip install it
```

    # nor this, it is code

~~~~
## nor this
~~~
# still inside
~~~~
> # a quote

Next part
---------
Text.

| a |
|---|
#hashtag
####### seven
# 
Nameless.
"""


def test_sections_follow_the_headings_outside_of_fences() -> None:
    found = list(sections(MARKDOWN))
    assert "".join(section.text for section in found) == MARKDOWN
    assert [section.path for section in found] == [
        (), ("Guide", "Setup"), ("Guide", "Next part"), ("",),
    ]  # fmt: skip
    assert found[1].text.startswith("# Guide #\n\n## Setup\n")
    assert found[1].text.endswith("> # a quote\n\n")


def test_each_piece_begins_with_its_headings() -> None:
    body = "This is a sentence of some words. " * 5
    found = cut(f"# Guide\n\n## Setup\n\n{body}", "heading", size=32)
    assert len(found) > 1
    assert {piece.lead for piece in found} == {"Guide > Setup\n\n"}


def test_headings_take_no_more_than_half_of_a_piece() -> None:
    found = cut(f"# {'very ' * 100}long\n\n{'word ' * 100}", "heading", size=32)
    assert all(count(piece.lead) <= 16 for piece in found)


MEGABYTE = 1_000_000
LARGE = {
    "a cluster of marks": ("tokens", "e" + "\u0301" * (MEGABYTE // 2)),
    "a heading with a gap": ("heading", "# a" + " " * MEGABYTE + "b"),
    "a sentence of ideographs": ("sentence", "世界" * (MEGABYTE // 6)),
    "a word": ("sentence", "a" * MEGABYTE),
    "dots": ("sentence", "." * MEGABYTE),
    "families": ("tokens", FAMILY * (MEGABYTE // 18)),
    "flags": ("tokens", FLAG * (MEGABYTE // 8)),
    "headings": ("heading", "# A heading\n\nWith words.\n" * (MEGABYTE // 25)),
    "new lines": ("heading", "\n" * MEGABYTE),
    "prose by sentences": ("sentence", "This is a sentence, Mr. Fox. " * (MEGABYTE // 29)),
    "prose by tokens": ("tokens", "This is a sentence, Mr. Fox. " * (MEGABYTE // 29)),
    "ticks": ("heading", "`" * MEGABYTE + "a`"),
}


@pytest.mark.parametrize(("by", "text"), LARGE.values(), ids=LARGE)
def test_a_large_text_takes_seconds_whatever_it_says(by: str, text: str) -> None:
    begun = process_time()
    found = cut(text, by, size=512, overlap=32)
    # About one is usual; what grew with the square of the text would take minutes.
    assert process_time() - begun < 15
    assert "".join(piece.body for piece in found) == text


@pytest.mark.parametrize("module", [chunks, headings, sentences])
def test_the_examples_of_the_docs_hold(module: ModuleType) -> None:
    outcome = doctest.testmod(module)
    assert outcome.attempted > 0
    assert outcome.failed == 0
