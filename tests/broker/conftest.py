"""The bus of the session, provisioned for the tests' own tenants and pools, and its gateway."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.stack.local import LocalStack
from tests.harness import Bus, Process, running
from tests.seed import documents, seed

CATALOG = documents(Path(__file__).with_name("catalog.yaml"))


@pytest.fixture(scope="session")
def bus(stack: LocalStack) -> Bus:
    """The broker and the registry with every topic and schema of the tests' catalog."""
    bus = Bus(stack)
    seed(bus, CATALOG)
    return bus


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the session's processes keep logs and tables."""
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="session")
def gateway(bus: Bus, folder: Path) -> Iterator[Process]:
    """The gateway of the session."""
    with running(bus, ["-m", "streams", "gateway"], folder) as process:
        yield process


@pytest.fixture(scope="session")
def echo(bus: Bus, folder: Path) -> Iterator[Process]:
    """An inference worker of the pool ``echo`` that repeats what it is told."""
    command = ["-m", "workers", "inference", "--provider", "echo", "--pool", "echo"]
    with running(bus, command, folder) as process:
        yield process


@pytest.fixture(scope="session")
def recorder(bus: Bus, folder: Path) -> Iterator[Process]:
    """The recorder of the session; its lake lies in the session's folder."""
    with running(bus, ["-m", "streams", "recorder"], folder) as process:
        yield process
