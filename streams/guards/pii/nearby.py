"""Words near by: many numbers are only told by what is said of them."""

from __future__ import annotations

import re


def words(*parts: str) -> re.Pattern[str]:
    """Returns the pattern of any of ``parts``, in small letters, as whole words."""
    return re.compile(rf"(?<!\w)(?:{'|'.join(parts)})(?!\w)")


def said(
    what: re.Pattern[str], text: str, match: tuple[int, int], *, before: int, after: int
) -> bool:
    """Returns whether ``what`` is said near a match, whatever its case.

    Args:
        what: The words.
        text: All of the text.
        match: Where the match starts and ends.
        before: How many characters before it count.
        after: How many characters behind it count.
    """
    start, end = match
    # One more on the outer side, to tell whole words from parts.
    first = max(0, start - before - 1)
    if what.search(text[first:start].lower(), 1 if start > before else 0):
        return True
    return after > 0 and what.search(text[end : end + after + 1].lower(), 0, after) is not None


def said_before(what: re.Pattern[str], text: str, start: int, *, within: int) -> bool:
    """Returns whether ``what`` is said at most so far before ``start``, in the same paragraph."""
    first = max(text.rfind("\n\n", max(0, start - within), start) + 1, start - within, 0)
    return said(what, text, (start, start), before=start - first, after=0)


def mentions(text: str, roots: tuple[str, ...]) -> bool:
    """Returns whether a text has any of ``roots`` in it, whatever its case; cheap."""
    lowered = text.lower()
    return any(root in lowered for root in roots)
