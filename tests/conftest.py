"""The stacks that tests run on: real services, their own home and ports, gone at the end."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import settings

from infra.stack.local import LocalStack, free_ports
from infra.stack.services import FOUNDATION

# How long an example takes says nothing on a machine that others use, too.
settings.register_profile("tessera", deadline=None)
settings.load_profile("tessera")


@contextmanager
def running(only: Iterable[str]) -> Iterator[LocalStack]:
    """A fresh stack that ends with the block, or with this process if that is killed."""
    home = Path(tempfile.mkdtemp(prefix="tessera-"))
    # PostgreSQL runs as another user and must get through.
    home.chmod(0o755)
    stack = LocalStack(free_ports(home))
    try:
        stack.up(only)
        yield stack
    finally:
        stack.down()
        shutil.rmtree(home)


@pytest.fixture(scope="session")
def stack() -> Iterator[LocalStack]:
    """Kafka and the schema registry; whoever harms them must leave them ready."""
    with running(["kafka", "registry"]) as stack:
        yield stack


@pytest.fixture(scope="session")
def full_stack() -> Iterator[LocalStack]:
    """Everything that is not ours: also Connect, PostgreSQL, Redis and Weaviate."""
    with running(FOUNDATION) as stack:
        yield stack
