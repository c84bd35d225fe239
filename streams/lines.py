"""Lines of text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Returns rows of cells as lines, each column as wide as its widest cell; headings first."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def plain(text: str) -> str:
    """Returns a text without what a terminal would take for a command."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )
