"""Texts that try to talk a model out of its instructions.

Told by how such texts are usually put, in English and German, whoever says it: callers write all
turns of a conversation. An answer of a model that says such a thing is found, too, where it is sent
again as a turn; that is rare. Not covered: other languages, texts in disguise (Base64, look-alike
letters), and requests that are put in new ways. A judge covers more and takes longer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from schemas.policies import InjectionRule
from streams.guards.found import Detector, Hit

REACH = 160

_OLD = r"(?:all |any |the |your |of |these |those |previous |prior |above |earlier |preceding )"
_ORDERS = r"(?:instructions?|prompts?|rules|directions|guidelines|orders|messages?)"
_ALT = r"(?:alle |die |deine |bisherigen |vorherigen )"

PATTERNS = (
    rf"\b(?:ignore|disregard|forget|override|bypass|skip) {_OLD}{{1,6}}(?:\w+ )?{_ORDERS}\b",
    rf"\b(?:do not|don't|stop) (?:follow|following|obey|obeying) {_OLD}{{1,6}}{_ORDERS}\b",
    rf"\b(?:reveal|print|show|repeat|output|leak|tell me) (?:me )?{_OLD}{{0,4}}"
    r"(?:hidden |secret |initial |original )?"
    r"(?:system|developer) (?:prompt|message|instructions)\b",
    r"\byou are (?:now|no longer) (?:in )?"
    r"(?:dan|developer mode|jailbroken|unrestricted|bound by)\b",
    r"\b(?:enable|enter|activate) (?:dan|developer|debug|god|jailbreak) mode\b",
    r"\b(?:pretend|act as if|imagine) (?:that )?you (?:have|had) no "
    r"(?:restrictions|rules|filters|guidelines|limits)\b",
    rf"\b(?:ignoriere|vergiss|missachte) (?:bitte )?{_ALT}{{1,4}}"
    r"(?:anweisungen|regeln|vorgaben|instruktionen)\b",
    r"<\|(?:im_start|im_end|system|endoftext|eot_id|start_header_id)\|>",
    r"<<\s?/?SYS\s?>>|\[/?INST\]",
    r"^\s{0,8}#{2,4}\s?(?:system|new instructions?)\s?:",
)

# Each space stands for as much space as somebody puts there.
_PATTERN = re.compile(
    "|".join(f"(?:{each})" for each in PATTERNS).replace(" ", r"\s{1,8}"),
    re.IGNORECASE | re.MULTILINE,
)


def injection(rule: InjectionRule) -> Detector:
    """Returns what finds such texts."""

    def find(text: str, begin: int) -> Iterator[Hit]:
        for match in _PATTERN.finditer(text, begin):
            yield Hit(match.start(), match.end(), "INJECTION", rule.action)

    return Detector(
        find=find,
        says="what reads like an attempt to override instructions",
        held_from=_held_from,
    )


def _held_from(text: str) -> int:
    return max(0, len(text) - REACH)
