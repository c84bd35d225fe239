"""The desk: what a gateway process has at hand for its decisions, besides event, view and moment.

Steps read it and change nothing on it. It changes between them: health by what is sent and what
completes, answers by what is kept.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import structlog

from infra.catalog import CatalogView
from infra.secrets import resolve
from infra.settings import SettingInvalid
from schemas.events import Refusal
from schemas.policies import PolicySpec
from streams.gateway.cache import Cache
from streams.gateway.limits.rules import unreadable
from streams.gateway.routing import Health
from streams.guards import Seal

# By name, in the order in which they hold.
Policies = tuple[tuple[str, PolicySpec], ...]

SECRET_BYTES = 32

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Desk:
    """What a gateway process has at hand.

    Attributes:
        answers: Answers that are good for the same request again.
        health: Which routes are up, as far as this process has seen.
        seal: Seals what placeholders stand for. Without a secret it is this process's own.
    """

    answers: Cache = field(default_factory=Cache)
    health: Health = field(default_factory=Health)
    seal: Seal = field(default_factory=lambda: Seal(os.urandom(SECRET_BYTES)))


def policies_of(tenant: str, endpoint: str, view: CatalogView) -> Policies | Refusal:
    """Returns the policies that hold for what a tenant asks of an endpoint, each once.

    One that cannot be read lets nothing pass: nobody knows what it forbids.
    """
    asked, asks = view.endpoints.get(endpoint), view.tenants.get(tenant)
    names = dict.fromkeys((*(asked.policies if asked else ()), *(asks.policies if asks else ())))
    for name in names:
        if name not in view.policies:
            return unreadable(name)
    return tuple((name, view.policies[name]) for name in names)


def opened(reference: str) -> Desk:
    """Returns the desk of a process that begins.

    Args:
        reference: Where the secret of the seal is; empty for one that nobody else has.

    Raises:
        SettingInvalid: The secret is too short.
        SecretUnavailable: The reference leads nowhere.
    """
    if not reference:
        log.warning("no GATEWAY_SEAL: what this process masks, no other can restore")
        return Desk()
    try:
        return Desk(seal=Seal(resolve(reference).encode()))
    except ValueError as problem:
        raise SettingInvalid(f"GATEWAY_SEAL: {problem}") from None
