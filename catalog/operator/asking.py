"""How the operator's commands reach the registrar: signed requests over the bus, one at a time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar
from uuid import uuid4

from infra.asker import Asker
from infra.registry import Registry
from infra.secrets import resolve
from infra.settings import ClientSettings, KafkaSettings, RegistrySettings
from infra.signing import Signer
from infra.telemetry import now
from schemas.events import CatalogWanted
from schemas.topics import CATALOG_WANTED, REPLY

T = TypeVar("T")

TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Registered:
    """The catalog as a caller reaches it."""

    asker: Asker
    client: ClientSettings
    signer: Signer | None

    async def ask(self, action: str, **arguments: object) -> dict[str, Any]:
        """Returns what a command came to; arguments that are None are left out.

        Raises:
            NoReply: Nothing came in time; whether the command was carried out is not known.
            PublishFailed: The broker did not take it.
            RequestRefused: The registrar said no.
        """
        instant = now()
        said = {name: value for name, value in arguments.items() if value is not None}
        wanted = CatalogWanted(
            request_id=str(uuid4()),
            tenant=self.client.tenant,
            principal=self.client.principal,
            action=action,
            body=json.dumps(said),
            reply_to=REPLY.member(self.client.tenant).name,
            requested_at=instant,
            deadline=instant + timedelta(seconds=TIMEOUT_S),
        )
        replies = self.asker.replies(CATALOG_WANTED, wanted, wanted.request_id, wanted.deadline)
        async with aclosing(replies):
            async for replied in replies:
                result: dict[str, Any] = json.loads(replied.result or "{}")
                return result
        raise AssertionError("unreachable")


def reach(work: Callable[[Registered], Awaitable[T]]) -> T:
    """Does some work with the catalog, as whom the environment names.

    Raises:
        BusUnreachable: No broker answers.
        KeyUnusable: The key is none.
        LookupError: The tenant has no reply topic yet, or provisioning has not run.
        RegistryUnreachable: The schema registry does not answer.
        SecretUnavailable: The key is not where its reference points.
        SettingInvalid: A variable holds what it cannot.
    """
    client = ClientSettings()
    signer = Signer(resolve(client.key)) if client.key else None

    async def working() -> T:
        registry = Registry(RegistrySettings())
        topic = REPLY.member(client.tenant).name
        async with Asker(KafkaSettings(), registry, client.tenant, topic, signer) as asker:
            return await work(Registered(asker, client, signer))

    return asyncio.run(working())


def ask(action: str, **arguments: object) -> dict[str, Any]:
    """Returns what one command came to; errors are those of ``reach`` and ``Registered.ask``."""
    return reach(lambda catalog: catalog.ask(action, **arguments))
