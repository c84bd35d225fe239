"""The client: ask over the bus and await the reply.

    async with Client(tenant="demo") as client:
        reply = await client.chat("main.default.smollm2", "Why is the sky blue?")
        async for part in client.stream("main.default.smollm2", "Count to ten."):
            print(part.content, end="")

Many requests may be under way at once; one reader serves them all.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Self, TypedDict, Unpack
from uuid import uuid4

import structlog

from infra.bus import Publisher, PublishFailed, Record
from infra.registry import Reader, Registry, SchemaMissing
from infra.settings import KafkaSettings, RegistrySettings
from infra.tail import Tail
from infra.telemetry import TRACEPARENT, new_traceparent, now
from schemas.codec import Codec, Unreadable
from schemas.events import (
    Attempt,
    Completion,
    InferenceReplied,
    InferenceRequested,
    Message,
    Refusal,
    RequestCancelled,
    Role,
    Sampling,
    Tool,
    ToolCallDelta,
)
from schemas.topics import INFERENCE_REQUESTED, REPLY, REQUEST_CANCELLED, Outgoing

log = structlog.get_logger()

DEFAULT_TIMEOUT_S = 60.0
# The platform itself replies at the deadline; the client waits a little longer for that.
GRACE_S = 5.0
MILLISECOND = timedelta(milliseconds=1)

Conversation = str | Sequence[Message]


class RequestRefused(RuntimeError):
    """The platform said no; ``refusal`` has the reason, what was wrong and what to do."""

    def __init__(self, request_id: str, refusal: Refusal, tried: Sequence[Attempt]) -> None:
        super().__init__(f"{refusal.reason}: {refusal.message}")
        self.request_id = request_id
        self.refusal = refusal
        self.tried = tried


class NoReply(TimeoutError):
    """No terminal reply came in time; whether the request was worked on is not known."""

    def __init__(self, request_id: str, seconds: float) -> None:
        super().__init__(f"no reply to request {request_id} within {seconds:g} s")
        self.request_id = request_id


class ClientClosed(RuntimeError):
    """The client was closed while a request was under way; the request is cancelled."""

    def __init__(self, request_id: str) -> None:
        super().__init__(f"the client was closed before the reply to request {request_id} came")
        self.request_id = request_id


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


class Options(TypedDict, total=False):
    """What may be said of a request besides the endpoint and the conversation.

    Attributes:
        sampling: How tokens are drawn.
        json_schema: JSON Schema text that the answer must satisfy.
        tools: Functions that the model may ask for.
        tool_choice: auto, none, required, or a tool's name.
        tags: Your own labels, for cost and search.
        timeout: Seconds until the request's deadline; 60 when left out.
    """

    sampling: Sampling
    json_schema: str | None
    tools: Sequence[Tool]
    tool_choice: str
    tags: Mapping[str, str]
    timeout: float


class Client:
    """Asks endpoints over the bus. Use it as an asynchronous context.

    Args:
        tenant: Who pays.
        principal: Who acts, where it is not the tenant itself.
        kafka: Where the broker is; read from the environment when left out.
        registry: Where the schema registry is; likewise.
        reply_to: Last segment of the reply topic; the tenant's name when left out.

    Raises:
        BusUnreachable: No broker answers.
        RegistryUnreachable: The registry does not answer.
        LookupError: The reply topic or a schema does not exist: provisioning has not run, or the
            catalog does not know the tenant.
    """

    def __init__(
        self,
        *,
        tenant: str,
        principal: str = "",
        kafka: KafkaSettings | None = None,
        registry: RegistrySettings | None = None,
        reply_to: str | None = None,
    ) -> None:
        self._tenant = tenant
        self._principal = principal
        self._kafka = kafka or KafkaSettings()
        self._registry = Registry(registry or RegistrySettings())
        self._reply_topic = REPLY.member(reply_to or tenant)
        self._pending: dict[bytes, asyncio.Queue[InferenceReplied | None]] = {}
        self._arrived: asyncio.Queue[Record] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        codec = Codec(await asyncio.to_thread(self._registry.ids))
        self._reader = Reader(codec, self._registry)
        self._publisher = Publisher(self._kafka, codec, f"client-{self._tenant}")
        name = f"client-{self._tenant}-{uuid4()}"
        self._tail = Tail(self._kafka, [self._reply_topic.name], None, self._arrive, name)
        try:
            await self._tail.start()
        except BaseException:
            await self._publisher.close()
            raise
        self._dispatching = asyncio.create_task(self._dispatch())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._dispatching.cancel()
        with suppress(asyncio.CancelledError):
            await self._dispatching
        # Whoever still waits in another task waits in vain from now on.
        for pending in self._pending.values():
            pending.put_nowait(None)
        await asyncio.sleep(0)
        await self._tail.close()
        await self._publisher.close()

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
        request = self._request(endpoint, messages, options, stream=False)
        async with aclosing(self._replies(request)) as replies:
            async for replied in replies:
                if replied.completion:
                    return _reply(replied, replied.completion)
        raise AssertionError("unreachable")

    async def stream(
        self, endpoint: str, messages: Conversation, **options: Unpack[Options]
    ) -> AsyncGenerator[Part, None]:
        """Asks and yields the answer as it grows; the last part carries the whole reply.

        Closing the iterator early cancels the request. Arguments and errors are those of ``chat``.
        """
        request = self._request(endpoint, messages, options, stream=True)
        stitch = Stitch()
        async with aclosing(self._replies(request)) as replies:
            async for replied in replies:
                if replied.completion:
                    yield stitch.end(_reply(replied, replied.completion))
                elif part := stitch.add(replied):
                    yield part

    def _request(
        self, endpoint: str, messages: Conversation, options: Options, *, stream: bool
    ) -> InferenceRequested:
        instant = now()
        timeout = timedelta(seconds=options.get("timeout", DEFAULT_TIMEOUT_S))
        if isinstance(messages, str):
            messages = [Message(role=Role.USER, content=messages)]
        return InferenceRequested(
            request_id=str(uuid4()),
            tenant=self._tenant,
            principal=self._principal,
            endpoint=endpoint,
            messages=tuple(messages),
            sampling=options.get("sampling", Sampling()),
            json_schema=options.get("json_schema"),
            tools=tuple(options.get("tools", ())),
            tool_choice=options.get("tool_choice", "auto"),
            stream=stream,
            reply_to=self._reply_topic.name,
            requested_at=instant,
            deadline=instant + timeout // MILLISECOND * MILLISECOND,
            tags=dict(options.get("tags", {})),
        )

    async def _replies(self, request: InferenceRequested) -> AsyncGenerator[InferenceReplied, None]:
        """Sends a request and yields what comes back; the last one carries the completion."""
        key = request.request_id.encode()
        replies = self._pending[key] = asyncio.Queue()
        patience = (request.deadline - request.requested_at).total_seconds() + GRACE_S
        until = asyncio.get_running_loop().time() + patience
        headers = [(TRACEPARENT, new_traceparent().encode())]
        ended = False
        try:
            async with asyncio.timeout_at(until):
                asked = self._publisher.encode([Outgoing(INFERENCE_REQUESTED, request)])
                await self._publisher.publish(asked, headers)
            while not ended:
                async with asyncio.timeout_at(until):
                    replied = await replies.get()
                if replied is None:
                    raise ClientClosed(request.request_id)
                ended = replied.delta is None
                if replied.refusal:
                    raise RequestRefused(request.request_id, replied.refusal, replied.tried)
                yield replied
        except TimeoutError:
            ended = True
            raise NoReply(request.request_id, patience) from None
        finally:
            self._pending.pop(key, None)
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
        with suppress(PublishFailed):
            said = self._publisher.encode([Outgoing(REQUEST_CANCELLED, cancelled)])
            self._publisher.post(said, (), lambda failed: None)

    def _arrive(self, records: list[Record]) -> None:
        # The reply topic is the tenant's: most of it may be for other clients.
        for record in records:
            if record.key in self._pending:
                self._arrived.put_nowait(record)

    async def _dispatch(self) -> None:
        while True:
            record = await self._arrived.get()
            try:
                replied = await self._reader.read(record.value, InferenceReplied)
            except (Unreadable, SchemaMissing) as problem:
                log.warning("reply unreadable", offset=record.offset, error=str(problem))
                continue
            if pending := self._pending.get(record.key or b""):
                pending.put_nowait(replied)


def _reply(replied: InferenceReplied, completion: Completion) -> Reply:
    return Reply(request_id=replied.request_id, completion=completion, tried=replied.tried)
