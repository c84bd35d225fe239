"""Our own processes, in the same shape as the services that they stand on; workers aside."""

from __future__ import annotations

import sys
from dataclasses import replace

from infra.bootstrap import ROOT
from infra.stack import postgres
from infra.stack.places import OPERATOR, bus, cache, operator, vectors
from infra.stack.secret import key_path, private_key, secret, secret_path
from infra.stack.service import Service, http_ok, lake_folder, private
from infra.stack.settings import StackSettings

SEED = ROOT / "catalog" / "seed.yaml"


def agents(settings: StackSettings) -> Service:
    """The processor of agents; runs ask for their callers, signed by the operator."""
    own = process(
        "agents",
        (sys.executable, "-m", "streams", "agents"),
        settings.agents_health_port,
        settings,
    )
    return replace(
        own,
        environment={**own.environment, **postgres.reached(settings), **operator(settings)},
        # It is answered on the tenant's topic, which comes with the catalog.
        depends_on=("catalog", "postgres"),
    )


def catalog(settings: StackSettings) -> Service:
    """The registrar: the one writer of the catalog, in PostgreSQL."""
    own = process(
        "catalog", (sys.executable, "-m", "catalog"), settings.catalog_health_port, settings
    )
    return replace(
        own,
        environment={
            **own.environment,
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
    own = process(
        "gateway",
        (sys.executable, "-m", "streams", "gateway"),
        settings.gateway_health_port,
        settings,
    )
    return replace(
        own,
        environment={
            **own.environment,
            "GATEWAY_SEAL": f"file:{secret_path('seal', settings)}",
        },
        prepare=lambda: _seal(settings),
        # One that starts earlier refuses what it does not know yet.
        depends_on=("catalog",),
    )


def indexer(settings: StackSettings) -> Service:
    """The processor that keeps indexes up to date; endpoints are asked as the operator."""
    own = process(
        "indexer",
        (sys.executable, "-m", "streams", "index"),
        settings.indexer_health_port,
        settings,
    )
    return replace(
        own,
        environment={
            **own.environment,
            **cache(settings),
            **vectors(settings),
            **operator(settings),
        },
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
    own = process(
        "recorder",
        (sys.executable, "-m", "streams", "recorder"),
        settings.recorder_health_port,
        settings,
    )
    return replace(own, prepare=lambda: private(lake_folder(settings)))


def process(name: str, command: tuple[str, ...], port: int, settings: StackSettings) -> Service:
    """A process of ours: it tells its health on a port, and starts when the bus is provisioned."""
    return Service(
        name=name,
        command=command,
        environment={**bus(settings), "HEALTH_PORT": str(port)},
        port=port,
        ready=http_ok(port, "/ready"),
        live=http_ok(port, "/live"),
        depends_on=("provision",),
        start_s=180.0,
        stop_grace_s=30.0,
    )


def _seal(settings: StackSettings) -> None:
    secret("seal", settings)


def _first_key(settings: StackSettings) -> None:
    private_key(OPERATOR, settings)
