"""A stack of their own for tests that kill the broker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from infra.stack.local import LocalStack
from tests.conftest import CATALOG
from tests.conftest import running as running_stack
from tests.harness import Bus
from tests.seed import seed


@pytest.fixture(scope="module")
def mortal_stack() -> Iterator[LocalStack]:
    """Kafka and the registry, for one file of tests."""
    with running_stack(["kafka", "registry"]) as stack:
        yield stack


@pytest.fixture(scope="module")
def bus(mortal_stack: LocalStack) -> Bus:
    """The mortal broker, provisioned."""
    bus = Bus(mortal_stack)
    seed(bus, CATALOG)
    return bus
