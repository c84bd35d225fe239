"""The client: ask over the bus and await the reply.

    async with Client() as client:
        reply = await client.chat("main.default.smollm2", "Why is the sky blue?")
        async for part in client.stream("main.default.smollm2", "Count to ten."):
            print(part.content, end="")
        vectors = await client.embed("main.default.embeddings", ["sea", "hill"])
        scores = await client.rerank("main.default.ranking", "waves", ["sea", "hill"])
        await client.upsert("main.kb.notes", [{"id": 1, "body": "The sea is salt."}])
        found = await client.search("main.kb.notes", "water", k=3, filters={"id <": 100})

Many requests may be under way at once; one reader serves them all.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from types import TracebackType
from typing import Any, Self, Unpack
from uuid import uuid4

from infra.asker import Asker, ClientClosed, NoReply, RepliesLost, RequestRefused
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
    Task,
)
from schemas.search import Found, Hit, Search, Write, Written
from schemas.topics import REPLY
from streams.replies import Part, Reply, Stitch
from streams.terms import Options, ScanOptions, SearchOptions, Terms

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
        async with aclosing(self._asker.answers(request)) as replies:
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

    async def search(self, index: str, query: str = "", **options: Unpack[SearchOptions]) -> Found:
        """Searches an index and returns what it finds, the best first.

        Cancelling and errors are as with ``chat``.

        Args:
            index: Three-level name.
            query: What is searched for; not needed where a vector is given.
            options: How; see ``SearchOptions``.

        Raises:
            ValidationError: The options are out of their bounds.
        """
        search = Search.model_validate(_how(options))
        found = await self._of_index(index, Task.SEARCH, search, options, query or None)
        return Found.model_validate_json(found)

    async def fetch(
        self, index: str, keys: Sequence[Mapping[str, Any]], **options: Unpack[ScanOptions]
    ) -> tuple[Hit, ...]:
        """Returns the chunks of the rows with these keys; what there is not, or not seen, lacks.

        Args:
            index: Three-level name.
            keys: Values of the key columns, of at most 1,000 rows.
            options: What of them; see ``ScanOptions``.
        """
        search = Search.model_validate({"operation": "fetch", "keys": keys, **_how(options)})
        found = await self._of_index(index, Task.SEARCH, search, options)
        return Found.model_validate_json(found).hits

    async def scan(
        self, index: str, page: int = 500, **options: Unpack[ScanOptions]
    ) -> AsyncGenerator[Hit, None]:
        """Yields all chunks of an index in the order of their keys.

        Args:
            index: Three-level name.
            page: How many are asked for at once.
            options: Which; see ``ScanOptions``. Tags and timeout are those of each page.
        """
        search = Search.model_validate({"operation": "scan", "k": page, **_how(options)})
        while True:
            answer = await self._of_index(index, Task.SEARCH, search, options)
            found = Found.model_validate_json(answer)
            for hit in found.hits:
                yield hit
            if found.next is None:
                return
            search = search.model_copy(update={"after": found.next})

    async def upsert(
        self, index: str, rows: Sequence[Mapping[str, Any]], **terms: Unpack[Terms]
    ) -> Written:
        """Writes rows to an index that has no source; returns which of them could not be.

        Args:
            index: Three-level name.
            rows: At most 1,000, each whole: key columns, the columns of the text, and what is kept;
                with ``vector``, that is taken instead of embedding the text.
            terms: What may be said of any request; see ``Terms``.

        Raises:
            ValidationError: There are no rows, or too many.
        """
        write = Write.model_validate({"operation": "upsert", "rows": rows})
        return Written.model_validate_json(await self._of_index(index, Task.WRITE, write, terms))

    async def delete(
        self, index: str, keys: Sequence[Mapping[str, Any]], **terms: Unpack[Terms]
    ) -> Written:
        """Deletes rows of an index that has no source; arguments and errors as with ``upsert``."""
        write = Write.model_validate({"operation": "delete", "keys": keys})
        return Written.model_validate_json(await self._of_index(index, Task.WRITE, write, terms))

    async def _of_index(
        self, index: str, task: Task, how: Search | Write, terms: Terms, query: str | None = None
    ) -> str:
        """Asks an index, and returns what it answers as JSON."""
        request = replace(
            self._request(index, terms),
            task=task,
            query=query,
            search=how.model_dump_json(exclude_defaults=True),
        )
        return (await self._whole(request)).completion.found or "{}"

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
        async with aclosing(self._asker.answers(request)) as replies:
            async for replied in replies:
                if replied.completion:
                    return _reply(replied, replied.completion)
        raise AssertionError("unreachable")


def _how(options: Terms) -> dict[str, Any]:
    """Returns what options say of a search."""
    aside = Terms.__optional_keys__
    return {name: value for name, value in options.items() if name not in aside}


def _reply(replied: InferenceReplied, completion: Completion) -> Reply:
    return Reply(request_id=replied.request_id, completion=completion, tried=replied.tried)
