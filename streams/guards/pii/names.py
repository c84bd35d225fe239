"""First names and surnames of many countries, from packages that are kept and openly licensed.

Faker (MIT) has the names of some 80 languages, ``nicknames`` (Apache 2.0) what people are called
for short. No model is involved, and nothing is fetched.
"""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Collection, Iterator
from functools import cache
from importlib import import_module, resources
from pkgutil import iter_modules

from streams.guards.pii.ordinary import ELSEWHERE, HOUSES, TITLES, WORDS

# What a word may be, as bits.
FIRST, LAST, ORDINARY, PLACE, TITLE, HOUSE = 1, 2, 4, 8, 16, 32
SHORTEST = 3
# Common where Faker has no Latin spelling of them, or too short to be taken from a list.
MORE_FIRST = """
    abdullah ada aditya ahmed aishwarya al alexei ali amina amira amit anand ananya anil anita
    anjali aoife arjun arun asha ashok bo chidi chinedu chloe deepak deepika dmitri dmitry ed fatima
    fatimah feng gaurav hana haruto hassan hiro hiroshi hui hussein hyun ibrahim igor ines ivan jia
    jian jihoon jin jing jiwoo jo jun karim karthik kavita kenji khalid kwame lakshmi layla lei
    leila li ling manoj mariam maryam mehmet mei mi min ming minjun mohamed mohammad mohammed
    muhammad mustafa natasha neha ngozi nikhil nikita nisha olga omar pooja prakash priya qing rahul
    raj rajesh ramesh rania ravi rohan rohit sanjay sasha satoshi seojun sergei shreya shu siobhan
    sneha soo sunil sunita suresh svetlana takeshi tatiana usha vijay vikram vladimir wei xiao xin
    yan yasmin ying yong youssef yu yuki yuri yusuf zainab zhen zoya
"""
MORE_LAST = """
    abdullah achebe adeyemi agarwal ahmad ahmed aydin bae banerjee bauer bhatt bianchi bose chan
    chatterjee chaudhary chen cheng cho choi choudhury chowdhury chu das desai dubois eze fan feng
    fernandez fischer fujita fukuda ghosh gupta haddad han hashimoto hassan he ho hoang hong hopper
    hu huang hussain huynh hwang ibrahim inoue iyer jain jang jiang jung kang kaplan kapoor kato
    khan kim kobayashi kovács kowalczyk kowalska kowalski kulkarni kumar kuznetsov lam lau lee li
    liang lin liu lovelace lu luo ma mahmoud malhotra mcdonald mckenzie mehta menon mensah mishra
    mohamed nair nakamura nguyen nkosi novak nowak nwosu o'brien o'connor o'neill o'sullivan oh
    okafor okonkwo osei park patel pham popov qureshi rahman rao reddy rossi ryu sato schmidt sen
    shah sharma shin singh sokolov song sousa suzuki takahashi tanaka tang tran truong tsai tseng
    turing verma vo wang watanabe weber wong wu xie xu yamada yamamoto yang yilmaz yoon yoshida yu
    zhang zhao zheng zhou zhu
"""


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
    for kind, words in ((FIRST, MORE_FIRST.split()), (LAST, MORE_LAST.split())):
        yield from ((kind, word) for word in words)
    for kind, more in ((HOUSE, HOUSES), (TITLE, TITLES)):
        yield from ((kind, word) for word in more)


def _from_faker() -> Iterator[tuple[int, str]]:
    people = import_module("faker.providers.person")
    for locale in iter_modules(people.__path__):
        provider = import_module(f"faker.providers.person.{locale.name}").Provider
        for attribute in dir(provider):
            listed = getattr(provider, attribute)
            if (kind := _kind(attribute)) and isinstance(listed, Collection):
                yield from ((kind, word) for word in _words(listed))


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
    yield from import_module("faker.providers.lorem.en_US").Provider.word_list
    yield from import_module("spacy.lang.en.stop_words").STOP_WORDS


def _without_accents(word: str) -> str:
    apart = unicodedata.normalize("NFD", word)
    return "".join(letter for letter in apart if not unicodedata.combining(letter))
