"""First names and surnames of many countries, from packages that are kept and openly licensed.

Faker (MIT) has the names of some 80 languages, ``nicknames`` (Apache 2.0) what people are called
for short. No model is involved, and nothing is fetched.
"""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Collection, Iterator
from functools import cache
from importlib import resources
from pkgutil import iter_modules

from streams.guards.pii.loading import loaded
from streams.guards.pii.ordinary import ELSEWHERE, HOUSES, TITLES, WORDS
from streams.guards.pii.spellings import FIRST_NAMES, SURNAMES

# What a word may be, as bits.
FIRST, LAST, ORDINARY, PLACE, TITLE, HOUSE = 1, 2, 4, 8, 16, 32
SHORTEST = 3


# How names of these languages are written in Latin letters.
_CYRILLIC = "абвгдежзийклмнопрстуфхцчшщъыьэюяіїєґ"
_LATIN = {
    "ru_RU": "a b v g d e zh z i y k l m n o p r s t u f kh ts ch sh shch - y - e yu ya i yi ye g",
    "uk_UA": "a b v h d e zh z y y k l m n o p r s t u f kh ts ch sh shch - y - e iu ia i i ie g",
}
SPELLINGS = {
    locale: {
        ord(one): other.strip("-") for one, other in zip(_CYRILLIC, latin.split(), strict=True)
    }
    for locale, latin in _LATIN.items()
}


def plain(word: str) -> str:
    """Returns a word as it is looked up: in small letters, accents as one with their letters."""
    lowered = word.lower()
    if lowered.isascii():
        return lowered
    return unicodedata.normalize("NFC", lowered).replace("\u2019", "'")


@cache
def kinds() -> dict[str, int]:
    """Returns what each word that is known may be; takes a second when called first."""
    known: dict[str, int] = {}
    for kind, word in (*_known(), *_from_faker(), *_nicknames()):
        known[word] = known.get(word, 0) | kind
        # Accents are often left out.
        bare = _without_accents(word)
        if bare != word:
            known[bare] = known.get(bare, 0) | kind
    for word in (*WORDS, *_commonest()):
        known[word] = known.get(word, 0) | ORDINARY
    for word in ELSEWHERE:
        known[word] = known.get(word, 0) | PLACE
    return known


def _known() -> Iterator[tuple[int, str]]:
    for kind, words in ((FIRST, FIRST_NAMES.split()), (LAST, SURNAMES.split())):
        yield from ((kind, word) for word in words)
    for kind, more in ((HOUSE, HOUSES), (TITLE, TITLES)):
        yield from ((kind, word) for word in more)


def _from_faker() -> Iterator[tuple[int, str]]:
    people = loaded("faker.providers.person")
    for locale in iter_modules(people.__path__):
        provider = loaded(f"faker.providers.person.{locale.name}").Provider
        for attribute in dir(provider):
            listed = getattr(provider, attribute)
            if (kind := _kind(attribute)) and isinstance(listed, Collection):
                spelling = SPELLINGS.get(locale.name)
                for word in _words(listed):
                    yield kind, word
                    if spelling:
                        yield kind, word.translate(spelling)


def _kind(attribute: str) -> int:
    if attribute.startswith("_") or "names" not in attribute:
        return 0
    return FIRST if "first" in attribute else LAST if "last" in attribute else 0


def _words(listed: Collection[object]) -> Iterator[str]:
    """Yields the words of a list of Faker's: some names are of several."""
    for name in listed:
        if isinstance(name, str):
            for word in name.split():
                if len(word) >= SHORTEST and word[0].isupper():
                    yield plain(word)


def _nicknames() -> Iterator[tuple[int, str]]:
    with resources.files("nicknames").joinpath("names.csv").open(encoding="utf-8") as file:
        rows = csv.reader(file)
        next(rows)
        for one, _, other in rows:
            yield from ((FIRST, name) for name in (one, other) if len(name) >= SHORTEST)


def _commonest() -> Iterator[str]:
    yield from loaded("faker.providers.lorem.en_US").Provider.word_list
    yield from loaded("spacy.lang.en.stop_words").STOP_WORDS


def _without_accents(word: str) -> str:
    if word.isascii():
        return word
    apart = unicodedata.normalize("NFD", word)
    return "".join(letter for letter in apart if not unicodedata.combining(letter))
