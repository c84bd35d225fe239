"""Names of people, told without a model.

What is written with capitals is looked up in lists of names, and judged by what stands around it:
titles, greetings, what one does to people only. A word that is also a name counts as one where
something says so, and a name beside a house, a street or a company is that of the place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from streams.guards.pii.names import FIRST, HOUSE, LAST, ORDINARY, PLACE, TITLE, kinds, plain
from streams.guards.pii.ordinary import BEFORE_PLACES, NOBODY
from streams.guards.pii.span import Span

UPPER = "".join(chr(at) for at in (*range(0x590), *range(0x1E00, 0x1F00)) if chr(at).isupper())
WORD = rf"[{UPPER}](?:\.(?=[ {UPPER}])|[\w'\u2019\u0300-\u036f-]*)"
PARTICLES = (
    "al|ap|bin|bint|da|das|de|del|della|dem|den|der|di|do|dos|du|e|el|ibn|la|le|ter|van|von|y|zu"
)
JOINING = frozenset(PARTICLES.split("|"))
# Capitals that follow each other; the first is no part of a path, a URL, or a name in a program.
RUN = re.compile(
    rf"[{UPPER}](?<![\w@/\\#$&=+.-].)"
    r"(?:(?<=\bM)rs?\.|(?<=\bM)s\.|(?<=\bD)r\.|(?<=\bP)rof\.|(?<=\bS)r\."
    rf"|\.(?=[ {UPPER}])|[\w'\u2019\u0300-\u036f-]*)"
    rf"(?:\.?(?<=[{UPPER}]\.) ?{WORD}|[ \u00a0](?:(?:{PARTICLES})[ \u00a0]){{0,2}}{WORD})*"
)
SPLIT = re.compile(rf"[{UPPER}]\.|[^ \u00a0.]+\.?")
POSSESSIVE = re.compile("(?:'s|\u2019s|s'|'|\u2019)\\Z")
INITIAL, SHOUTED = 64, 128
NAME = FIRST | LAST
DOUBTFUL = ORDINARY | PLACE
MOST_WORDS = 4

# Behind these stands a name, whatever it is.
SURELY = (
    "my name is ", "name is ", "name's ", "my name\u2019s ", "name: ", 'name": "', "named ",
    "dear ", "mr. ", "mrs. ", "ms. ", "dr. ", "prof. ", "mein name ist ", "ich heiße ",
    "je m'appelle ", "me llamo ", "mi chiamo ", "attn: ", "patient: ", "signed by ", "liebe ",
    "lieber ", "chère ", "cher ", "name = ", "customer: ", "employee: ", "contact: ",
    "cardholder: ", "holder: ", "author: ", "assignee: ", "in the name of ", "known as ", "miss ",
    "querido ", "querida ",
)  # fmt: skip
# What one does to people, and what people are to each other.
PROBABLY = (
    "i am ", "i'm ", "i\u2019m ", "this is ", "call me ", "hi ", "hello ", "hey ", "thanks, ",
    "thanks ", "thank you ", "thank you, ", "ask ", "asked ", "tell ", "told ", "met ", "email ",
    "emailed ", "phoned ", "colleague ", "friend ", "friends ", "brother ", "sister ", "son ",
    "daughter ", "wife ", "husband ", "boss ", "manager ", "partner ", "client ", "customer ",
    "patient ", "employee ", "remind ", "mother ", "father ", "neighbour ", "neighbor ",
    "teacher ", "meet ", "ich bin ", "hallo ", "bonjour ", "hola ", "ciao ", "regards, ",
    "regards,\n", "best, ", "best,\n", "cheers, ", "cheers,\n", "love, ", "love,\n", "yours,\n",
    "sincerely,\n", "thanks,\n", "interviewed ", "hired ", "married ", "invite ", "assigned to ",
    "says ", "said ", "cc ", "nurse ", "uncle ", "aunt ", "student ", "inform ", "notify ",
    "invited ", "according to ", "i told ", "we told ", "for my friend ", "spoke with ",
    "spoke to ", "talk to ", "talked to ", "grüße\n", "grüßen\n",
)  # fmt: skip
# What more often stands before people than before months and places.
MAYBE = (
    "with ",
    "between ",
    "from ",
    "by ",
    "for ",
    "to ",
    "call ",
    "called ",
    "and ",
    "contact ",
    "but ",
    "that ",
)
DOES = re.compile(
    r" (?:missed|resigned|started|stopped|finished|sent|gave|took|tried|found|made|sold|broke"
    r"|arrived|returned|answered|explained|complained|helped|showed|said|says|told|asked|called|emailed|wrote|writes|works|lives|agreed|replied|thinks|wants"
    r"|needs|paid|went|came|booked|ordered|signed|joined|left|moved|lost|forgot|bought|met|got"
    r"|has (?:been|a|not|asked|left)|is (?:a|an|my|our|the|on) )\b"
)
ADDRESSED = re.compile(
    ",? (?:can|could|would|will|do|did|are|have) (?:you|we|I)\\b"
    "|, (?:please|thank|what|how|why|when|I)\\b"
)
# Behind these it is somebody, though nobody knows the name.
GREETED = (
    "hi ", "hello ", "hey ", "thanks, ", "thank you, ", "regards,\n", "best,\n", "cheers,\n",
    "regards, ", "colleague ", "friend ", "brother ", "sister ", "wife ", "husband ", "daughter ",
    " told ", " met ", "boss ", "neighbour ", "neighbor ", "son ",
)  # fmt: skip
INTRODUCED = (*SURELY, *PROBABLY, *GREETED)
# What any of all these ends with: what does not end so need not be compared with each.
TAIL = 3
TAILS = frozenset(each[-TAIL:] for each in (*INTRODUCED, *MAYBE))
ARTICLES = (" the ", " a ", " an ", "\nthe ", "this ")
# A name before these is that of what it discovered.
DISCOVERED = re.compile(
    "(?:'s)? (?:algorithm|card|constant|diagram|disease|distribution|effect|equation|filter"
    "|formula|index|inequality|laws?|matrix|method|model|numbers?|optimi[sz]er|process|scale"
    "|series|syndrome|test|theorem|transforms?)\\b"
)
LOOKED_BACK = 20


def people(text: str) -> Iterator[Span]:
    """Yields the names of people, without their titles."""
    known = kinds()
    before = None
    for run in RUN.finditer(text):
        group = run.group()
        # The most of all: a word at the start of a sentence.
        if group.isalpha() and _is_nobody(text, run, known.get(plain(group), 0)):
            before = run
            continue
        for start, end, score in _names(text, run):
            first = start
            if before is not None and start == run.start():
                first = _turned(text, before, start)
            yield Span(first, end, "PERSON", score)
        before = run


def _is_nobody(text: str, run: re.Match[str], bits: int) -> bool:
    """Returns whether a word alone is nobody's name; the cheapest of what tells that it is not."""
    if bits & NAME and not bits & DOUBTFUL:
        return False
    if bits and not bits & NAME:
        return bits & DOUBTFUL != 0
    # In doubt, something around it must say that it is one.
    start, end = run.span()
    if text[max(0, start - TAIL) : start].lower() in TAILS:
        return False
    return not (bits and (DOES.match(text, end) or ADDRESSED.match(text, end)))


def _turned(text: str, before: re.Match[str], start: int) -> int:
    """Returns where a name starts that may have its surname before it, as ``Smith, John``."""
    surname = before.group()
    if before.end() + 2 == start and text[start - 2 : start] == ", " and " " not in surname:
        bits = _bits(surname)
        if bits & LAST and not bits & (DOUBTFUL | FIRST):
            return before.start()
    return start


def _names(text: str, run: re.Match[str]) -> Iterator[tuple[int, int, float]]:
    words = [(part.start() + run.start(), part.group()) for part in SPLIT.finditer(run.group())]
    bits = [_bits(word) for _, word in words]
    at = 0
    while at < len(words):
        if not _is_worth_a_look(text, words, bits, at):
            at += 1
            continue
        behind = _behind(words, bits, at)
        score = _score(text, words, bits, at, behind)
        whole = text[words[at][0] : words[behind - 1][0] + len(words[behind - 1][1])].lower()
        other = whole in NOBODY or words[at][1].lower().rstrip(".") in BEFORE_PLACES
        if score and not other:
            last, word = words[behind - 1]
            possessive = POSSESSIVE.search(word)
            end = last + (possessive.start() if possessive else len(word.rstrip(".-")))
            # An initial keeps its dot, a sentence its own.
            yield words[at][0], end, score
        at = behind if score or other else at + 1


def _is_worth_a_look(text: str, words: list[tuple[int, str]], bits: list[int], at: int) -> bool:
    """Returns whether a name may start here; the cheapest of what tells that it does not."""
    kind = bits[at]
    if kind & (NAME | INITIAL):
        return True
    if kind & ~SHOUTED:
        return words[at][1].lower() in BEFORE_PLACES
    if at + 1 < len(bits) and bits[at + 1] & NAME:
        return True
    start = words[at][0]
    said = text[max(0, start - LOOKED_BACK) : start].lower()
    return said.endswith(INTRODUCED) or bool(at and bits[at - 1] & TITLE)


def _bits(word: str) -> int:
    """Returns what a word may be."""
    bare = word if word.isalpha() else POSSESSIVE.sub("", word)
    if bare.endswith("."):
        if len(bare) == len("J."):
            return INITIAL
        bare = bare[:-1]
    if len(bare) == 1:
        return INITIAL
    known = kinds()
    bits = known.get(plain(bare), 0)
    if not bits and "-" in bare:
        parts = [known.get(plain(part), 0) for part in bare.split("-")]
        bits = parts[0] & parts[-1] & NAME or (parts[0] & FIRST if not parts[0] & DOUBTFUL else 0)
    return bits | SHOUTED if bare.isupper() else bits


def _behind(words: list[tuple[int, str]], bits: list[int], at: int) -> int:
    """Returns the index behind the last word that belongs to the name at ``at``."""
    behind = last = at + 1
    if POSSESSIVE.search(words[at][1]):
        return behind
    while behind < len(bits) and behind - at < MOST_WORDS + 2:
        kind = bits[behind]
        word = words[behind][1]
        if word[0].islower() or word.lower() in JOINING:
            behind += 1
            continue
        if (kind & TITLE and not kind & NAME) or (kind & SHOUTED and not bits[at] & SHOUTED):
            break
        if kind & (DOUBTFUL | HOUSE) and not kind & NAME:
            break
        behind += 1
        last = behind if not kind & INITIAL or kind & NAME else last
        if kind & (ORDINARY | HOUSE) or POSSESSIVE.search(word):
            break
    return last


def _score(text: str, words: list[tuple[int, str]], bits: list[int], at: int, behind: int) -> float:
    first = bits[at]
    start, word = words[at]
    end = words[behind - 1][0] + len(words[behind - 1][1])
    stops = behind < len(bits) and bits[behind] & (HOUSE | SHOUTED) and not first & SHOUTED
    if word[0].islower() or stops or (first & TITLE and behind == at + 1):
        return 0
    said = text[max(0, start - LOOKED_BACK) : start].lower()
    titled = at > 0 and bits[at - 1] & TITLE and not bits[at - 1] & NAME
    if titled or said.endswith(SURELY):
        sure = not first & DOUBTFUL or first & NAME
        return 0.85 if sure and (not first & SHOUTED or first & NAME) else 0
    if behind - at == 1:
        if at and not (bits[at - 1] & ORDINARY or (at == 1 and _begins(text, words[0][0]))):
            # Behind a capital that is no ordinary word, it is part of the name of some thing.
            return 0
        return _alone(text, first, said, (start, end))
    last = bits[behind - 1]
    told = said.endswith(PROBABLY) or POSSESSIVE.search(text, start, end) is not None
    second = last if words[at + 1][1].lower() in JOINING else bits[at + 1]
    return _together(first, second, last, told or DOES.match(text, end) is not None)


def _begins(text: str, start: int) -> bool:
    """Returns whether a sentence begins at ``start``, so that its capital says nothing."""
    return text[max(0, start - 2) : start].strip(" \"'(*>#-\t") in {"", ".", "!", "?", ":", "\n"}


def _alone(text: str, kind: int, said: str, place: tuple[int, int]) -> float:
    """Returns how sure it is that a word alone is somebody's name."""
    start, end = place
    behind = text[end : end + 2]
    in_program = behind[:1] in tuple("@/\\=(_") or (
        behind[:1] in tuple(".:-") and behind[1:].isalnum()
    )
    if kind & (SHOUTED | HOUSE) or in_program or DISCOVERED.match(text, end):
        return 0
    if not kind:
        return 0.5 if said.endswith(GREETED) and text[start + 1 : end].islower() else 0
    if not kind & FIRST or said.endswith(ARTICLES) or _is_brand(text, start, end):
        return 0
    if not kind & DOUBTFUL:
        return 0.6 if end - start > len("Al") or said.endswith(PROBABLY) else 0
    if said.endswith(PROBABLY) or DOES.match(text, end) or ADDRESSED.match(text, end):
        return 0.55
    return 0.5 if not kind & PLACE and said.endswith(MAYBE) else 0


def _is_brand(text: str, start: int, end: int) -> bool:
    """Returns whether a name is half of a house's, as in ``Ben & Jerry``."""
    around = text[max(0, start - 10) : end + 10]
    if "&" not in around:
        return False
    return any(brand in around.lower() for brand in NOBODY if "&" in brand)


def _together(first: int, second: int, last: int, introduced: bool) -> float:
    """Returns how sure it is that words that follow each other are somebody's name."""
    if first & SHOUTED and not (first & FIRST and last & LAST and last & SHOUTED):
        return 0
    surname = last & LAST and not last & DOUBTFUL
    if first & FIRST:
        sure = 0.7 if surname or (last & LAST and introduced) else 0
        return sure if first & DOUBTFUL else 0.8
    if first & INITIAL:
        # One letter and a dot may number a heading.
        likely = introduced or second & INITIAL
        return 0.7 if surname or (likely and not last & DOUBTFUL) else 0
    return _unheard(first, second, last, introduced)


def _unheard(first: int, second: int, last: int, introduced: bool) -> float:
    """Returns how sure it is of words of which the first is in no list of first names."""
    if first & (DOUBTFUL | HOUSE | TITLE) or last & DOUBTFUL:
        return 0
    given = second & FIRST and not second & DOUBTFUL
    if not first and given:
        # A word that starts a sentence, and then the name.
        return 0
    if introduced or (last & LAST and second & NAME):
        return 0.55
    return 0.6 if first & LAST and given else 0
