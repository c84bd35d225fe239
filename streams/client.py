"""The client: ask over the bus and await the reply.

    async with Client() as client:
        reply = await client.chat("main.default.smollm2", "Why is the sky blue?")
        async for part in client.stream("main.default.smollm2", "Count to ten."):
            print(part.content, end="")
        vectors = await client.embed("main.default.embeddings", ["sea", "hill"])
        scores = await client.rerank("main.default.ranking", "waves", ["sea", "hill"])

Many requests may be under way at once; one reader serves them all.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import timedelta
from types import TracebackType
from typing import Self, TypedDict, Unpack
from uuid import uuid4

from infra.asker import Asker, ClientClosed, NoReply, RepliesLost, RequestRefused
from infra.registry import Registry
from infra.secrets import resolve
from infra.settings import ClientSettings, KafkaSettings, RegistrySettings
from infra.signing import Signer
from infra.telemetry import now
from schemas.events import (
    Attempt,
    Completion,
    InferenceReplied,
    InferenceRequested,
    Message,
    RequestCancelled,
    Role,
    Sampling,
    Task,
    Tool,
    ToolCallDelta,
)
from schemas.topics import INFERENCE_REQUESTED, REPLY, REQUEST_CANCELLED, Outgoing

__all__ = [
    "Client",
    "ClientClosed",
    "NoReply",
    "Part",
    "RepliesLost",
    "Reply",
    "RequestRefused",
    "Stitch",
]

DEFAULT_TIMEOUT_S = 60.0
MILLISECOND = timedelta(milliseconds=1)

Conversation = str | Sequence[Message]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The answer to a request.

    Attributes:
        request_id: Names the request in the inference table.
        completion: The whole answer with usage.
        tried: Routes that failed before.
    """

    request_id: str
    completion: Completion
    tried: tuple[Attempt, ...] = ()

    @property
    def content(self) -> str:
        """The text of the answer."""
        return self.completion.content


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A piece of an answer.

    Attributes:
        content: Text to append.
        tool_calls: Pieces of tool calls to append.
        restarted: Whether what came before is void: the answer begins anew with this part.
        reply: The whole answer; only in the last part.
    """

    content: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    restarted: bool = False
    reply: Reply | None = None


@dataclass(slots=True)
class Stitch:
    """Puts the parts of one request together, whatever is repeated, late or begun anew."""

    version: tuple[int, int] = (-1, -1)
    seen: int = 0
    content: str = ""

    def add(self, replied: InferenceReplied) -> Part | None:
        """Returns what a part adds, or None where it adds nothing."""
        delta = replied.delta
        version = (replied.attempt, replied.epoch)
        if delta is None or version < self.version:
            return None
        restarted = version > self.version and self.seen > 0
        if version > self.version:
            # A try whose beginning is missing does not void what is shown.
            if replied.seq:
                return None
            self.version, self.seen, self.content = version, 0, ""
        # Behind a gap nothing is shown: the terminal reply carries the whole text.
        if replied.seq != self.seen:
            return None
        self.seen += 1
        self.content += delta.content
        return Part(content=delta.content, tool_calls=delta.tool_calls, restarted=restarted)

    def end(self, reply: Reply) -> Part:
        """Returns the last part: what of the whole answer has not been seen."""
        whole = reply.content
        if whole.startswith(self.content):
            return Part(content=whole[len(self.content) :], reply=reply)
        return Part(content=whole, restarted=True, reply=reply)


class Terms(TypedDict, total=False):
    """What may be said of any request.

    Attributes:
        tags: Your own labels, for cost, limits and search; ``session`` names the conversation.
        timeout: Seconds until the request's deadline; 60 when left out.
    """

    tags: Mapping[str, str]
    timeout: float


class Options(Terms, total=False):
    """What may be said of a request for an answer, besides the endpoint and the conversation.

    Attributes:
        sampling: How tokens are drawn.
        json_schema: JSON Schema text that the answer must satisfy.
        tools: Functions that the model may ask for.
        tool_choice: auto, none, required, or a tool's name.
    """

    sampling: Sampling
    json_schema: str | None
    tools: Sequence[Tool]
    tool_choice: str


class Client:
    """Asks endpoints over the bus. Use it as an asynchronous context.

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
        self._tenant = settings.tenant if tenant is None else tenant
        self._principal = own.principal if principal is None else principal
        reference = own.key if key is None else key
        self._reply_topic = REPLY.member(reply_to or self._tenant)
        self._asker = Asker(
            kafka or KafkaSettings(),
            Registry(registry or RegistrySettings()),
            self._tenant,
            self._reply_topic.name,
            Signer(resolve(reference)) if reference else None,
        )

    async def __aenter__(self) -> Self:
        await self._asker.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._asker.__aexit__(kind, error, trace)

    async def chat(
        self, endpoint: str, messages: Conversation, **options: Unpack[Options]
    ) -> Reply:
        """Asks and returns the whole answer.

        Cancelling the task, or leaving by an error, cancels the request on the platform.

        Args:
            endpoint: Three-level name.
            messages: The conversation, or the one thing that the user says.
            options: What else may be said of a request; see ``Options``.

        Raises:
            RequestRefused: The platform said no.
            NoReply: Nothing came in time.
            PublishFailed: The broker did not take the request.
        """
        return await self._whole(self._chat(endpoint, messages, options, stream=False))

    async def stream(
        self, endpoint: str, messages: Conversation, **options: Unpack[Options]
    ) -> AsyncGenerator[Part, None]:
        """Asks and yields the answer as it grows; the last part carries the whole reply.

        Closing the iterator early cancels the request. Arguments and errors are those of ``chat``.
        """
        request = self._chat(endpoint, messages, options, stream=True)
        stitch = Stitch()
        async with aclosing(self._replies(request)) as replies:
            async for replied in replies:
                if replied.completion:
                    yield stitch.end(_reply(replied, replied.completion))
                elif part := stitch.add(replied):
                    yield part

    async def embed(
        self, endpoint: str, texts: Sequence[str], **terms: Unpack[Terms]
    ) -> tuple[tuple[float, ...], ...]:
        """Asks and returns the embeddings of texts, one vector for each in their order.

        Cancelling and errors are as with ``chat``.

        Args:
            endpoint: Three-level name.
            texts: What is to be embedded.
            terms: What may be said of any request; see ``Terms``.
        """
        request = replace(self._request(endpoint, terms), task=Task.EMBEDDING, inputs=tuple(texts))
        return (await self._whole(request)).completion.vectors

    async def rerank(
        self, endpoint: str, query: str, documents: Sequence[str], **terms: Unpack[Terms]
    ) -> tuple[float, ...]:
        """Asks and returns how relevant documents are, one score for each in their order.

        The higher the better. Cancelling and errors are as with ``chat``.

        Args:
            endpoint: Three-level name.
            query: What they are ranked by.
            documents: What is to be ranked.
            terms: What may be said of any request; see ``Terms``.
        """
        request = replace(
            self._request(endpoint, terms),
            task=Task.RERANK,
            query=query,
            inputs=tuple(documents),
        )
        return (await self._whole(request)).completion.scores

    def _chat(
        self, endpoint: str, messages: Conversation, options: Options, *, stream: bool
    ) -> InferenceRequested:
        if isinstance(messages, str):
            messages = [Message(role=Role.USER, content=messages)]
        return replace(
            self._request(endpoint, options),
            messages=tuple(messages),
            sampling=options.get("sampling", Sampling()),
            json_schema=options.get("json_schema"),
            tools=tuple(options.get("tools", ())),
            tool_choice=options.get("tool_choice", "auto"),
            stream=stream,
        )

    def _request(self, endpoint: str, terms: Terms) -> InferenceRequested:
        """Returns a request that asks for nothing yet."""
        instant = now()
        timeout = timedelta(seconds=terms.get("timeout", DEFAULT_TIMEOUT_S))
        return InferenceRequested(
            request_id=str(uuid4()),
            tenant=self._tenant,
            principal=self._principal,
            endpoint=endpoint,
            messages=(),
            sampling=Sampling(),
            reply_to=self._reply_topic.name,
            requested_at=instant,
            deadline=instant + timeout // MILLISECOND * MILLISECOND,
            tags=dict(terms.get("tags", {})),
        )

    async def _whole(self, request: InferenceRequested) -> Reply:
        """Asks and returns the whole answer."""
        async with aclosing(self._replies(request)) as replies:
            async for replied in replies:
                if replied.completion:
                    return _reply(replied, replied.completion)
        raise AssertionError("unreachable")

    async def _replies(self, request: InferenceRequested) -> AsyncGenerator[InferenceReplied, None]:
        """Asks and yields what comes back; cancels a request that is left before its end."""
        ended = False
        asking = self._asker.replies(
            INFERENCE_REQUESTED, request, request.request_id, request.deadline
        )
        try:
            async with aclosing(asking) as replies:
                async for replied in replies:
                    ended = replied.delta is None
                    yield replied
        except (NoReply, RequestRefused):
            ended = True
            raise
        finally:
            if not ended:
                self._cancel(request)

    def _cancel(self, request: InferenceRequested) -> None:
        """Says that nobody waits for a request any more; does not wait for that to be heard."""
        cancelled = RequestCancelled(
            request_id=request.request_id,
            tenant=request.tenant,
            cancelled_at=now(),
            deadline=request.deadline,
        )
        self._asker.say(Outgoing(REQUEST_CANCELLED, cancelled))


def _reply(replied: InferenceReplied, completion: Completion) -> Reply:
    return Reply(request_id=replied.request_id, completion=completion, tried=replied.tried)
