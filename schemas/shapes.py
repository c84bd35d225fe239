"""What all shapes of the catalog are made of: names, texts, durations, and one strict model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

NAME = r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}"

# One level of a name; also names of principals.
Name = Annotated[str, StringConstraints(pattern=rf"^{NAME}$")]
# catalog.schema.name
FullName = Annotated[str, StringConstraints(pattern=rf"^{NAME}\.{NAME}\.{NAME}$")]
# catalog.schema.name, @ and the number or an alias of a version; the newest without.
VersionName = Annotated[str, StringConstraints(pattern=rf"^{NAME}\.{NAME}\.{NAME}(@{NAME})?$")]
# The same, or all that lies in a schema: catalog.schema.*
Pattern = Annotated[str, StringConstraints(pattern=rf"^{NAME}\.{NAME}\.({NAME}(@{NAME})?|\*)$")]
ALL = ".*"  # behind the schema
# The last segment of a topic's name, in characters that Kafka takes.
Segment = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,200}$")]
Text = Annotated[str, StringConstraints(min_length=1)]
# A whole number and its unit: 500ms, 30s, 1m, 24h, 30d.
DURATION = r"^[1-9][0-9]{0,6}(ms|s|m|h|d)$"
Duration = Annotated[str, StringConstraints(pattern=DURATION)]

MOST_TOPICS = 16  # each pool of a route and each reply is one, so a spec names few
MOST_RULES = 1000
MOST_TOOLS = 64  # of a kind that one agent may reach

_UNITS = {
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
}


class Shape(BaseModel):
    """What is the same for all shapes: frozen, and nothing unknown is taken."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Spec(Shape):
    """What a kind of object is made of."""

    def references(self) -> Iterator[str]:
        """Yields the objects, or versions of them (``a.b.c@3``), that must exist for this one."""
        yield from ()


def length(duration: str) -> timedelta:
    """Returns how long a ``Duration`` is."""
    number, unit = re.fullmatch(r"([0-9]+)(ms|s|m|h|d)", duration).groups()  # type: ignore[union-attr]
    return int(number) * _UNITS[unit]
