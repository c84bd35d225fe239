"""Secrets of the local stack: random, one file each under ``run``, readable by the owner alone.

Passwords and API keys are words; the operator's private key is a PEM file, as for any principal.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

from infra import signing
from infra.stack.service import run_folder
from infra.stack.settings import StackSettings

WORD_BYTES = 24


def secret_path(name: str, settings: StackSettings) -> Path:
    """Where a secret is or will be; pure."""
    return run_folder(settings) / f"{name}.secret"


def secret(name: str, settings: StackSettings) -> str:
    """The secret ``name``, made on first use. It is neither printed nor logged anywhere."""
    return kept_word(secret_path(name, settings))


def kept_word(path: Path) -> str:
    """A secret of anybody's, made on first use where ``path`` says; the owner alone may read it."""
    return _kept(path, lambda: secrets.token_urlsafe(WORD_BYTES))


def key_path(principal: str, settings: StackSettings) -> Path:
    """Where the private key of a principal is or will be; pure."""
    return run_folder(settings) / f"{principal}.pem"


def private_key(principal: str, settings: StackSettings) -> str:
    """The private key that a principal signs with, made on first use."""
    return _kept(key_path(principal, settings), signing.generate)


def _kept(path: Path, make: Callable[[], str]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text()
    with os.fdopen(descriptor, "w") as file:
        file.write(make())
    return path.read_text()
