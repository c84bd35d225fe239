"""The connection to Weaviate, and what its failures mean to us."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

import weaviate
from grpc import StatusCode
from grpc.aio import AioRpcError
from weaviate.classes.init import AdditionalConfig, Auth, Timeout
from weaviate.config import GrpcConfig
from weaviate.exceptions import (
    UnexpectedStatusCodeError,
    WeaviateBaseError,
    WeaviateConnectionError,
    WeaviateGRPCUnavailableError,
    WeaviateStartUpError,
    WeaviateTimeoutError,
)

from infra.secrets import resolve
from infra.settings import VectorSettings
from infra.vectors.errors import PlaceUnknown, VectorsRefused, VectorsUnreachable

T = TypeVar("T")
R = TypeVar("R")

PASSING = frozenset(
    {StatusCode.ABORTED, StatusCode.CANCELLED, StatusCode.DEADLINE_EXCEEDED, StatusCode.UNAVAILABLE}
)
# What Weaviate says while it starts, stops, makes a collection, or is short of memory or disk.
PASSING_WORDS = (
    "canceled", "connection refused", "deadline exceeded", "leader not found", "memory pressure",
    "non-existing index", "not enough memory", "not ready", "read-only", "readonly",
    "shutting down", "shut down",
)  # fmt: skip
MISSING_WORDS = ("could not find class", "not present in schema", "class not found")
UNREACHABLE = (
    OSError,
    WeaviateConnectionError,
    WeaviateGRPCUnavailableError,
    WeaviateTimeoutError,
)
RECONNECT_MS = 500
SERVER_FAULT = 500
NOT_FOUND = 404


@asynccontextmanager
async def connected(settings: VectorSettings) -> AsyncIterator[weaviate.WeaviateAsyncClient]:
    """Connects for as long as the block lasts.

    Raises:
        SecretUnavailable: The key's reference leads nowhere.
        VectorsRefused: The key is not the store's.
        VectorsUnreachable: Nobody answers.
    """
    # It logs whole objects that were refused.
    logging.getLogger("weaviate-client").disabled = True
    address, longest_s = urlsplit(settings.url), settings.timeout_s
    secure = address.scheme == "https"
    host = address.hostname or ""
    client = weaviate.use_async_with_custom(
        http_host=host,
        http_port=address.port or (443 if secure else 80),
        http_secure=secure,
        grpc_host=host,
        grpc_port=settings.grpc_port,
        grpc_secure=secure,
        auth_credentials=Auth.api_key(resolve(settings.key)) if settings.key else None,
        additional_config=AdditionalConfig(
            timeout=Timeout(init=longest_s, insert=longest_s, query=longest_s),
            # Otherwise a store that comes back is noticed after up to two minutes.
            grpc_config=GrpcConfig(
                channel_options=[
                    ("grpc.initial_reconnect_backoff_ms", RECONNECT_MS),
                    ("grpc.max_reconnect_backoff_ms", RECONNECT_MS),
                ]
            ),
        ),
    )
    try:
        with reaching():
            await client.connect()
        connection = client._connection
        connection._grpc_stub = _Once(connection._grpc_stub)  # type: ignore[assignment]
        yield client
    finally:
        await client.close()


class _Once:
    """Calls each method of a stub once.

    The client repeats a batch by itself that may have been written. Were that hidden from us, then
    so were the holes that a crash leaves in the graph.
    """

    def __init__(self, stub: Any) -> None:
        self._stub = stub

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._stub, name)

        async def call(*args: Any, **options: Any) -> Any:
            try:
                return await method(*args, **options)
            except AioRpcError as error:
                if error.code() in PASSING:
                    raise VectorsUnreachable(f"{name} ended in {error.code().name}") from None
                raise

        return call


@contextmanager
def reaching() -> Iterator[None]:
    """Turns Weaviate's failures into ours; its words are dropped, for they may quote a document.

    Raises:
        PlaceUnknown: A collection is missing.
        VectorsRefused: It would fail again.
        VectorsUnreachable: It may not fail again.
    """
    try:
        yield
    except UNREACHABLE as error:
        raise VectorsUnreachable(f"no answer: {type(error).__name__}") from None
    except WeaviateBaseError as error:
        raise _meaning(error) from None


def _meaning(error: WeaviateBaseError) -> Exception:
    said = str(error).lower()
    code = error.status_code if isinstance(error, UnexpectedStatusCodeError) else 0
    if code == NOT_FOUND or missing(said):
        return PlaceUnknown("the store has no such collection: ensure the place first")
    if code >= SERVER_FAULT or passing(said):
        return VectorsUnreachable(f"the store is not ready: {type(error).__name__}")
    if isinstance(error, WeaviateStartUpError) and "401" not in said:
        return VectorsUnreachable("the store does not start talking")
    return VectorsRefused(f"the store refuses: {type(error).__name__}; its log says why")


async def abreast(ask: Callable[[T], Awaitable[R]], many: Iterable[T], at_once: int) -> list[R]:
    """Returns what is answered of each, in their order; so many are asked at once."""
    gate = asyncio.Semaphore(at_once)

    async def one(each: T) -> R:
        async with gate:
            return await ask(each)

    return await asyncio.gather(*(one(each) for each in many))


def missing(said: str) -> bool:
    """Returns whether what Weaviate says of a failure means that a collection is not there."""
    return any(words in said.lower() for words in MISSING_WORDS)


def passing(said: str) -> bool:
    """Returns whether what Weaviate says of a failure means that it may pass."""
    return any(words in said.lower() for words in PASSING_WORDS)
