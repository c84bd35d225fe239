"""Words near by: many numbers are only told by what is said of them."""

from __future__ import annotations

import re


def words(*parts: str) -> re.Pattern[str]:
    """Returns the pattern of any of ``parts``, as whole words whatever their case."""
    return re.compile(rf"(?<!\w)(?:{'|'.join(parts)})(?!\w)", re.IGNORECASE)


def said(
    what: re.Pattern[str], text: str, match: tuple[int, int], *, before: int, after: int
) -> bool:
    """Returns whether ``what`` is said near a match.

    Args:
        what: The words.
        text: All of the text.
        match: Where the match starts and ends.
        before: How many characters before it count.
        after: How many characters behind it count.
    """
    start, end = match
    if what.search(text, max(0, start - before), start):
        return True
    return after > 0 and what.search(text, end, end + after) is not None
