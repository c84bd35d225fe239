"""What all that a client does stands on: requests in its name, and whole answers to them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from datetime import timedelta
from types import TracebackType
from typing import Self
from uuid import uuid4

from infra.asker import Asker
from infra.registry import Registry
from infra.secrets import resolve
from infra.settings import ClientSettings, KafkaSettings, RegistrySettings
from infra.signing import Signer
from infra.telemetry import now
from schemas.events import (
    Completion,
    InferenceReplied,
    InferenceRequested,
    Message,
    Role,
    Sampling,
)
from schemas.topics import REPLY
from streams.replies import Reply
from streams.terms import Terms

DEFAULT_TIMEOUT_S = 60.0
MILLISECOND = timedelta(milliseconds=1)

Conversation = str | Sequence[Message]


class Connection:
    """Asks over the bus, as somebody. Use it as an asynchronous context.

    What is left out is read from the environment (CLIENT_*, KAFKA_*, REGISTRY_*); its principal and
    key only where neither another tenant nor another key is given.

    Args:
        tenant: Who pays.
        principal: Who acts; whose key it is, when left empty.
        key: Where the private key is that signs the requests: ``file:PATH`` to its PEM, or another
            reference to a secret. Without one, requests are sent unsigned.
        kafka: Where the broker is.
        registry: Where the schema registry is.
        reply_to: Last segment of the reply topic; the tenant's name when left out.

    Attributes:
        asker: Asks for this client.
        kafka: Where the broker is.
        reply_topic: Full name of the topic on which this client is answered.
        tenant: Who pays.

    Raises:
        BusUnreachable: No broker answers.
        KeyUnusable: What the reference leads to is no private key.
        LookupError: The reply topic or a schema does not exist: provisioning has not run, or the
            catalog does not know the tenant.
        RegistryUnreachable: The registry does not answer.
        SecretUnavailable: The reference leads nowhere.
    """

    def __init__(
        self,
        *,
        tenant: str | None = None,
        principal: str | None = None,
        key: str | None = None,
        kafka: KafkaSettings | None = None,
        registry: RegistrySettings | None = None,
        reply_to: str | None = None,
    ) -> None:
        settings = ClientSettings()
        # The environment's principal and key are one another's, and their tenant's.
        settled = key is None and tenant in (None, settings.tenant)
        own = settings if settled else ClientSettings(principal="", key="")
        self.tenant = settings.tenant if tenant is None else tenant
        self._principal = own.principal if principal is None else principal
        reference = own.key if key is None else key
        self.reply_topic = REPLY.member(reply_to or self.tenant).name
        self.kafka = kafka or KafkaSettings()
        self.asker = Asker(
            self.kafka,
            Registry(registry or RegistrySettings()),
            self.tenant,
            self.reply_topic,
            Signer(resolve(reference)) if reference else None,
        )

    async def __aenter__(self) -> Self:
        await self.asker.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.asker.__aexit__(kind, error, trace)

    def request(self, endpoint: str, terms: Terms) -> InferenceRequested:
        """Returns a request that asks for nothing yet."""
        instant = now()
        timeout = timedelta(seconds=terms.get("timeout", DEFAULT_TIMEOUT_S))
        return InferenceRequested(
            request_id=str(uuid4()),
            tenant=self.tenant,
            principal=self._principal,
            endpoint=endpoint,
            messages=(),
            sampling=Sampling(),
            reply_to=self.reply_topic,
            requested_at=instant,
            deadline=instant + timeout // MILLISECOND * MILLISECOND,
            tags=dict(terms.get("tags", {})),
        )

    async def whole(self, request: InferenceRequested) -> Reply:
        """Asks and returns the whole answer."""
        async with aclosing(self.asker.answers(request)) as replies:
            async for replied in replies:
                if replied.completion:
                    return replied_with(replied, replied.completion)
        raise AssertionError("unreachable")


def conversation(messages: Conversation) -> tuple[Message, ...]:
    """Returns a conversation as a request has it."""
    if isinstance(messages, str):
        return (Message(role=Role.USER, content=messages),)
    return tuple(messages)


def replied_with(replied: InferenceReplied, completion: Completion) -> Reply:
    """Returns an answer as a client has it."""
    return Reply(request_id=replied.request_id, completion=completion, tried=replied.tried)
