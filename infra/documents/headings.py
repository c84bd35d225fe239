"""Sections of a Markdown text: what stands under each heading, and under which others that is.

Source: https://spec.commonmark.org/0.31.2/, sections 4.2, 4.3 and 4.5; headings within quotes and
lists are not sections of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

LINES = re.compile(r"[^\n]*\n|[^\n]+")
HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*))?$", re.DOTALL)
UNDERLINE = re.compile(r" {0,3}(?:(=++)|-++)[ \t]*+$")
# What an underline makes a heading of: text, and no list, quote, table or line.
TITLE = re.compile(r" {0,3}(?![-+*>|#=`~<]|\d+[.)])\S.*$", re.DOTALL)
FENCE = re.compile(r" {0,3}(`{3,}+(?!.*`)|~{3,})")


@dataclass(frozen=True, slots=True)
class Section:
    """What stands under a heading.

    Attributes:
        path: The headings above it, outermost first, its own last; none before the first one.
        text: All of it, the heading's own line included.
    """

    path: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True)
class _Heading:
    level: int
    title: str
    line: int  # at which it begins
    body: int  # at which what is under it begins


def sections(text: str) -> Iterator[Section]:
    r"""Yields the sections of a text, which joined are the text.

    A heading with nothing under it is part of the section that follows. Takes time in proportion
    to the text.

    >>> [(each.path, each.text) for each in sections("# A\n## B\nb\n# C\nc")]
    [(('A', 'B'), '# A\n## B\nb\n'), (('C',), '# C\nc')]
    """
    lines = LINES.findall(text)
    path: tuple[str, ...] = ()
    levels: list[int] = []
    start = body = 0
    for heading in _headings(lines):
        if "".join(lines[body : heading.line]).strip():
            yield Section(path, "".join(lines[start : heading.line]))
            start = heading.line
        while levels and levels[-1] >= heading.level:
            levels.pop()
        path = (*path[: len(levels)], heading.title)
        levels.append(heading.level)
        body = heading.body
    if start < len(lines):
        yield Section(path, "".join(lines[start:]))


def _headings(lines: list[str]) -> Iterator[_Heading]:
    fence = ""
    for number, line in enumerate(lines):
        bare = line.rstrip("\r\n")
        if fence:
            fence = "" if _closes(bare, fence) else fence
        elif opened := FENCE.match(bare):
            fence = opened[1]
        elif found := HEADING.match(bare):
            yield _Heading(len(found[1]), _unclosed(found[2] or ""), number, number + 1)
        elif (under := UNDERLINE.match(bare)) and _titled(lines, number):
            title = lines[number - 1].strip()
            yield _Heading(1 if under[1] else 2, title, number - 1, number + 1)


def _unclosed(title: str) -> str:
    """Returns a title without the ``#`` that may close it."""
    bare = title.strip().rstrip("#")
    return bare.rstrip() if not bare or bare[-1].isspace() else title.strip()


def _closes(line: str, fence: str) -> bool:
    bare = line.strip(" \t")
    indent = len(line) - len(line.lstrip(" "))
    return indent <= 3 and set(bare) == {fence[0]} and len(bare) >= len(fence)  # noqa: PLR2004


def _titled(lines: list[str], number: int) -> bool:
    """Tells whether the line before another is a paragraph of its own."""
    if number == 0 or not TITLE.match(lines[number - 1].rstrip("\r\n")):
        return False
    return number == 1 or not lines[number - 2].strip() or bool(HEADING.match(lines[number - 2]))
