"""The labelled set: sentences made of templates and values, and where the values stand in them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

from tests.pii.names import JUDGED as JUDGED_NAMES
from tests.pii.names import TUNED as TUNED_NAMES
from tests.pii.names import listed
from tests.pii.negatives import NEGATIVES
from tests.pii.templates import JUDGED, TUNED
from tests.pii.values import VALUES

PLACE = re.compile(r"\{(\w+)\}|\{\{|\}\}")


@dataclass(frozen=True, slots=True)
class Labelled:
    """A sentence and what personal data it has: start, end and kind of each."""

    text: str
    labels: tuple[tuple[int, int, str], ...]


def tuned(count: int = 1200) -> list[Labelled]:
    """Returns the sentences that the finder may be tuned on."""
    return _made(TUNED, listed(TUNED_NAMES), Random(1), count)


def judged(count: int = 2600) -> list[Labelled]:
    """Returns the sentences that the finder is judged by."""
    return _made(JUDGED, listed(JUDGED_NAMES), Random(2), count)


def _made(
    templates: Mapping[str, tuple[str, ...]], names: tuple[str, ...], draw: Random, count: int
) -> list[Labelled]:
    groups = sorted(templates)
    # A quarter has nothing to find.
    weights = [len(groups) // 3 if group == "nothing" else 1 for group in groups]
    chosen = draw.choices(groups, weights, k=count)
    return [_filled(draw.choice(templates[group]), names, draw) for group in chosen]


def _filled(template: str, names: tuple[str, ...], draw: Random) -> Labelled:
    text, at = "", 0
    labels: list[tuple[int, int, str]] = []
    for place in PLACE.finditer(template):
        text += template[at : place.start()]
        at = place.end()
        kind = place.group(1)
        if kind is None:
            text += place.group()[0]
            continue
        value = _value(kind, names, draw)
        if kind.isupper():
            entity = "PERSON" if kind in {"FORENAME", "SURNAME"} else kind
            labels.append((len(text), len(text) + len(value), entity))
        text += value
    return Labelled(text + template[at:], tuple(labels))


def _value(kind: str, names: tuple[str, ...], draw: Random) -> str:
    people: dict[str, Callable[[str], str]] = {
        "FORENAME": lambda name: name.split()[0],
        "PERSON": str,
        "SURNAME": lambda name: name.split()[-1],
    }
    if kind in people:
        return people[kind](draw.choice(names))
    return (VALUES.get(kind) or NEGATIVES[kind])(draw)
