"""Secrets by reference: settings and catalog carry the reference, never the value.

A reference is ``store:place``: ``env:NAME``, ``file:PATH``, or a store of one's own that
``SECRETS_STORES`` names as JSON, ``{"vault": "package.module:function"}``; the function takes the
place and returns the secret. A reference is resolved when the secret is needed, so that a rotated
secret is picked up without a restart. Errors name the reference and never the value.

What the catalog names is lent: whoever may write a reference there chooses also where the secret is
sent, so none of the platform's own is lent. Those are what its settings are read from, what they
refer to, and the files of the local stack.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path

from infra.bootstrap import ROOT
from infra.settings import SecretsSettings, Settings
from infra.stack.settings import StackSettings

# Dotted paths, as those of stores that are added.
SECRET_STORES: dict[str, str] = {
    "env": "infra.secrets:from_environment",
    "file": "infra.secrets:from_file",
}

# Variables with secrets of the platform that none of its settings is read from.
OTHERS_OWN = frozenset({"POSTGRES_SECRET", "SEAL_SECRET", "WEAVIATE_API_KEY"})
# The kernel shows there the environment and the open files of every process.
PROCESSES = Path("/proc")


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


def lend(reference: str) -> str:
    """Returns the secret that the catalog refers to; blocks as ``resolve`` does.

    Args:
        reference: As for ``resolve``, but to none of the platform's own secrets.

    Raises:
        SecretUnavailable: As for ``resolve``, or it is the platform's own.
        SettingInvalid: ``SECRETS_STORES`` is no JSON object of texts.
    """
    if _own(reference):
        raise SecretUnavailable(
            f"{reference} is the platform's own and is lent to no connection: "
            "keep the connection's secret elsewhere"
        )
    return resolve(reference)


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


def _own(reference: str) -> bool:
    name, _, place = reference.partition(":")
    variables = _variables() | OTHERS_OWN
    if name == "env" and place.upper() in variables:
        return True
    values = (os.environ.get(each, "") for each in variables)
    referred = {_exact(each) for each in values if ":" in each}
    if _exact(reference) in referred:
        return True
    return name == "file" and any(_file(place).is_relative_to(each) for each in _closed())


def _closed() -> tuple[Path, ...]:
    home = os.environ.get("STACK_HOME") or StackSettings.model_fields["home"].default
    return PROCESSES, (ROOT / home / "run").resolve()


def _exact(reference: str) -> str:
    """Returns a reference as it is compared: a file has one name, however it is written."""
    name, _, place = reference.partition(":")
    return f"file:{_file(place)}" if name == "file" else reference


def _file(place: str) -> Path:
    try:
        return Path(place).resolve()
    # What is no path leads to no file: a NUL, or links in a circle.
    except (OSError, RuntimeError, ValueError):
        return Path(place)


@cache
def _variables() -> frozenset[str]:
    """Returns what settings are read from."""
    return frozenset(
        str(field.validation_alias or f"{concern.model_config.get('env_prefix', '')}{name}").upper()
        for concern in Settings.__subclasses__()
        for name, field in concern.model_fields.items()
    )


def _stores() -> dict[str, str]:
    return {**SecretsSettings().stores, **SECRET_STORES}


def _store(path: str) -> Callable[[str], str]:
    module, _, function = path.partition(":")
    found: Callable[[str], str] = getattr(import_module(module), function)
    return found
