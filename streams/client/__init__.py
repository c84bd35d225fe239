"""The client: ask over the bus and await the reply.

    async with Client() as client:
        reply = await client.chat("main.default.smollm2", "Why is the sky blue?")
        async for part in client.stream("main.default.smollm2", "Count to ten."):
            print(part.content, end="")
        vectors = await client.embed("main.default.embeddings", ["sea", "hill"])
        scores = await client.rerank("main.default.ranking", "waves", ["sea", "hill"])
        await client.upsert("main.kb.notes", [{"id": 1, "body": "The sea is salt."}])
        found = await client.search("main.kb.notes", "water", k=3, filters={"id <": 100})
        answer = await client.run("main.default.clerk", "Where is order 7?", timeout=300)
        async for event in client.stream_run("main.default.clerk", "And order 8?", timeout=300):
            print(event.kind, event.item)
        total = await client.call("main.default.calculator", {"expression": "6 * 7"})

Many requests may be under way at once; one reader serves them all.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Unpack

from infra.asker import ClientClosed, NoReply, RepliesLost, RequestRefused
from schemas.events import InferenceRequested, Sampling, Task
from streams.client.agents import Agents
from streams.client.connection import Conversation, conversation, replied_with
from streams.client.following import RunUnknown
from streams.client.indexes import Indexes
from streams.client.told import EventsMissing, RunEvent
from streams.replies import CallFailed, Part, Reply, Stitch
from streams.terms import Options, Terms

__all__ = [
    "CallFailed",
    "Client",
    "ClientClosed",
    "EventsMissing",
    "NoReply",
    "Part",
    "RepliesLost",
    "Reply",
    "RequestRefused",
    "RunEvent",
    "RunUnknown",
    "Stitch",
]


class Client(Agents, Indexes):
    """Asks endpoints over the bus. Use it as an asynchronous context; see ``Connection``."""

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
        return await self.whole(self._chat(endpoint, messages, options, stream=False))

    async def stream(
        self, endpoint: str, messages: Conversation, **options: Unpack[Options]
    ) -> AsyncGenerator[Part, None]:
        """Asks and yields the answer as it grows; the last part carries the whole reply.

        Closing the iterator early cancels the request. Arguments and errors are those of ``chat``.
        """
        request = self._chat(endpoint, messages, options, stream=True)
        stitch = Stitch()
        async with aclosing(self.asker.answers(request)) as replies:
            async for replied in replies:
                if replied.completion:
                    yield stitch.end(replied_with(replied, replied.completion))
                elif part := stitch.add(replied):
                    yield part

    async def call(
        self,
        function: str,
        arguments: Mapping[str, Any],
        version: str | None = None,
        **terms: Unpack[Terms],
    ) -> Any:
        """Calls a function and returns its result: a JSON value.

        Cancelling is as with ``chat``: it does not undo what was done already.

        Args:
            function: Three-level name.
            arguments: By name, as its parameters want them.
            version: Number or alias; the newest if left out.
            terms: What may be said of any request; see ``Terms``.

        Raises:
            CallFailed: It came to no result.
            RequestRefused: The platform said no.
            NoReply: Nothing came in time.
            PublishFailed: The broker did not take the request.
        """
        request = replace(
            self.request(function, terms),
            task=Task.TOOL,
            inputs=(json.dumps(arguments, ensure_ascii=False, allow_nan=False),),
            version=version,
        )
        came = json.loads((await self.whole(request)).completion.content)
        if "error" in came:
            raise CallFailed(came["error"]["kind"], came["error"]["message"])
        return came["result"]

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
        request = replace(self.request(endpoint, terms), task=Task.EMBEDDING, inputs=tuple(texts))
        return (await self.whole(request)).completion.vectors

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
            self.request(endpoint, terms),
            task=Task.RERANK,
            query=query,
            inputs=tuple(documents),
        )
        return (await self.whole(request)).completion.scores

    def _chat(
        self, endpoint: str, messages: Conversation, options: Options, *, stream: bool
    ) -> InferenceRequested:
        return replace(
            self.request(endpoint, options),
            messages=conversation(messages),
            sampling=options.get("sampling", Sampling()),
            json_schema=options.get("json_schema"),
            tools=tuple(options.get("tools", ())),
            tool_choice=options.get("tool_choice", "auto"),
            stream=stream,
        )
