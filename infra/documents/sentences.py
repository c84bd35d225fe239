"""Sentences of a text in any language, told by their marks; knows nothing of tokens.

Where it is in doubt, it does not cut: abbreviations, initials, ordinals, and what goes on in small
letters stay in one sentence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import regex

# A mark behind which a space must follow, one that ends a sentence anyway, empty lines. Nothing
# is tried twice: a run of marks begins behind none, and is never given back.
ENDS = re.compile(
    r"""(?<![.!?…])(?P<marks>[.!?…]++)["'\u201d\u2019»)\]}]*+(?=\s)"""
    r"""|[。\uff01\uff1f｡।॥؟\u06d4]++[\u201d\u2019」』\uff09】》〉]*+"""
    r"""|\n(?:[^\S\n]*+\n)++"""
)
# What belongs to the character before it.
JOINED = regex.compile(r"[\p{GCB=Extend}\p{GCB=SpacingMark}\p{GCB=ZWJ}]")
NEXT = re.compile(r"\s*+(\S?)")
WORD = re.compile(r"[\w.]*$")
LETTERS = re.compile(r"([^\W\d]\.)*[^\W\d]")  # an initial, e.g, U.S
LONGEST = 24  # characters of a word that matters before a full stop
ORDINAL = 2  # digits of a number that is rather an ordinal in front of a full stop

# Words, in small letters, whose full stop ends no sentence; those of one letter are known anyway.
ABBREVIATIONS = frozenset(
    {
        "abb", "abs", "abt", "al", "apr", "approx", "art", "aug", "bd", "bspw", "bzw", "ca", "cap",
        "cf", "co", "col", "corp", "dec", "dept", "dez", "dr", "ed", "eds", "esp", "est", "etc",
        "evtl", "feb", "fig", "figs", "gen", "ggf", "gov", "hr", "hrsg", "inc", "inkl", "jan", "jr",
        "jul", "jun", "kap", "lt", "ltd", "max", "mil", "min", "mio", "mlle", "mme", "mr", "mrd",
        "mrs", "ms", "mt", "no", "nos", "nov", "nr", "num", "núm", "oct", "okt", "op", "p", "pp",
        "prof", "pt", "pág", "rev", "sen", "sept", "sgt", "sr", "sra", "srta", "st", "str", "tab",
        "tel", "univ", "usw", "vgl", "vol", "vols", "vs", "éd",
    }
)  # fmt: skip


def sentences(text: str) -> Iterator[str]:
    """Yields the sentences of a text, which joined are the text; spaces lead the one they precede.

    Takes time in proportion to the text.

    >>> list(sentences("Dr. Ito paid 3.50 on the 2. May. Why? 今日は。はい。"))
    ['Dr. Ito paid 3.50 on the 2. May.', ' Why?', ' 今日は。', 'はい。']
    """
    start = 0
    for mark in ENDS.finditer(text):
        if _ends(text, mark):
            yield text[start : mark.end()]
            start = mark.end()
    if start < len(text):
        yield text[start:]


def _ends(text: str, mark: re.Match[str]) -> bool:
    if JOINED.match(text, mark.end()):
        return False
    if mark["marks"] is None:
        return True
    follows = NEXT.match(text, mark.end())
    if follows and follows[1].islower():
        return False
    if mark["marks"] != ".":
        return True
    before = WORD.search(text[max(0, mark.start() - LONGEST) : mark.start()])
    word = before[0].casefold() if before else ""
    if word.isdecimal():
        return len(word) > ORDINAL
    return word not in ABBREVIATIONS and not LETTERS.fullmatch(word)
