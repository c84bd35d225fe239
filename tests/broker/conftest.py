"""The vector store of the session, opened for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from infra.stack.local import LocalStack
from infra.vectors import Vectors
from tests.broker.storing import settings_of


@pytest.fixture
async def vectors(vector_stack: LocalStack) -> AsyncIterator[Vectors]:
    """The vector store."""
    async with Vectors.open(settings_of(vector_stack)) as vectors:
        yield vectors
