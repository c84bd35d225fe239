"""Secrets by reference: settings and catalog carry the reference, never the value.

A reference is ``store:place``: ``env:NAME``, ``file:PATH``, or a store of one's own that
``SECRETS_STORES`` names as JSON, ``{"vault": "package.module:function"}``; the function takes the
place and returns the secret. A reference is resolved when the secret is needed, so that a rotated
secret is picked up without a restart. Errors name the reference and never the value.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from infra.settings import SecretsSettings

# Dotted paths, as those of stores that are added.
SECRET_STORES: dict[str, str] = {
    "env": "infra.secrets:from_environment",
    "file": "infra.secrets:from_file",
}


class SecretUnavailable(Exception):
    """A reference leads to no secret; the message says which reference and why."""


def resolve(reference: str) -> str:
    """Returns the secret that a reference leads to; may block as long as its store does.

    Args:
        reference: ``env:NAME``, ``file:PATH``, or another store's name and a place in it.

    Raises:
        SecretUnavailable: The reference has another form, or nothing is where it points.
        SettingInvalid: ``SECRETS_STORES`` is no JSON object of texts.
    """
    name, _, place = reference.partition(":")
    stores = _stores()
    if not place or name not in stores:
        # What is no reference may be the secret itself, written in the wrong place.
        forms = "env:NAME, file:PATH or a store of SECRETS_STORES"
        raise SecretUnavailable(f"a secret is referred to by where it is: {forms}")
    try:
        secret = _store(stores[name])(place)
    # A store of somebody's own fails in its own ways, and its words may quote the secret.
    except Exception as error:  # noqa: BLE001
        kind = type(error).__name__
        raise SecretUnavailable(f"{reference} cannot be read: {kind}") from None
    if not secret:
        raise SecretUnavailable(f"{reference} is empty or missing")
    return secret


def leads(reference: str) -> bool:
    """Returns whether a reference names a store that there is; the secret is not looked for.

    Raises:
        SettingInvalid: ``SECRETS_STORES`` is no JSON object of texts.
    """
    return reference.partition(":")[0] in _stores()


def from_environment(name: str) -> str:
    """Returns a variable; empty where it is not set."""
    return os.environ.get(name, "")


def from_file(path: str) -> str:
    """Returns what a small file holds; its trailing newline is no part of the secret.

    Raises:
        OSError: It cannot be read.
        UnicodeDecodeError: It is no text.
    """
    return Path(path).read_text(encoding="utf-8").rstrip("\r\n")


def _stores() -> dict[str, str]:
    return {**SecretsSettings().stores, **SECRET_STORES}


def _store(path: str) -> Callable[[str], str]:
    module, _, function = path.partition(":")
    found: Callable[[str], str] = getattr(import_module(module), function)
    return found
