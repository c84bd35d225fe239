"""The stacks that tests run on: real services, their own home and ports, gone at the end."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from infra.stack.local import LocalStack, free_ports


@contextmanager
def running(only: list[str] | None = None) -> Iterator[LocalStack]:
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
    """Kafka and the schema registry."""
    with running(["kafka", "registry"]) as stack:
        yield stack
