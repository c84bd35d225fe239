"""The bus with a vector store: a gateway, and a worker that embeds by words."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from infra.stack.local import LocalStack
from infra.vectors import Vectors
from tests.broker.storing import settings_of
from tests.conftest import running as running_stack
from tests.harness import CALM_SESSION_MS, Bus, Process, running
from tests.seed import documents, seed

CATALOG = documents(Path(__file__).with_name("catalog.yaml"))
WORDS = [
    *("-m", "workers", "inference"),
    *("--provider", "tests.index.words:open_words", "--pool", "words"),
]


@pytest.fixture(scope="package")
def index_stack() -> Iterator[LocalStack]:
    """Kafka, the registry, Weaviate and Redis; whoever harms them must leave them ready."""
    with running_stack(["kafka", "redis", "registry", "weaviate"]) as stack:
        yield stack


@pytest.fixture(scope="package")
def index_bus(index_stack: LocalStack) -> Bus:
    """The bus of these tests, provisioned."""
    bus = Bus(index_stack, CALM_SESSION_MS)
    seed(bus, CATALOG)
    return bus


@pytest.fixture(scope="package")
def town(index_bus: Bus, folder: Path) -> Iterator[list[Process]]:
    """A gateway, and the worker behind its endpoint."""
    with ExitStack() as opened:
        yield [
            opened.enter_context(running(index_bus, command, folder))
            for command in (["-m", "streams", "gateway"], WORDS)
        ]


@pytest.fixture
async def vectors(index_stack: LocalStack) -> AsyncIterator[Vectors]:
    """The vector store."""
    async with Vectors.open(settings_of(index_stack)) as vectors:
        yield vectors
