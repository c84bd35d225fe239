"""Guards that somebody else answers: one file for each kind of who that is.

They see texts that are masked already, and none of their words go further than here: what is kept
of a verdict is which it is, and a label out of a fixed list.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from infra.asker import Asker
from infra.catalog import CatalogView
from infra.settings import ClientSettings
from schemas.events import InferenceHeld
from workers.guards.lines import Lines

VERDICTS = ("ALLOW", "ASK", "DENY", "MASK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What somebody says of texts.

    Attributes:
        says: ALLOW, ASK, DENY, or MASK: others go on instead.
        texts: Those others, one for each.
        label: What was found, out of a fixed list; empty for nothing.
    """

    says: Literal["ALLOW", "ASK", "DENY", "MASK"]
    texts: tuple[str, ...] = ()
    label: str = ""


class Unjudged(Exception):
    """There is no verdict; the message says why, in words for the caller, and quotes nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Office:
    """What guards have at hand.

    Attributes:
        view: The catalog.
        asker: Asks endpoints, as the platform.
        client: As whom.
        lines: Connections to services.
    """

    view: CatalogView
    asker: Asker
    client: ClientSettings
    lines: Lines


# Hears that a secret was asked for: its reference, and why it could not be had, if so.
Tell = Callable[[str, str | None], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is to be judged.

    Attributes:
        name: The rule that asks: policy/rule.
        held: What waits.
        texts: What is judged, as earlier rules left it.
        tell: Hears of secrets.
    """

    name: str
    held: InferenceHeld
    texts: tuple[str, ...]
    tell: Tell
