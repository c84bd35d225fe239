"""The table of everything that the stack runs, in alphabetical order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from infra.stack import connect, kafka, postgres, processes, redis, registry, weaviate, workers
from infra.stack.service import Service
from infra.stack.settings import StackSettings

SERVICES: dict[str, Callable[[StackSettings], Service]] = {
    "agents": processes.agents,
    "catalog": processes.catalog,
    "connect": connect.service,
    "embedding": workers.embedding,
    "gateway": processes.gateway,
    "guard": workers.guard,
    "indexer": processes.indexer,
    "inference": workers.inference,
    "jobs": workers.jobs,
    "kafka": kafka.service,
    "outside": workers.outside,
    "postgres": postgres.service,
    "provision": processes.provision,
    "recorder": processes.recorder,
    "redis": redis.service,
    "registry": registry.service,
    "searcher": workers.searcher,
    "sources": workers.sources,
    "toolbox": workers.toolbox,
    "tools": workers.tools,
    "weaviate": weaviate.service,
}
# What is not ours: the ground that the processes stand on.
FOUNDATION = ("connect", "kafka", "postgres", "redis", "registry", "weaviate")


def build(settings: StackSettings) -> dict[str, Service]:
    """Every service, for these settings; pure."""
    return {name: make(settings) for name, make in SERVICES.items()}


def closure(names: Iterable[str], services: Mapping[str, Service]) -> list[str]:
    """The services named and all that they depend on, dependencies first.

    Raises:
        KeyError: a name that is not in the table.
    """
    ordered: list[str] = []

    def add(name: str) -> None:
        for dependency in services[name].depends_on:
            add(dependency)
        if name not in ordered:
            ordered.append(name)

    for name in sorted(names):
        add(name)
    return ordered
