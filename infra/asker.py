"""Asking over the bus: publish a request, signed, and await what comes back under its id.

One reader serves all requests that are under way. The client of endpoints and the operator's
commands stand on this.

Everybody may write to the request topic, so a reply may be to somebody else's record that only
bears this request's id: another's own request, one that is unsigned or badly signed, or a copy. A
final reply says which record it is to (``claim``); unless that is the one sent from here, it is
passed over. So is SIGNATURE_REPLAYED: the request itself was taken before its copy, and its own
reply stands. Parts of an answer say not which record they are of; the final reply has the whole.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import structlog

from infra.bus import Publisher, PublishFailed, Record
from infra.registry import Reader, Registry, SchemaMissing
from infra.settings import KafkaSettings
from infra.signing import Signer, claim, claimed
from infra.tail import Tail
from infra.telemetry import TRACEPARENT, Headers, new_traceparent, now
from schemas.codec import Codec, Unreadable
from schemas.events import (
    Attempt,
    Completion,
    Event,
    InferenceReplied,
    InferenceRequested,
    Reason,
    Refusal,
    RequestCancelled,
)
from schemas.topics import INFERENCE_REQUESTED, REQUEST_CANCELLED, Outgoing, Topic, root_of

log = structlog.get_logger()

# The platform itself replies at the deadline; the asker waits a little longer for that.
GRACE_S = 5.0


class RequestRefused(RuntimeError):
    """The platform said no.

    Attributes:
        request_id: The request.
        refusal: The reason, what was wrong and what to do.
        tried: Routes that failed before.
    """

    def __init__(self, request_id: str, refusal: Refusal, tried: Sequence[Attempt]) -> None:
        super().__init__(f"{refusal.reason}: {refusal.message}")
        self.request_id = request_id
        self.refusal = refusal
        self.tried = tried

    @property
    def rule(self) -> str | None:
        """The rule that refused, as policy/rule; None where it was none."""
        return self.refusal.rule

    @property
    def limit(self) -> Decimal | None:
        """The bound that the rule sets; dollars where it counts them."""
        return None if self.refusal.limit is None else Decimal(self.refusal.limit)

    @property
    def used(self) -> Decimal | None:
        """How much of it was used already."""
        return None if self.refusal.used is None else Decimal(self.refusal.used)

    @property
    def retry_after(self) -> timedelta | None:
        """When trying again makes sense; None where that is not known, or never."""
        wait = self.refusal.retry_after_ms
        return None if wait is None else timedelta(milliseconds=wait)


class NoReply(TimeoutError):
    """No terminal reply came in time; whether the request was worked on is not known."""

    def __init__(self, request_id: str, seconds: float) -> None:
        super().__init__(f"no reply to request {request_id} within {seconds:g} s")
        self.request_id = request_id


class ClientClosed(RuntimeError):
    """The client was closed while a request was under way."""

    def __init__(self, request_id: str) -> None:
        super().__init__(f"the client was closed before the reply to request {request_id} came")
        self.request_id = request_id


class RepliesLost(RuntimeError):
    """Replies can be heard no more, or one may have been missed; the message says why."""


@dataclass(slots=True)
class _Pending:
    """A request under way: which record it is, and what came back; None when nothing more can."""

    claim: str = ""
    replies: asyncio.Queue[InferenceReplied | None] = field(default_factory=asyncio.Queue)

    def means(self, replied: InferenceReplied) -> bool:
        """Returns whether a reply is to this record, and not to another under its id."""
        if replied.refusal and replied.refusal.reason is Reason.SIGNATURE_REPLAYED:
            return False
        return replied.claim is None or replied.claim == self.claim


class Asker:
    """Asks, and hears what comes back. Use it as an asynchronous context.

    Args:
        kafka: Where the broker is.
        registry: Knows the schemas.
        tenant: Who pays; names the process on the broker.
        reply_topic: Full name of the topic that the requests name for their replies.
        signer: Signs the requests; None sends them unsigned.

    Attributes:
        reader: Reads what is on the bus.

    Raises:
        BusUnreachable: No broker answers.
        RegistryUnreachable: The registry does not answer.
        LookupError: The reply topic or a schema does not exist: provisioning has not run, or the
            catalog does not know the tenant.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        registry: Registry,
        tenant: str,
        reply_topic: str,
        signer: Signer | None,
    ) -> None:
        self._kafka = kafka
        self._registry = registry
        self._name = f"client-{tenant}"
        self._reply_topic = reply_topic
        self._signer = signer
        self._pending: dict[str, _Pending] = {}
        # Keys of the replies that are waited for, and how many share one.
        self._roots: Counter[bytes] = Counter()
        self._arrived: asyncio.Queue[Record] = asyncio.Queue()
        self._lost: RepliesLost | None = None

    async def __aenter__(self) -> Self:
        codec = Codec(await asyncio.to_thread(self._registry.ids))
        self.reader = Reader(codec, self._registry)
        self._publisher = Publisher(self._kafka, codec, self._name)
        name = f"{self._name}-{uuid4()}"
        self._tail = Tail(
            self._kafka,
            [self._reply_topic],
            None,
            self._arrive,
            name,
            fail=self._lose,
            committed=False,
        )
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
            pending.replies.put_nowait(None)
        await asyncio.sleep(0)
        await self._tail.close()
        await self._publisher.close()

    async def replies(
        self, topic: Topic[Any], event: Event, request_id: str, deadline: datetime
    ) -> AsyncGenerator[InferenceReplied, None]:
        """Sends a request and yields what comes back; the last reply is the terminal one.

        Args:
            topic: Where it goes.
            event: The request, which names this asker's reply topic.
            request_id: Its id, under which replies come.
            deadline: When an answer stops being of use.

        Raises:
            ClientClosed: This was closed meanwhile.
            NoReply: Nothing came until a little after the deadline.
            PublishFailed: The broker did not take the request.
            RepliesLost: What comes back can be heard no more.
            RequestRefused: The platform said no.
        """
        if self._lost:
            raise self._lost
        pending = self._pending[request_id] = _Pending()
        self._roots[root_of(request_id).encode()] += 1
        patience = max(0.0, (deadline - now()).total_seconds()) + GRACE_S
        until = asyncio.get_running_loop().time() + patience
        try:
            async with asyncio.timeout_at(until):
                [asked] = self._publisher.encode([Outgoing(topic, event)])
                signed = self._signed(asked.topic, asked.key or b"", deadline, asked.value or b"")
                pending.claim = claim(claimed(signed, asked.value or b""))
                traced = (TRACEPARENT, new_traceparent().encode())
                await self._publisher.publish([asked], [traced, *signed])
            ended = False
            while not ended:
                async with asyncio.timeout_at(until):
                    replied = await pending.replies.get()
                if replied is None:
                    raise self._lost or ClientClosed(request_id)
                if replied.refusal:
                    raise RequestRefused(request_id, replied.refusal, replied.tried)
                ended = replied.delta is None
                yield replied
        except TimeoutError:
            raise NoReply(request_id, patience) from None
        finally:
            self._pending.pop(request_id, None)
            self._leave(root_of(request_id).encode())

    async def answers(self, request: InferenceRequested) -> AsyncGenerator[InferenceReplied, None]:
        """Asks a model or an index; a request that is left before its end is cancelled.

        Yields and raises as ``replies`` does.
        """
        ended = False
        asking = self.replies(INFERENCE_REQUESTED, request, request.request_id, request.deadline)
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
                self.say(_cancelled(request))

    async def completion(self, request: InferenceRequested) -> Completion | None:
        """Returns the whole answer to a request; None where it ended with none.

        Raises as ``replies`` does; a request that is left before its end is cancelled.
        """
        async with aclosing(self.answers(request)) as replies:
            async for replied in replies:
                if replied.completion is not None:
                    return replied.completion
        return None

    async def tell(self, outgoing: Outgoing) -> None:
        """Publishes an event and returns once it lies on the log.

        Raises:
            PublishFailed: The broker did not take it.
        """
        await self._publisher.publish(self._publisher.encode([outgoing]))

    def say(self, outgoing: Outgoing) -> None:
        """Publishes an event without waiting until it is heard, and whether or not it ever is."""
        with suppress(PublishFailed):
            self._publisher.post(self._publisher.encode([outgoing]), (), lambda failed: None)

    def _signed(self, topic: str, key: bytes, deadline: datetime, value: bytes) -> Headers:
        return self._signer.headers(topic, key, deadline, value) if self._signer else ()

    def _leave(self, root: bytes) -> None:
        self._roots[root] -= 1
        if not self._roots[root]:
            del self._roots[root]

    def _lose(self, error: BaseException) -> None:
        self._lost = RepliesLost(str(error))
        for pending in self._pending.values():
            pending.replies.put_nowait(None)

    def _arrive(self, records: list[Record]) -> None:
        # The reply topic is the tenant's: most of it may be for other clients.
        for record in records:
            if record.key in self._roots:
                self._arrived.put_nowait(record)

    async def _dispatch(self) -> None:
        while True:
            record = await self._arrived.get()
            try:
                replied = await self.reader.read(record.value, InferenceReplied)
            except (Unreadable, SchemaMissing) as problem:
                log.warning("reply unreadable", offset=record.offset, error=str(problem))
                continue
            pending = self._pending.get(replied.request_id)
            if pending is None:
                continue
            if pending.means(replied):
                pending.replies.put_nowait(replied)
            else:
                log.warning(
                    "reply to another record under this id passed over",
                    request_id=replied.request_id,
                    reason=replied.refusal.reason if replied.refusal else None,
                )


def _cancelled(request: InferenceRequested) -> Outgoing:
    cancelled = RequestCancelled(
        request_id=request.request_id,
        tenant=request.tenant,
        cancelled_at=now(),
        deadline=request.deadline,
    )
    return Outgoing(REQUEST_CANCELLED, cancelled)
