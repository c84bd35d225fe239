"""Mail addresses, also those inside of URLs and of JSON."""

from __future__ import annotations

import re
from collections.abc import Iterator

from streams.guards.pii.presidio import is_domain
from streams.guards.pii.span import Span

AT = re.compile("@|%40")
# What may stand before the @ beside letters and digits.
LOCAL = frozenset("!#$'*+^_`{|}~.-%")
BEHIND = re.compile(r"\w(?:[\w-]{0,61}\w)?(?:\.\w(?:[\w-]{0,61}\w)?)+")
# The end of an escape in a JSON string, which belongs to the string and not to the mail.
ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{4}|[bfnrt])")
# The login of an address of a service: ``git@`` is nobody.
LOGIN = re.compile(r"://(?:[^\s/@]*:[^\s/@]*|git)\Z")
LONGEST_LOCAL = 64
LONGEST_DOMAIN = 255


def mails(text: str) -> Iterator[Span]:
    """Yields the mail addresses of a text."""
    for at in AT.finditer(text):
        domain = BEHIND.match(text, at.end(), at.end() + LONGEST_DOMAIN)
        if domain is None:
            continue
        start = _first(text, at.start())
        end = domain.end()
        if (
            start is None
            or not is_domain(domain.group())
            or _is_login(text, start, at.start(), end)
        ):
            continue
        yield Span(start, end, "EMAIL_ADDRESS", 1.0)


def _first(text: str, end: int) -> int | None:
    """Returns where the part before the @ starts, or None when there is none."""
    start, least = end, max(0, end - LONGEST_LOCAL)
    while start > least and ((letter := text[start - 1]).isalnum() or letter in LOCAL):
        start -= 1
    if start and text[start - 1] == "\\" and (escape := ESCAPE.match(text, start - 1, end)):
        start = escape.end()
    while start < end and not (text[start].isalnum() or text[start] == "_"):
        start += 1
    return start if start < end else None


def _is_login(text: str, start: int, at: int, end: int) -> bool:
    if text[start:at] == "git" and text[end : end + 1] in {":", "/"}:
        return True
    scheme = text.rfind("://", max(0, start - LONGEST_LOCAL), at)
    return scheme >= 0 and LOGIN.match(text, scheme, at) is not None
