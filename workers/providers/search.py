"""Searches indexes and writes to them, in the vector store.

It is asked about an index, never by whom: what the caller may see came with the request, from the
gateway. Without that nothing is answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AsyncExitStack

from infra import tokens
from infra.asker import Asker
from infra.catalog import CatalogView
from infra.embedding import Embedder
from infra.latest import Latest
from infra.registry import Reader, Registry
from infra.secrets import resolve
from infra.settings import (
    ClientSettings,
    InferenceSettings,
    KafkaSettings,
    RedisSettings,
    RegistrySettings,
    VectorSettings,
)
from infra.signing import Signer
from infra.vectors import Place, Vectors, VectorsRefused, VectorsUnreachable
from schemas.codec import Codec
from schemas.events import (
    CatalogChanged,
    Completion,
    Delta,
    FinishReason,
    IndexReported,
    InferenceRequested,
    InferenceRouted,
    Reason,
    Route,
    Task,
    Usage,
)
from schemas.openai import FormInvalid
from schemas.search import Access, Search, Write, read
from schemas.topics import INDEX_REPORTED, REPLY
from workers.indexes.place import defined, serving
from workers.indexes.ranking import Ranker
from workers.indexes.reading import Question, Reading
from workers.indexes.refusals import invalid, refused, unfit
from workers.indexes.writing import Writing
from workers.providers import ProviderBroken

NAME = "search"


class Searching:
    """A provider that answers for indexes.

    Args:
        view: The catalog; whoever runs this feeds it.
        reading: Answers searches.
        writing: Writes rows.
        opened: What is closed with it.

    Attributes:
        view: The catalog.
        reports: How indexes stand.
    """

    def __init__(
        self, view: CatalogView, reading: Reading, writing: Writing, opened: AsyncExitStack
    ) -> None:
        self.view = view
        self.reports: Latest[IndexReported] | None = None
        self._reading = reading
        self._writing = writing
        self._opened = opened
        self._lost: BaseException | None = None

    def changed(self, change: CatalogChanged) -> None:
        """Hears of a change that the view has taken in."""

    def lose(self, error: BaseException) -> None:
        """Hears that it can no longer be known how indexes stand."""
        self._lost = error

    async def complete(
        self, request: InferenceRequested, route: Route
    ) -> AsyncGenerator[Delta | Completion, None]:
        """Refuses: what the caller may see is not known.

        Raises:
            ProviderRefused: Always.
        """
        nothing: tuple[Completion, ...] = ()
        for each in nothing:
            yield each
        raise unfit("an index is asked with what its caller may see")

    async def answer(self, routed: InferenceRouted) -> AsyncGenerator[Delta | Completion, None]:
        """Yields the Completion, which holds what was found or written.

        Raises:
            ProviderBroken: It can answer nobody any more.
            ProviderRefused: The index cannot answer.
        """
        if self._lost is not None:
            raise ProviderBroken(str(self._lost))
        answer = TASKS.get(routed.request.task)
        if answer is None or routed.access is None:
            raise refused(Reason.ROUTE_UNFIT, "this pool answers for indexes alone", "task")
        try:
            found, read = await answer(self, routed)
        except FormInvalid as problem:
            raise invalid(f"search: {problem}") from None
        yield Completion(
            model=routed.route.model,
            finish_reason=FinishReason.STOP,
            usage=Usage(prompt_tokens=read, estimated=True),
            found=found,
        )

    async def close(self) -> None:
        """Closes the store, and stops hearing replies and reports."""
        await self._opened.aclose()

    async def find(self, routed: InferenceRouted) -> tuple[str, int]:
        """Returns what is found, as JSON, and how many tokens the query has."""
        request, index = routed.request, routed.route.model
        spec = defined(index, self.view)
        if self.reports is None:
            raise ProviderBroken("it is not known how indexes stand")
        question = Question(
            place=serving(index, spec, self.reports),
            spec=spec,
            search=read(request.search, Search),
            query=request.query or "",
            access=read(routed.access, Access),
            deadline=request.deadline,
        )
        found = await self._reading.find(question)
        return found.model_dump_json(), tokens.count(question.query)

    async def write(self, routed: InferenceRouted) -> tuple[str, int]:
        """Returns what was written, as JSON, and how many tokens were embedded."""
        index = routed.route.model
        spec = defined(index, self.view)
        if spec.source is not None:
            raise invalid(f"{index} follows its table {spec.source}: change rows there", "endpoint")
        place = Place(index, spec.generation)
        write = read(routed.request.search, Write)
        written, count = await self._writing.write(place, spec, write, routed)
        return written.model_dump_json(), count


Answer = Callable[[Searching, InferenceRouted], Coroutine[None, None, tuple[str, int]]]

TASKS: dict[Task, Answer] = {
    Task.SEARCH: Searching.find,
    Task.WRITE: Searching.write,
}


async def open_search(settings: InferenceSettings) -> Searching:
    """Opens the store, and knows how indexes stand.

    Raises:
        BusUnreachable: No broker answers.
        KeyUnusable: What the reference of the client's key leads to is none.
        LookupError: The reply topic or a schema does not exist.
        RegistryUnreachable: The registry does not answer.
        SecretUnavailable: A key's reference leads nowhere.
        ValueError: The vector store does not answer, or refuses the key.
    """
    kafka, client = KafkaSettings(), ClientSettings()
    registry = Registry(RegistrySettings())
    reader = Reader(Codec(await asyncio.to_thread(registry.ids)), registry)
    view = CatalogView()
    opened = AsyncExitStack()
    try:
        vectors = await opened.enter_async_context(Vectors.open(VectorSettings()))
        asker = Asker(
            kafka,
            registry,
            client.tenant,
            REPLY.member(client.tenant).name,
            Signer(resolve(client.key)) if client.key else None,
        )
        await opened.enter_async_context(asker)
        embedder = Embedder(asker, client, view, RedisSettings())
        await opened.enter_async_context(embedder)
        reading = Reading(vectors, embedder, Ranker(asker, client))
        searching = Searching(view, reading, Writing(vectors, embedder), opened)
        searching.reports = Latest(kafka, reader, INDEX_REPORTED, NAME, searching.lose)
        await searching.reports.start()
        opened.push_async_callback(searching.reports.close)
    except (VectorsRefused, VectorsUnreachable) as problem:
        await opened.aclose()
        raise ValueError(str(problem)) from None
    except BaseException:
        await opened.aclose()
        raise
    return searching
