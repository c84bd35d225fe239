"""Our own processes, in the same shape as the services that they stand on; workers aside."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

from infra.bootstrap import ROOT, python_of
from infra.stack import postgres
from infra.stack.places import OPERATOR, bus, cache, operator, vectors
from infra.stack.secret import key_path, private_key, secret, secret_path
from infra.stack.service import Service, http_ok, lake_folder, no_preparation, private
from infra.stack.settings import StackSettings

SEED = ROOT / "catalog" / "seed.yaml"


def agents(settings: StackSettings) -> Service:
    """The processor of agents; runs ask for their callers, signed by the operator."""
    return process(
        "agents",
        "streams agents",
        settings.agents_health_port,
        settings,
        environment={**postgres.reached(settings), **operator(settings)},
        # It is answered on the tenant's topic, which comes with the catalog.
        depends_on=("catalog", "postgres"),
    )


def catalog(settings: StackSettings) -> Service:
    """The registrar: the one writer of the catalog, in PostgreSQL."""
    return process(
        "catalog",
        "catalog",
        settings.catalog_health_port,
        settings,
        environment={
            **postgres.reached(settings),
            "CATALOG_FIRST_KEY": f"file:{key_path(OPERATOR, settings)}",
            "CATALOG_FIRST_PRINCIPAL": OPERATOR,
            "CATALOG_SEED": str(SEED),
        },
        prepare=lambda: _first_key(settings),
        depends_on=("postgres", "provision"),
    )


def gateway(settings: StackSettings) -> Service:
    """The processor that admits requests and releases replies."""
    return process(
        "gateway",
        "streams gateway",
        settings.gateway_health_port,
        settings,
        environment={"GATEWAY_SEAL": f"file:{secret_path('seal', settings)}"},
        prepare=lambda: _seal(settings),
        # One that starts earlier refuses what it does not know yet.
        depends_on=("catalog",),
    )


def indexer(settings: StackSettings) -> Service:
    """The processor that keeps indexes up to date; endpoints are asked as the operator."""
    return process(
        "indexer",
        "streams index",
        settings.indexer_health_port,
        settings,
        environment={**cache(settings), **vectors(settings), **operator(settings)},
        # It is answered on the tenant's topic, which comes with the catalog.
        depends_on=("catalog", "redis", "weaviate"),
    )


def provision(settings: StackSettings) -> Service:
    """Makes the topics that the contract names and registers schemas, before any process starts."""
    return Service(
        name="provision",
        command=(sys.executable, "-m", "infra.provision"),
        environment=bus(settings),
        port=None,
        ready=None,
        depends_on=("kafka", "registry"),
    )


def recorder(settings: StackSettings) -> Service:
    """The sinks that write the tables of the lake."""
    return process(
        "recorder",
        "streams recorder",
        settings.recorder_health_port,
        settings,
        prepare=lambda: private(lake_folder(settings)),
        depends_on=("provision",),
    )


def process(
    name: str,
    words: str,
    port: int,
    settings: StackSettings,
    *,
    depends_on: tuple[str, ...],
    environment: Mapping[str, str] | None = None,
    prepare: Callable[[], None] = no_preparation,
    artifacts: tuple[str, ...] = (),
    needs_worker: bool = False,
    start_s: float = 180.0,
) -> Service:
    """A process of ours, as a service: it tells its health on the port.

    It is begun with ``python -m`` and these words, in the environment of the workers where it
    needs that, and is given the variables of the bus before its own.
    """
    python = str(python_of("worker")) if needs_worker else sys.executable
    return Service(
        name=name,
        command=(python, "-m", *words.split()),
        environment={**bus(settings), "HEALTH_PORT": str(port), **(environment or {})},
        port=port,
        ready=http_ok(port, "/ready"),
        live=http_ok(port, "/live"),
        prepare=prepare,
        depends_on=depends_on,
        artifacts=artifacts,
        needs_worker=needs_worker,
        start_s=start_s,
        stop_grace_s=30.0,
    )


def _seal(settings: StackSettings) -> None:
    secret("seal", settings)


def _first_key(settings: StackSettings) -> None:
    private_key(OPERATOR, settings)
