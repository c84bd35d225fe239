"""Our own processes, in the same shape as the services that they stand on."""

from __future__ import annotations

import os
import sys
from dataclasses import replace

from infra import artifacts, models
from infra.bootstrap import ROOT, python_of
from infra.settings import StackSettings
from infra.stack import connect, postgres
from infra.stack.secret import key_path, private_key, secret, secret_path
from infra.stack.service import LOOPBACK, Service, http_ok, lake_folder, private

# What vLLM needs to be told on a CPU: a small cache, threads that yield, nothing sent anywhere.
VLLM = {
    "HF_HUB_OFFLINE": "1",
    "KMP_BLOCKTIME": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    # Otherwise the first request for log probabilities waits half a minute for a compiler.
    "TORCHDYNAMO_DISABLE": "1",
    # Its own log lines go where ours go, and are held to the same rule.
    "VLLM_CONFIGURE_LOGGING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
}
MODEL = "smollm2-135m-instruct"
EMBEDDER = "all-minilm-l6-v2"
# Who may do everything at first, and the tenant that it acts for; both are in the seed.
OPERATOR, TENANT = "operator", "demo"
SEED = ROOT / "catalog" / "seed.yaml"


def catalog(settings: StackSettings) -> Service:
    """The registrar: the one writer of the catalog, in PostgreSQL."""
    process = _process(
        "catalog", (sys.executable, "-m", "catalog"), settings.catalog_health_port, settings
    )
    return replace(
        process,
        environment={
            **process.environment,
            **postgres.reached(settings),
            "CATALOG_FIRST_KEY": f"file:{key_path(OPERATOR, settings)}",
            "CATALOG_FIRST_PRINCIPAL": OPERATOR,
            "CATALOG_SEED": str(SEED),
        },
        prepare=lambda: _first_key(settings),
        depends_on=("postgres", "provision"),
    )


def embedding(settings: StackSettings) -> Service:
    """The worker that embeds texts with the packaged sentence encoder."""
    process = _process(
        "embedding",
        (
            str(python_of("worker")),
            *("-m", "workers", "inference", "--provider", "embedding", "--pool", "embedding"),
        ),
        settings.embedding_health_port,
        settings,
    )
    return replace(
        process,
        # The topic of its pool comes with the catalog's endpoint.
        depends_on=("catalog",),
        environment={
            **process.environment,
            "HF_HUB_OFFLINE": "1",
            "INFERENCE_MODEL": f"package:{models.CARRIED[EMBEDDER]}",
            "INFERENCE_MODEL_NAME": EMBEDDER,
            "KMP_BLOCKTIME": "1",
            "OMP_NUM_THREADS": str(os.cpu_count() or 1),
            "OMP_WAIT_POLICY": "PASSIVE",
        },
        needs_worker=True,
        start_s=300.0,
    )


def gateway(settings: StackSettings) -> Service:
    """The processor that admits requests and releases replies."""
    process = _process(
        "gateway",
        (sys.executable, "-m", "streams", "gateway"),
        settings.gateway_health_port,
        settings,
    )
    return replace(
        process,
        environment={
            **process.environment,
            "GATEWAY_SEAL": f"file:{secret_path('seal', settings)}",
        },
        prepare=lambda: _seal(settings),
        # One that starts earlier refuses what it does not know yet.
        depends_on=("catalog",),
    )


def guard(settings: StackSettings) -> Service:
    """The worker that asks who judges requests and answers; judges are asked as the operator."""
    process = _process(
        "guard", (sys.executable, "-m", "workers", "guard"), settings.guard_health_port, settings
    )
    return replace(
        process,
        environment={
            **process.environment,
            **_as_operator(settings),
        },
        # It is answered on the tenant's topic, which comes with the catalog.
        depends_on=("catalog",),
    )


def indexer(settings: StackSettings) -> Service:
    """The processor that keeps indexes up to date; endpoints are asked as the operator."""
    process = _process(
        "indexer",
        (sys.executable, "-m", "streams", "index"),
        settings.indexer_health_port,
        settings,
    )
    return replace(
        process,
        environment={
            **process.environment,
            **cache(settings),
            **vectors(settings),
            **_as_operator(settings),
        },
        # It is answered on the tenant's topic, which comes with the catalog.
        depends_on=("catalog", "redis", "weaviate"),
    )


def jobs(settings: StackSettings) -> Service:
    """The worker of the jobs that come by the clock: comparing indexes with their sources."""
    process = _process(
        "jobs", (sys.executable, "-m", "workers", "jobs"), settings.jobs_health_port, settings
    )
    return replace(
        process,
        environment={
            **process.environment,
            **vectors(settings),
            "JOBS_BROKER": f"redis://{LOOPBACK}:{settings.redis_port}/1",
        },
        depends_on=("catalog", "redis", "weaviate"),
    )


def inference(settings: StackSettings) -> Service:
    """The worker that serves the packaged model with vLLM; starting it takes minutes.

    The topic of its pool comes with the catalog's endpoint.
    """
    process = _process(
        "inference",
        (str(python_of("worker")), "-m", "workers", "inference"),
        settings.inference_health_port,
        settings,
    )
    model = artifacts.folder(MODEL, settings.cache)
    return replace(
        process,
        depends_on=("catalog",),
        environment={
            **process.environment,
            **VLLM,
            "INFERENCE_MODEL": str(model),
            "OMP_NUM_THREADS": str(os.cpu_count() or 1),
        },
        artifacts=(MODEL,),
        needs_worker=True,
        start_s=600.0,
        stop_grace_s=30.0,
    )


def outside(settings: StackSettings) -> Service:
    """The worker that serves every connection of the catalog; it takes no model and no torch.

    Secrets that connections name as ``env:NAME`` are those of whoever started the stack.
    """
    process = _process(
        "outside",
        (
            sys.executable,
            *("-m", "workers", "inference", "--provider", "outside", "--pool", "outside"),
        ),
        settings.outside_health_port,
        settings,
    )
    return replace(
        process,
        # Its requests only wait for somebody else's machines.
        environment={**process.environment, "INFERENCE_MAX_IN_FLIGHT": "1000"},
        depends_on=("catalog",),
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
    process = _process(
        "recorder",
        (sys.executable, "-m", "streams", "recorder"),
        settings.recorder_health_port,
        settings,
    )
    return replace(process, prepare=lambda: private(lake_folder(settings)))


def searcher(settings: StackSettings) -> Service:
    """The worker that searches indexes and writes to them; endpoints are asked as the operator."""
    process = _process(
        "searcher",
        (
            sys.executable,
            *("-m", "workers", "inference", "--provider", "search", "--pool", "search"),
        ),
        settings.searcher_health_port,
        settings,
    )
    return replace(
        process,
        environment={
            **process.environment,
            **cache(settings),
            **vectors(settings),
            **_as_operator(settings),
        },
        # It is answered on the tenant's topic, which comes with the catalog.
        depends_on=("catalog", "redis", "weaviate"),
    )


def sources(settings: StackSettings) -> Service:
    """The worker that has tables captured by Kafka Connect, and watches over them.

    Secrets that connections name as ``env:NAME`` are those of whoever started the stack.
    """
    process = _process(
        "sources",
        (sys.executable, "-m", "workers", "sources"),
        settings.sources_health_port,
        settings,
    )
    return replace(
        process,
        environment={**process.environment, **connect.reached(settings)},
        depends_on=("catalog", "connect"),
    )


def bus(settings: StackSettings) -> dict[str, str]:
    """Where the log, the schemas and the tables are, for any process of ours."""
    return {
        "KAFKA_BOOTSTRAP_SERVERS": f"{LOOPBACK}:{settings.kafka_port}",
        "LAKE_ROOT": str(lake_folder(settings)),
        "REGISTRY_URL": f"http://{LOOPBACK}:{settings.registry_port}/apis/ccompat/v7",
    }


def cache(settings: StackSettings) -> dict[str, str]:
    """Where vectors are kept that are known already."""
    return {"REDIS_URL": f"redis://{LOOPBACK}:{settings.redis_port}/0"}


def vectors(settings: StackSettings) -> dict[str, str]:
    """Where the vector store is, and its key by reference."""
    return {
        "VECTORS_GRPC_PORT": str(settings.weaviate_grpc_port),
        "VECTORS_KEY": f"file:{secret_path('weaviate', settings)}",
        "VECTORS_URL": f"http://{LOOPBACK}:{settings.weaviate_port}",
    }


def client(settings: StackSettings) -> dict[str, str]:
    """Who asks: the operator, unless the caller's own variables say who."""
    inherited = settings.inherited
    own = {name: inherited[name] for name in inherited if name.startswith("CLIENT_")}
    return own or {
        "CLIENT_KEY": f"file:{key_path(OPERATOR, settings)}",
        "CLIENT_PRINCIPAL": OPERATOR,
        "CLIENT_TENANT": TENANT,
    }


def _seal(settings: StackSettings) -> None:
    secret("seal", settings)


def _first_key(settings: StackSettings) -> None:
    private_key(OPERATOR, settings)


def _as_operator(settings: StackSettings) -> dict[str, str]:
    """Returns what a process asks endpoints with, as the operator."""
    return {
        "CLIENT_KEY": f"file:{key_path(OPERATOR, settings)}",
        "CLIENT_PRINCIPAL": OPERATOR,
        "CLIENT_TENANT": TENANT,
    }


def _process(name: str, command: tuple[str, ...], port: int, settings: StackSettings) -> Service:
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
