"""Texts embedded over the bus, with a real Redis for what is known already.

The endpoint's worker is the echo, whose vector of a text is its length.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from infra.asker import Asker, RequestRefused
from infra.catalog import CatalogView
from infra.embedding import MOST_BYTES, Embedder, TextsRefused, VectorsUnfit, embedded_by
from infra.registry import Registry
from infra.settings import ClientSettings, RedisSettings
from schemas.events import Reason, Task
from schemas.topics import INFERENCE_REQUESTED, REPLY, REQUEST_CANCELLED
from tests.broker.speaking import teach
from tests.conftest import running as running_stack
from tests.harness import PATIENCE_S, Bus, free_port, soon, unique
from tests.seed import LIMITS, changes

pytestmark = [pytest.mark.stack, pytest.mark.usefixtures("gateway", "echo")]

TENANT = "embedding"
# Nobody serves it: whoever asks there waits.
SILENT = "main.tests.silent"
CLIENT = ClientSettings(tenant=TENANT, principal="", key="")
ROUTE = {"name": "local", "pool": "echo", "model": "echo"}


class Town:
    """A catalog that the bus and a view both know, and ways to embed by it."""

    def __init__(self, bus: Bus, redis: RedisSettings) -> None:
        self.bus = bus
        self.redis = redis
        self.view = CatalogView(LIMITS)

    def make(self, *documents: dict[str, Any]) -> None:
        made = changes(documents)
        teach(self.bus, *made)
        for change in made:
            self.view.apply(change)

    def endpoint(self, name: str = "", **spec: Any) -> str:
        """Makes an endpoint of the echo; its model is one that no other test knows."""
        name = name or f"main.tests.{unique('e').replace('-', '')}"
        route = {**ROUTE, "model": unique("echo")}
        self.make({"kind": "endpoint", "name": name, "spec": {"routes": [route], **spec}})
        return name

    @asynccontextmanager
    async def embedder(self, redis: RedisSettings | None = None) -> AsyncIterator[Embedder]:
        registry = Registry(self.bus.registry_settings)
        topic = REPLY.member(TENANT).name
        async with (
            Asker(self.bus.kafka, registry, TENANT, topic, None) as asker,
            Embedder(asker, CLIENT, self.view, redis or self.redis) as embedder,
        ):
            yield embedder

    def requests(self, endpoint: str) -> list[Sequence[str]]:
        """Returns the texts of each request to an endpoint that lies on the log."""
        asked = self.bus.events(INFERENCE_REQUESTED, TENANT)
        assert all(each.task is Task.EMBEDDING for each in asked)
        return [each.inputs for each in asked if each.endpoint == endpoint]


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisSettings]:
    with running_stack(["redis"]) as stack:
        yield RedisSettings(url=stack.environment()["REDIS_URL"])


@pytest.fixture(autouse=True)
def answers_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that is held up for seconds is asked, still."""
    monkeypatch.setattr("infra.embedding.CACHE_WAIT_S", PATIENCE_S)


@pytest.fixture(scope="module")
def town(bus: Bus, redis: RedisSettings) -> Town:
    town = Town(bus, redis)
    town.make(
        {"kind": "tenant", "name": TENANT, "spec": {"accept_unsigned": True}},
        {"kind": "endpoint", "name": SILENT, "spec": {"routes": [{**ROUTE, "pool": "silent"}]}},
    )
    return town


async def test_vectors_come_in_the_order_of_their_texts(town: Town) -> None:
    endpoint = town.endpoint()
    texts = ["x" * (number * 7 % 150) for number in range(150)]
    async with town.embedder() as embedder:
        vectors = await embedder.embed(endpoint, "", [*texts, *texts], dimensions=1)
        assert vectors == [(float(len(text)),) for text in [*texts, *texts]]
        assert embedder.embedded == len(texts)
    asked = town.requests(endpoint)
    assert sorted(map(len, asked)) == [22, 64, 64]
    assert all(list(each) == sorted(each, key=len) for each in asked)


async def test_what_is_known_is_not_asked_for(town: Town) -> None:
    endpoint = town.endpoint()
    async with town.embedder() as embedder:
        first = await embedder.embed(endpoint, "query: ", ["sea", "hill"])
        assert first == [(10.0,), (11.0,)]
    async with town.embedder() as embedder:
        assert await embedder.embed(endpoint, "query: ", ["hill", "sea"]) == [*reversed(first)]
        assert embedder.embedded == 0
        assert await embedder.embed(endpoint, "", ["sea"]) == [(3.0,)]
        assert embedder.embedded == 1
    assert town.requests(endpoint) == [("query: sea", "query: hill"), ("sea",)]


async def test_nothing_to_embed_asks_for_nothing(town: Town) -> None:
    async with town.embedder() as embedder:
        assert await embedder.embed(SILENT, "", []) == []


async def test_what_is_known_expires_and_may_be_evicted(town: Town) -> None:
    endpoint = town.endpoint()
    async with town.embedder() as embedder:
        await embedder.embed(endpoint, "", ["a passing thought"])
    model = embedded_by(endpoint, TENANT, town.view)
    async with Redis.from_url(town.redis.url) as redis:
        [key] = [key async for key in redis.scan_iter(match=f"vector:{model}:*")]
        assert 29 * 86_400 < await redis.ttl(key) <= 30 * 86_400
        bound = await redis.config_get("maxmemory*")
    assert (bound["maxmemory"], bound["maxmemory-policy"]) == (str(512 * 1024**2), "volatile-lru")


async def test_without_a_cache_everything_is_asked_for(town: Town) -> None:
    endpoint = town.endpoint()
    nowhere = RedisSettings(url=f"redis://127.0.0.1:{free_port()}/0")
    for redis in (nowhere, RedisSettings(url="")):
        async with town.embedder(redis) as embedder:
            for _ in range(2):
                assert await embedder.embed(endpoint, "", ["sea"]) == [(3.0,)]
            assert embedder.embedded == 2


async def test_a_cache_that_is_silent_is_left_alone(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.embedding.CACHE_WAIT_S", 1.0)
    endpoint = town.endpoint()
    called = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        called.set()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        silent = RedisSettings(url=f"redis://127.0.0.1:{port}/0")
        async with town.embedder(silent) as embedder, asyncio.timeout(PATIENCE_S):
            assert await embedder.embed(endpoint, "", ["sea"]) == [(3.0,)]
            assert called.is_set()


async def test_vectors_of_another_length_are_no_vectors(town: Town) -> None:
    endpoint = town.endpoint()
    async with town.embedder() as embedder:
        assert await embedder.embed(endpoint, "", ["sea"]) == [(3.0,)]
        with pytest.raises(VectorsUnfit, match="answers with vectors of 1 numbers where 384 are"):
            await embedder.embed(endpoint, "", ["sea", "hill"], dimensions=384)


async def test_what_lies_damaged_in_the_cache_is_asked_for_again(town: Town) -> None:
    endpoint = town.endpoint()
    model = embedded_by(endpoint, TENANT, town.view)
    async with town.embedder() as embedder, Redis.from_url(town.redis.url) as redis:
        for damaged in (b"", b"abc", b"12345678"):
            assert await embedder.embed(endpoint, "", ["sea"], dimensions=1) == [(3.0,)]
            [key] = [key async for key in redis.scan_iter(match=f"vector:{model}:*")]
            await redis.set(key, damaged)
        assert await embedder.embed(endpoint, "", ["sea"], dimensions=1) == [(3.0,)]
        assert embedder.embedded == 4


async def test_a_text_that_is_refused_harms_no_other(town: Town) -> None:
    policy = f"main.tests.{unique('p').replace('-', '')}"
    rule = {"type": "keywords", "name": "secret", "words": ["forbidden"]}
    town.make({"kind": "policy", "name": policy, "spec": {"rules": [rule]}})
    endpoint = town.endpoint(policies=[policy])
    texts = [f"text {number}" for number in range(20)]
    texts[7] = texts[13] = "a forbidden word"
    texts.append("x" * (2 * 1024 * 1024))
    async with town.embedder() as embedder:
        with pytest.raises(TextsRefused, match="3 of 21 texts: POLICY_DENIED, REQUEST_TOO") as told:
            await embedder.embed(endpoint, "", texts)
        assert embedder.embedded == 18
        # What was not refused is known.
        assert len(await embedder.embed(endpoint, "", texts[:7])) == 7
        assert embedder.embedded == 18
    reasons = {at: refusal.reason for at, refusal in told.value.refusals.items()}
    denied = Reason.POLICY_DENIED
    assert reasons == {7: denied, 13: denied, 20: Reason.REQUEST_TOO_LARGE}
    assert told.value.vectors == {
        at: (float(len(text)),) for at, text in enumerate(texts) if at not in reasons
    }


async def test_a_refusal_whatever_the_text_is_one(town: Town) -> None:
    async with town.embedder() as embedder:
        with pytest.raises(RequestRefused) as refused:
            await embedder.embed("main.tests.nowhere", "", ["sea"] * 3)
    assert refused.value.refusal.reason is Reason.ENDPOINT_UNKNOWN


async def test_large_texts_go_in_portions_that_the_gateway_takes(town: Town) -> None:
    endpoint = town.endpoint()
    texts = [f"{number}" * (MOST_BYTES // 3) for number in range(8)]
    async with town.embedder() as embedder:
        vectors = await embedder.embed(endpoint, "", texts)
    assert vectors == [(float(MOST_BYTES // 3),)] * 8
    assert sorted(map(len, town.requests(endpoint))) == [2, 3, 3]


async def test_whoever_leaves_cancels_what_it_asked_for(town: Town) -> None:
    async with town.embedder() as embedder:
        asking = asyncio.create_task(embedder.embed(SILENT, "", ["sea"]))

        async def asked() -> bool:
            return bool(await asyncio.to_thread(town.requests, SILENT))

        await soon(asked, what="the request on the log")
        asking.cancel()
        await asyncio.wait([asking])
        assert asking.cancelled()

    async def cancelled() -> bool:
        said = await asyncio.to_thread(town.bus.events, REQUEST_CANCELLED)
        return [each.tenant for each in said].count(TENANT) == 1

    await soon(cancelled, what="the cancellation on the log")
