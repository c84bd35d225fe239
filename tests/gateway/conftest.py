"""Two gateways, a worker that asks outside providers, and upstreams that keep all they are sent."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from schemas.topics import INFERENCE_ATTEMPTED, INFERENCE_RECORDED, INFERENCE_REFUSED
from tests import harness
from tests.broker.pools import PATIENCE_S, following
from tests.broker.test_spans import Collector
from tests.gateway.town import KEYS, SCOUTS, Town, endpoint, tenant, way
from tests.gateway.upstreams import Upstreams, serving
from tests.harness import Bus, Process
from tests.seed import changes, publish

# Like any other, save that it breaks where a text says so.
SECOND = ["-m", "streams", "tests.gateway.breaking:open_gateway", "--name", "gateway"]
OUTSIDE = ["-m", "workers", "inference", "--provider", "outside", "--pool", "outside"]


def telling(spans: Collector) -> dict[str, str]:
    """Returns the settings of a process that logs all it can, and tells of each piece of work."""
    return {
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "TELEMETRY_LOG_LEVEL": "debug",
        "TELEMETRY_OTLP_ENDPOINT": spans.endpoint,
    }


@pytest.fixture(scope="package")
def upstreams() -> Iterator[Upstreams]:
    """Servers of this machine."""
    with serving() as upstreams:
        yield upstreams


@pytest.fixture(scope="package")
def town(
    bus: Bus, gateway: Process, recorder: Process, folder: Path, upstreams: Upstreams
) -> Iterator[Town]:
    """Two gateways and a worker, in front of the upstreams."""
    scouts = [tenant(name, replies=["scouts"]) for name in SCOUTS]
    # The worker's topic is made with the endpoint that names its pool.
    publish(bus, *changes([*scouts, endpoint("first", way("a", "any", "m"))]))

    def start(command: list[str]) -> Process:
        more = {"INFERENCE_COALESCE_MS": "1", **KEYS}
        if command is SECOND:
            more |= telling(spans)
        process = harness.running(bus, command, folder, start_s=PATIENCE_S, **more)
        return opened.enter_context(process)

    with ExitStack() as opened, ThreadPoolExecutor() as at_once:
        spans = opened.enter_context(Collector().listening())
        second, worker = at_once.map(start, (SECOND, OUTSIDE))
        yield Town(
            bus=bus,
            upstreams=upstreams,
            gateways=(gateway, second),
            worker=worker,
            spans=spans,
            folder=folder,
            recorded=opened.enter_context(following(bus, INFERENCE_RECORDED)),
            attempted=opened.enter_context(following(bus, INFERENCE_ATTEMPTED)),
            refused=opened.enter_context(following(bus, INFERENCE_REFUSED)),
        )
