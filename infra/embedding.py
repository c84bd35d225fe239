"""Vectors of texts: out of a cache where they are known, else from an endpoint, over the bus.

An endpoint is asked as anybody asks it: signed, held to limits, metered, recorded. The cache is
Redis; where it cannot be reached all is asked for, and nothing else is different. It holds no text,
only digests; a vector expires after 30 days, and sooner where Redis has too little room.

Known is a text by what makes its vector: the text with its prefix, the models of the endpoint's
routes, and the policies that may change it on its way. A model that is replaced under its old name
is not noticed: give the new one a version in the catalog, or another name.
"""

from __future__ import annotations

import asyncio
import json
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from types import TracebackType
from typing import Self, cast
from uuid import uuid4

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from infra.asker import Asker, RequestRefused
from infra.catalog import CatalogView
from infra.settings import ClientSettings, RedisSettings
from infra.telemetry import now
from schemas.events import (
    Completion,
    InferenceRequested,
    Reason,
    Refusal,
    Sampling,
    Task,
)
from schemas.topics import REPLY

log = structlog.get_logger()

Vector = tuple[float, ...]

# Of one request: more make no batch better, and its bytes must fit the gateway's bound.
MOST_TEXTS = 64
MOST_BYTES = 256 * 1024
# Requests under way at once: enough that a worker's batches are full.
LANES = 4
PATIENCE = timedelta(minutes=2)
EXPIRY = timedelta(days=30)
# What a cache may cost that does not answer, and how long it is left alone then.
CACHE_WAIT_S = 2.0
CACHE_REST_S = 10.0
FLOAT_BYTES = 4

# Refusals of what is asked, not of who asks or when: another text may pass.
OF_A_TEXT = frozenset(
    {
        Reason.CONTEXT_EXCEEDED,
        Reason.POLICY_DENIED,
        Reason.REQUEST_INVALID,
        Reason.REQUEST_TOO_LARGE,
    }
)


class VectorsUnfit(RuntimeError):
    """What an endpoint answers cannot be used; the message says why and what to do."""


class TextsRefused(RuntimeError):
    """Some texts were refused for what they are; the others have their vectors.

    Attributes:
        vectors: By the text's place.
        refusals: By the text's place.
    """

    def __init__(self, vectors: Mapping[int, Vector], refusals: Mapping[int, Refusal]) -> None:
        reasons = ", ".join(sorted({each.reason for each in refusals.values()}))
        super().__init__(f"{len(refusals)} of {len(vectors) + len(refusals)} texts: {reasons}")
        self.vectors = vectors
        self.refusals = refusals


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What some texts are embedded with, and what has come of them."""

    endpoint: str
    model: str
    dimensions: int | None
    tags: Mapping[str, str]
    found: dict[str, Vector] = field(default_factory=dict)
    refused: dict[str, Refusal] = field(default_factory=dict)


class Embedder:
    """Embeds texts. Use it as an asynchronous context.

    Args:
        asker: Asks endpoints.
        client: As whom.
        view: The catalog; whoever runs this feeds it.
        redis: Where the cache is.

    Attributes:
        embedded: Texts that endpoints have embedded for it so far; what was known counts not.
    """

    def __init__(
        self, asker: Asker, client: ClientSettings, view: CatalogView, redis: RedisSettings
    ) -> None:
        self.embedded = 0
        self._asker = asker
        self._client = client
        self._view = view
        self._cache = _Cache(redis.url)
        self._lanes = asyncio.Semaphore(LANES)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._cache.close()

    async def embed(
        self,
        endpoint: str,
        prefix: str,
        texts: Sequence[str],
        dimensions: int | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> list[Vector]:
        """Returns the vectors of texts, in their order.

        What was answered before an error is in the cache, so that the next try asks for less.

        Args:
            endpoint: Who embeds, by three-level name.
            prefix: What the model wants in front of each text.
            texts: The texts; one that comes twice is asked for once.
            dimensions: How long a vector must be; None where any length will do.
            tags: Labels of the requests, for cost, limits and search.

        Raises:
            ClientClosed: The asker was closed meanwhile.
            NoReply: Nothing came in time.
            PublishFailed: The broker did not take a request.
            RepliesLost: Replies can be heard no more.
            RequestRefused: The platform said no, whatever the text.
            TextsRefused: It said no to some of the texts.
            VectorsUnfit: The endpoint answers with too few vectors, or not with such ones.
        """
        whole = [prefix + text for text in texts]
        wanted = _Wanted(
            endpoint=endpoint,
            model=embedded_by(endpoint, self._client.tenant, self._view),
            dimensions=dimensions,
            tags=tags or {},
        )
        unique = list(dict.fromkeys(whole))
        wanted.found.update(await self._cache.look_up(wanted.model, unique, dimensions))
        missing = sorted((text for text in unique if text not in wanted.found), key=len)
        try:
            async with asyncio.TaskGroup() as group:
                for portion in _portions(missing):
                    group.create_task(self._take(wanted, portion))
        except BaseExceptionGroup as failed:
            # The first one is why the others were given up.
            raise failed.exceptions[0] from None
        if wanted.refused:
            places = enumerate(whole)
            refused = {at: wanted.refused[each] for at, each in places if each in wanted.refused}
            found = {at: wanted.found[each] for at, each in enumerate(whole) if at not in refused}
            raise TextsRefused(found, refused)
        return [wanted.found[text] for text in whole]

    async def _take(self, wanted: _Wanted, texts: Sequence[str]) -> None:
        """Asks for a portion; one that is refused is asked for in halves, to find the culprit."""
        try:
            async with self._lanes:
                vectors = await self._vectors(wanted, texts)
        except RequestRefused as refused:
            if refused.refusal.reason not in OF_A_TEXT:
                raise
            if len(texts) == 1:
                wanted.refused[texts[0]] = refused.refusal
                return
            middle = len(texts) // 2
            await self._take(wanted, texts[:middle])
            await self._take(wanted, texts[middle:])
            return
        self.embedded += len(texts)
        found = dict(zip(texts, vectors, strict=True))
        wanted.found.update(found)
        await self._cache.keep(wanted.model, found)

    async def _vectors(self, wanted: _Wanted, texts: Sequence[str]) -> Sequence[Vector]:
        vectors = (await self._answer(self._request(wanted, texts))).vectors
        lengths = {len(vector) for vector in vectors}
        known = {wanted.dimensions} if wanted.dimensions else {*lengths, *_lengths(wanted)}
        if len(vectors) != len(texts) or not all(all(map(math.isfinite, v)) for v in vectors):
            raise VectorsUnfit(
                f"{wanted.endpoint} did not answer with one vector for each text: does its model "
                "embed?"
            )
        if len(known) != 1 or lengths != known:
            told = " and ".join(map(str, sorted(lengths)))
            right = wanted.dimensions or "all vectors as long as one another"
            raise VectorsUnfit(
                f"{wanted.endpoint} answers with vectors of {told} numbers where {right} are "
                "wanted: is it the endpoint that the index was built with?"
            )
        return vectors

    def _request(self, wanted: _Wanted, texts: Sequence[str]) -> InferenceRequested:
        instant = now()
        return InferenceRequested(
            request_id=str(uuid4()),
            tenant=self._client.tenant,
            principal=self._client.principal,
            endpoint=wanted.endpoint,
            task=Task.EMBEDDING,
            messages=(),
            inputs=tuple(texts),
            sampling=Sampling(),
            reply_to=REPLY.member(self._client.tenant).name,
            requested_at=instant,
            deadline=instant + PATIENCE,
            tags=dict(wanted.tags),
        )

    async def _answer(self, request: InferenceRequested) -> Completion:
        completion = await self._asker.completion(request)
        if completion is None:
            raise VectorsUnfit(f"{request.endpoint} ended without an answer")
        return completion


class _Cache:
    """Vectors in Redis: 32-bit floats, the lowest byte first. Nothing of it raises."""

    def __init__(self, url: str) -> None:
        self._redis: Redis | None = None
        self._rests_until = 0.0
        if url:
            self._redis = Redis.from_url(
                url,
                retry=Retry(NoBackoff(), 0),
                socket_connect_timeout=CACHE_WAIT_S,
                socket_timeout=CACHE_WAIT_S,
            )

    async def look_up(
        self, model: str, texts: Sequence[str], dimensions: int | None
    ) -> dict[str, Vector]:
        """Returns what is known of texts, as far as it is as long as it must be."""
        if (redis := self._awake()) is None or not texts:
            return {}
        try:
            kept = await redis.mget([_key(model, text) for text in texts])
        except (OSError, RedisError) as lack:
            self._rest(lack)
            return {}
        found: dict[str, Vector] = {}
        for text, value in zip(texts, cast(list[bytes | None], kept), strict=True):
            count, rest = divmod(len(value or b""), FLOAT_BYTES)
            if value and not rest and count == (dimensions or count):
                found[text] = struct.unpack(f"<{count}f", value)
        # Without a length that is wanted, the vectors must have one in common.
        return found if len(set(map(len, found.values()))) <= 1 else {}

    async def keep(self, model: str, found: Mapping[str, Vector]) -> None:
        """Keeps vectors."""
        if (redis := self._awake()) is None:
            return
        try:
            async with redis.pipeline(transaction=False) as pipeline:
                for text, vector in found.items():
                    value = struct.pack(f"<{len(vector)}f", *vector)
                    pipeline.set(_key(model, text), value, ex=EXPIRY)
                await pipeline.execute()
        except (OSError, RedisError) as lack:
            self._rest(lack)

    async def close(self) -> None:
        """Closes the connections."""
        if self._redis is not None:
            await self._redis.aclose()

    def _awake(self) -> Redis | None:
        rests = asyncio.get_running_loop().time() < self._rests_until
        return None if rests else self._redis

    def _rest(self, lack: Exception) -> None:
        log.warning("cache of vectors left alone", reason=type(lack).__name__, rest_s=CACHE_REST_S)
        self._rests_until = asyncio.get_running_loop().time() + CACHE_REST_S


def embedded_by(endpoint: str, tenant: str, view: CatalogView) -> str:
    """Returns what makes the vectors that a tenant gets of an endpoint; the same for the same ones.

    Args:
        endpoint: Three-level name; one that is not known is itself.
        tenant: Who asks.
        view: The catalog.
    """
    served = view.endpoints.get(endpoint)
    if served is None:
        return _digest(endpoint)
    asks = view.tenants.get(tenant)
    models = {
        (route.pool, route.connection, route.model, route.entity, route.adapter)
        for route in served.routes
    }
    policies = (*served.policies, *(asks.policies if asks else ()))
    states = sorted((name, (view.entry("policy", name) or (0, None))[0]) for name in {*policies})
    return _digest(json.dumps([sorted(models), states]))


def _portions(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yields texts in the portions in which they are asked for; each has at least one."""
    begin, size = 0, 0
    for at, text in enumerate(texts):
        size += len(text.encode("utf-8", "replace"))
        if at > begin and (at - begin == MOST_TEXTS or size > MOST_BYTES):
            yield texts[begin:at]
            begin, size = at, len(text.encode("utf-8", "replace"))
    if texts:
        yield texts[begin:]


def _lengths(wanted: _Wanted) -> set[int]:
    return set(map(len, wanted.found.values()))


def _key(model: str, text: str) -> str:
    return f"vector:{model}:{_digest(text)}"


def _digest(text: str) -> str:
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
