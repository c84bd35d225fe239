"""Addresses of machines: IPv4, IPv6 and MAC."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_address

from streams.guards.pii.nearby import said, said_before, words
from streams.guards.pii.presidio import holds
from streams.guards.pii.span import Span

OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
# Behind one slash alone it is part of a path.
FOUR = re.compile(rf"(?=[0-9])(?<![\w.-])(?<![^/]/){OCTET}(?:\.{OCTET}){{3}}(?![\w-]|\.\w)")
SIX = re.compile(
    r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}"
    r"(?:[0-9]{1,3}(?:\.[0-9]{1,3}){3}|[0-9A-Fa-f]{1,4})?(?:%\w{1,15})?(?![\w:]|\.[0-9])"
)
MAC = re.compile(
    r"(?<![\w:.-])(?:[0-9A-Fa-f]{2}([:-])(?:[0-9A-Fa-f]{2}\1){4}[0-9A-Fa-f]{2}"
    r"|[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4})(?![\w-]|[:.]\w)"
)
# What else has four numbers with dots between them.
VERSIONS = words(
    "v", "versions?", "ver", "release", "build", "firmware", "driver", "sections?", "chapter",
    "clause", "paragraph", "upgraded? to", "patch", "kapitel", "abschnitt", "§",
)  # fmt: skip
MAC_WORDS = words("mac", "mac.?address", "hardware", "ethernet", "bssid", "physical address")
FEWEST_GROUPS, MOST_IN_GROUP = 3, 4


def addresses(text: str) -> Iterator[Span]:
    """Yields IPv4 and IPv6 addresses, less those that every machine has."""
    for match in FOUR.finditer(text):
        if not said_before(VERSIONS, text, match.start(), within=16) and _is_somewhere(
            match.group()
        ):
            yield Span(match.start(), match.end(), "IP_ADDRESS", 0.85)
    for match in SIX.finditer(text):
        address = match.group()
        if _is_long_enough(address) and holds("IP_ADDRESS", address) and _is_somewhere(address):
            yield Span(match.start(), match.end(), "IP_ADDRESS", 0.9)


def _is_long_enough(address: str) -> bool:
    """Tells an address from a time of day and from names with ``::`` between them."""
    groups = [group for group in address.partition("%")[0].split(":") if group]
    return (
        bool(groups)
        and any(map(str.isdigit, address))
        and (
            len(groups) >= FEWEST_GROUPS
            or (len(groups[0]) == MOST_IN_GROUP and groups[0][0] in "23fF")
        )
    )


def _is_somewhere(address: str) -> bool:
    where = ip_address(address)
    return not (where.is_loopback or where.is_unspecified or address.startswith(("0.", "255.")))


def macs(text: str) -> Iterator[Span]:
    """Yields hardware addresses."""
    for match in MAC.finditer(text):
        address = match.group()
        # Digits with dashes or dots are dates and numbers of parts, too.
        telling = ":" in address or any(letter.isalpha() for letter in address)
        if not telling and not said(MAC_WORDS, text, match.span(), before=40, after=20):
            continue
        if holds("MAC_ADDRESS", address):
            yield Span(match.start(), match.end(), "MAC_ADDRESS", 0.9)
