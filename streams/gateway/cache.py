"""The cache: answers that are given again for the very same request of the same tenant.

Answers are told by ``cache_key``, a digest of all that may change one:

* what is asked, whole, but for what only says who asks when and how to be answered: see ``ASIDE``.
  A field that the schema gains later counts at once, so that no two requests are wrongly alike;
* the tenant, so that nobody is given what another asked for, nor learns that they did. Not who acts
  for it: whether they may ask has been checked, and a model is not told;
* the routes that may answer, each by pool, model, versions of model and adapter, and connection, so
  that an alias that moves voids what the version before it said. Not their weights and bounds;
* the connections, and the policies of endpoint and tenant, each by the position of its last change:
  what was kept under a rule that has changed since is not given again.

An answer is kept as the provider gave it, masked. What has gone wrong, was cut short, or says
nothing is never kept; there is no event that could carry a refusal here.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b
from sys import getsizeof

from infra.catalog import CatalogView, Endpoint
from schemas.events import (
    Completion,
    CompletionCached,
    FinishReason,
    InferenceRequested,
    InferenceRouted,
    Role,
    Task,
)
from schemas.shapes import length
from schemas.topics import COMPLETION_CACHED, Outgoing

# Of a request, what no answer depends on.
ASIDE = frozenset(
    {
        "deadline",
        "parts_to",
        "principal",
        "reply_to",
        "request_id",
        "requested_at",
        "stream",
        "tags",
    }
)
# The answer is whole. LENGTH was cut short, CONTENT_FILTER by the provider.
WHOLE = frozenset({FinishReason.STOP, FinishReason.TOOL_CALLS})
MOST_BYTES = 64 * 1024 * 1024
MOST_ENTRIES = 50_000
# One answer; a larger one is not kept.
MOST_ANSWER_BYTES = 1024 * 1024
# About what Python needs for an entry besides its texts, for a number, and for a log probability.
ENTRY_BYTES = 1000
NUMBER_BYTES = 32
TOKEN_BYTES = 200
KEY_BYTES = 32


def cache_key(request: InferenceRequested, endpoint: Endpoint, view: CatalogView) -> str:
    """Returns what the answer to a request is told by; empty where the endpoint keeps none.

    So it is for a request with something in it that this process does not know.
    """
    if endpoint.spec.cache is None or request.task is Task.UNKNOWN:
        return ""
    if any(turn.role is Role.UNKNOWN for turn in request.messages):
        return ""
    asked = {name: value for name, value in request.to_avro().items() if name not in ASIDE}
    tenant = view.tenants.get(request.tenant)
    told = {
        "asked": asked,
        "connections": _positions(
            view, "connection", (each.connection for each in endpoint.routes)
        ),
        "policies": _positions(
            view, "policy", (*endpoint.policies, *(tenant.policies if tenant else ()))
        ),
        "routes": sorted(
            [each.pool, each.model, each.entity, each.adapter, each.connection]
            for each in endpoint.routes
            if not endpoint.ways[each.name].mirror
        ),
    }
    text = json.dumps(told, sort_keys=True, separators=(",", ":"), default=str)
    return blake2b(text.encode(), digest_size=KEY_BYTES).hexdigest()


def _positions(view: CatalogView, kind: str, names: Iterable[str]) -> list[list[object]]:
    """Returns when each of these entries was last changed, as the log of changes numbers it."""
    found = {name: view.entry(kind, name) for name in names if name}
    return [[name, entry[0] if entry else 0] for name, entry in sorted(found.items())]


def looked_up(endpoint: Endpoint) -> bool:
    """Returns whether kept answers are given again."""
    return endpoint.spec.cache is not None and endpoint.spec.cache.mode != "write_only"


def keep(
    routed: InferenceRouted, completion: Completion, view: CatalogView, now: datetime
) -> Iterator[Outgoing]:
    """Yields an answer on its way to every cache, where it is one to be kept.

    Args:
        routed: What was asked, and the key that its answer is kept under.
        completion: The answer as the provider gave it, masked.
        view: The catalog.
        now: The moment.
    """
    endpoint = view.endpoints.get(routed.request.endpoint)
    cache = endpoint.spec.cache if endpoint else None
    if cache is None or cache.mode == "read_only" or not routed.cache_key or routed.mirrored:
        return
    if not is_whole(completion) or _size(completion) > MOST_ANSWER_BYTES:
        return
    cached = CompletionCached(
        cache_key=routed.cache_key,
        tenant=routed.request.tenant,
        endpoint=routed.request.endpoint,
        completion=completion,
        cached_at=now,
        until=now + length(cache.lasts),
    )
    yield Outgoing(COMPLETION_CACHED, cached)


def is_whole(completion: Completion) -> bool:
    """Returns whether an answer says something, and to its end."""
    says = completion.content or completion.tool_calls or completion.vectors or completion.scores
    return bool(says) and completion.finish_reason in WHOLE


@dataclass(frozen=True, slots=True)
class _Kept:
    completion: Completion
    cached_at: datetime
    until: datetime
    size: int


@dataclass(slots=True)
class _Shelf:
    """What is kept for one tenant; what was used last is last."""

    entries: OrderedDict[str, _Kept] = field(default_factory=OrderedDict)
    size: int = 0


class Cache:
    """The answers that this process has at hand, each tenant's for itself, and bounded.

    Where there is no room, the tenant with the most bytes gives way, with what it has not used for
    longest: who fills the cache takes nothing from the others.

    Args:
        most_bytes: About how much memory they may take.
        most_entries: How many they may be.
    """

    def __init__(self, most_bytes: int = MOST_BYTES, most_entries: int = MOST_ENTRIES) -> None:
        self._most_bytes = most_bytes
        self._most_entries = most_entries
        self._shelves: dict[str, _Shelf] = {}
        self._entries = 0
        self._bytes = 0

    def __len__(self) -> int:
        return self._entries

    @property
    def size(self) -> int:
        """About how many bytes the answers take."""
        return self._bytes

    def get(self, tenant: str, key: str, now: datetime) -> Completion | None:
        """Returns the answer that is kept under a key of a tenant's; None where none is good."""
        shelf = self._shelves.get(tenant)
        kept = shelf.entries.get(key) if shelf else None
        if shelf is None or kept is None or not key:
            return None
        if now >= kept.until:
            self._drop(tenant, key)
            return None
        shelf.entries.move_to_end(key)
        return kept.completion

    def take(self, cached: CompletionCached, now: datetime) -> None:
        """Takes an answer in, unless it is good no more, or a later one is there."""
        if now >= cached.until or not cached.cache_key or not is_whole(cached.completion):
            return
        shelf = self._shelves.get(cached.tenant)
        before = shelf.entries.get(cached.cache_key) if shelf else None
        if before is not None:
            if before.cached_at > cached.cached_at:
                return
            self._drop(cached.tenant, cached.cache_key)
        size = _size(cached.completion)
        if size > min(MOST_ANSWER_BYTES, self._most_bytes):
            return
        shelf = self._shelves.setdefault(cached.tenant, _Shelf())
        shelf.entries[cached.cache_key] = _Kept(
            cached.completion, cached.cached_at, cached.until, size
        )
        shelf.size += size
        self._bytes += size
        self._entries += 1
        while self._bytes > self._most_bytes or self._entries > self._most_entries:
            fullest = max(self._shelves, key=lambda tenant: self._shelves[tenant].size)
            self._drop(fullest, next(iter(self._shelves[fullest].entries)))

    def clear(self) -> None:
        """Forgets all."""
        self._shelves.clear()
        self._entries = self._bytes = 0

    def _drop(self, tenant: str, key: str) -> None:
        shelf = self._shelves[tenant]
        size = shelf.entries.pop(key).size
        shelf.size -= size
        self._bytes -= size
        self._entries -= 1
        if not shelf.entries:
            del self._shelves[tenant]


def _size(completion: Completion) -> int:
    """Returns about how much memory an answer takes, in bytes."""
    texts = [completion.content, *(call.arguments for call in completion.tool_calls)]
    numbers = sum(map(len, completion.vectors)) + len(completion.scores)
    tokens = sum(1 + len(each.top) for each in completion.logprobs)
    return ENTRY_BYTES + sum(map(getsizeof, texts)) + NUMBER_BYTES * numbers + TOKEN_BYTES * tokens
