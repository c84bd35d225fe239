"""The kinds of guards, by the type of their rules.

A new kind is one file here that makes a ``Detector`` of its rule, and one line in ``GUARDS``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from streams.guards.found import Detector
from streams.guards.kinds.injection import injection
from streams.guards.kinds.json_schema import json_schema
from streams.guards.kinds.keywords import keywords
from streams.guards.kinds.length import length
from streams.guards.kinds.personal import personal
from streams.guards.kinds.regex import regex
from streams.guards.kinds.remote import remote
from streams.guards.kinds.secrets import secrets
from streams.guards.kinds.topics import topics

GUARDS: dict[str, Callable[[Any], Detector]] = {
    "function": remote,
    "http": remote,
    "injection": injection,
    "json_schema": json_schema,
    "judge": remote,
    "keywords": keywords,
    "length": length,
    "pii": personal,
    "regex": regex,
    "secrets": secrets,
    "topics": topics,
}
