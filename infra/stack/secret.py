"""Secrets of the local stack: random, one file each under ``run``, readable by the owner alone."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from infra.settings import StackSettings
from infra.stack.service import run_folder


def secret_path(name: str, settings: StackSettings) -> Path:
    """Where a secret is or will be; pure."""
    return run_folder(settings) / f"{name}.secret"


def secret(name: str, settings: StackSettings) -> str:
    """The secret ``name``, made on first use. It is neither printed nor logged anywhere."""
    path = secret_path(name, settings)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text()
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_urlsafe(24))
    return path.read_text()
