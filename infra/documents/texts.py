"""Which text stands for a row: a column, or a template over several.

``{title}: {body}`` puts columns into a text; ``{{`` and ``}}`` are braces. Without any brace, it is
the name of a column.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any
from uuid import UUID

from infra.conditions import rfc3339
from infra.documents.chunks import most_overlap
from schemas.indexes import IndexSpec

# Braces that are meant, a column, a brace that is neither, and what lies between.
PARTS = re.compile(r"(?P<braces>\{\{|\}\})|\{(?P<column>[^{}]+)\}|(?P<odd>[{}])|[^{}]+")
KEPT_TEMPLATES = 1_000


class TemplateInvalid(ValueError):
    """A template cannot be read; the message says where and what to write instead."""


def problems(spec: IndexSpec, columns: Collection[str]) -> list[str]:
    """Returns what is wrong with an index by its definition, each with what to do.

    Args:
        spec: The index.
        columns: Names of its source's columns; none where they are not known.
    """
    found = [*_unreadable(spec), *_crowded(spec)]
    for use, names in _named(spec):
        if unknown := [name for name in names if columns and name not in columns]:
            known = ", ".join(sorted(columns))
            found.append(f"{use} names {', '.join(unknown)}, but the source has only {known}")
    return found


def columns_of_text(template: str) -> tuple[str, ...]:
    """Returns the columns that a text is made of, each once, in order.

    >>> columns_of_text("{title}: {body}"), columns_of_text("body")
    (('title', 'body'), ('body',))

    Raises:
        TemplateInvalid: It cannot be read.
    """
    return tuple(dict.fromkeys(part for part, is_column in _parts(template) if is_column))


def text_of(template: str, row: Mapping[str, Any]) -> str:
    """Returns the text of a row; a column that is null or missing is empty.

    >>> text_of("{{{n}}} {title}", {"n": 1.50, "title": None})
    '{1.5} '

    Raises:
        TemplateInvalid: The template cannot be read.
    """
    return "".join(
        (as_text(row.get(part)) or "") if is_column else part
        for part, is_column in _parts(template)
    )


def as_text(value: object) -> str | None:
    """Returns a value of a column as text: instants by RFC 3339, lists and records as JSON.

    >>> as_text(Decimal("1.50")), as_text(True), as_text({"a": [1, None]})
    ('1.50', 'true', '{"a":[1,null]}')

    Raises:
        TypeError: It is of a type that no column has.
    """
    if value is None or isinstance(value, str):
        return value
    for kinds, written in WRITTEN:
        if isinstance(value, kinds):
            return written(value)
    raise TypeError(f"no column holds a {type(value).__name__}")


def _as_json(value: object) -> str:
    return json.dumps(value, default=as_text, ensure_ascii=False, separators=(",", ":"))


# The first that fits: to Python, a boolean is an integer and an instant a date.
WRITTEN: tuple[tuple[tuple[type, ...], Callable[[Any], str]], ...] = (
    ((bool, dict, list, tuple), _as_json),
    ((float, int, timedelta, UUID), str),
    ((Decimal,), "{:f}".format),
    ((datetime,), rfc3339),
    ((date, time), lambda value: str(value.isoformat())),
    ((bytes,), lambda value: base64.b64encode(value).decode()),
)


def _unreadable(spec: IndexSpec) -> Iterator[str]:
    try:
        columns = columns_of_text(spec.text) if spec.text else ()
    except TemplateInvalid as invalid:
        yield str(invalid)
        return
    if not columns and (spec.source or spec.text):
        yield "text names no column: name one, or several in a template like {title}: {body}"


def _crowded(spec: IndexSpec) -> Iterator[str]:
    if spec.chunking.by == "tokens" and spec.chunking.overlap > most_overlap(spec.chunking):
        yield (
            f"chunking.overlap is {spec.chunking.overlap} tokens of {spec.chunking.size}: "
            f"make it at most half, {most_overlap(spec.chunking)}"
        )


def _named(spec: IndexSpec) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yields the columns that a definition names, and where it does."""
    try:
        yield "text", columns_of_text(spec.text) if spec.text else ()
    except TemplateInvalid:
        yield "text", ()
    yield "columns", tuple(each.name for each in spec.columns)
    yield "key_columns", spec.key_columns


@lru_cache(KEPT_TEMPLATES)
def _parts(template: str) -> tuple[tuple[str, bool], ...]:
    """Returns what a text is put together from: plain text, and columns (True)."""
    if "{" not in template and "}" not in template:
        return ((template, True),)
    parts = []
    for found in PARTS.finditer(template):
        if found["odd"]:
            raise TemplateInvalid(
                f"text has an odd {found['odd']} at character {found.start() + 1}: write a column "
                f"as {{name}}, and a brace itself twice"
            )
        plain = found["braces"][0] if found["braces"] else found[0]
        parts.append((found["column"], True) if found["column"] else (plain, False))
    return tuple(parts)
