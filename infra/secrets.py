"""Secrets by reference: settings and catalog carry the reference, never the value.

A reference is ``env:NAME`` or ``file:PATH``. It is resolved when the secret is needed, so that a
rotated secret is picked up without a restart. Errors name the reference and never the value.
"""

from __future__ import annotations

import os
from pathlib import Path


class SecretUnavailable(Exception):
    """A reference leads to no secret; the message says which reference and why."""


def resolve(reference: str) -> str:
    """Returns the secret that a reference leads to.

    Reads one variable or one small file; the file's trailing newline is no part of the secret.

    Args:
        reference: ``env:NAME`` or ``file:PATH``.

    Raises:
        SecretUnavailable: The reference has another form, or nothing is where it points.
    """
    kind, _, place = reference.partition(":")
    if not place or kind not in {"env", "file"}:
        # What is no reference may be the secret itself, written in the wrong place.
        raise SecretUnavailable("a secret is referred to as env:NAME or file:PATH")
    secret = os.environ.get(place, "") if kind == "env" else _read(reference, Path(place))
    if not secret:
        raise SecretUnavailable(f"{reference} is empty or missing")
    return secret


def _read(reference: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SecretUnavailable(f"{reference} cannot be read: {type(error).__name__}") from None
