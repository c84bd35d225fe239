"""Our workers, in the same shape as the services that they stand on."""

from __future__ import annotations

import os

from infra import artifacts, models
from infra.stack import connect, places, postgres
from infra.stack.places import cache, operator, vectors
from infra.stack.processes import process
from infra.stack.service import Service
from infra.stack.settings import StackSettings

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


def embedding(settings: StackSettings) -> Service:
    """The worker that embeds texts with the packaged sentence encoder."""
    return process(
        "embedding",
        "workers inference --provider embedding --pool embedding",
        settings.embedding_health_port,
        settings,
        environment={
            "HF_HUB_OFFLINE": "1",
            "INFERENCE_MODEL": f"package:{models.CARRIED[EMBEDDER]}",
            "INFERENCE_MODEL_NAME": EMBEDDER,
            "KMP_BLOCKTIME": "1",
            "OMP_NUM_THREADS": str(os.cpu_count() or 1),
            "OMP_WAIT_POLICY": "PASSIVE",
        },
        # The topic of its pool comes with the catalog's endpoint.
        depends_on=("catalog",),
        needs_worker=True,
        start_s=300.0,
    )


def guard(settings: StackSettings) -> Service:
    """The worker that asks who judges requests and answers; judges are asked as the operator."""
    return process(
        "guard",
        "workers guard",
        settings.guard_health_port,
        settings,
        environment=operator(settings),
        # It is answered on the tenant's topic, which comes with the catalog.
        depends_on=("catalog",),
    )


def inference(settings: StackSettings) -> Service:
    """The worker that serves the packaged model with vLLM; starting it takes minutes.

    The topic of its pool comes with the catalog's endpoint.
    """
    return process(
        "inference",
        "workers inference",
        settings.inference_health_port,
        settings,
        environment={
            **VLLM,
            "INFERENCE_MODEL": str(artifacts.folder(MODEL, settings.cache)),
            "OMP_NUM_THREADS": str(os.cpu_count() or 1),
        },
        depends_on=("catalog",),
        artifacts=(MODEL,),
        needs_worker=True,
        start_s=600.0,
    )


def jobs(settings: StackSettings) -> Service:
    """The worker of the jobs that come by the clock: comparing indexes with their sources."""
    return process(
        "jobs",
        "workers jobs",
        settings.jobs_health_port,
        settings,
        environment={**vectors(settings), **places.jobs(settings)},
        depends_on=("catalog", "redis", "weaviate"),
    )


def outside(settings: StackSettings) -> Service:
    """The worker that serves every connection of the catalog; it takes no model and no torch.

    Secrets that connections name as ``env:NAME`` are those of whoever started the stack.
    """
    return process(
        "outside",
        "workers inference --provider outside --pool outside",
        settings.outside_health_port,
        settings,
        # Its requests only wait for somebody else's machines.
        environment={"INFERENCE_MAX_IN_FLIGHT": "1000"},
        depends_on=("catalog",),
    )


def searcher(settings: StackSettings) -> Service:
    """The worker that searches indexes and writes to them; endpoints are asked as the operator."""
    return process(
        "searcher",
        "workers inference --provider search --pool search",
        settings.searcher_health_port,
        settings,
        environment={**cache(settings), **vectors(settings), **operator(settings)},
        # It is answered on the tenant's topic, which comes with the catalog.
        depends_on=("catalog", "redis", "weaviate"),
    )


def sources(settings: StackSettings) -> Service:
    """The worker that has tables captured by Kafka Connect, and watches over them.

    Secrets that connections name as ``env:NAME`` are those of whoever started the stack.
    """
    return process(
        "sources",
        "workers sources",
        settings.sources_health_port,
        settings,
        environment=connect.reached(settings),
        depends_on=("catalog", "connect"),
    )


def toolbox(settings: StackSettings) -> Service:
    """The worker that checks calls of tools, has them run and tells what each came to."""
    return process(
        "toolbox",
        "workers inference --provider tools --pool tools",
        settings.toolbox_health_port,
        settings,
        environment={
            **postgres.reached(settings),
            **places.tools(settings),
            # Its requests only wait for calls that others run.
            "INFERENCE_MAX_IN_FLIGHT": "1000",
        },
        depends_on=("catalog", "postgres", "redis"),
    )


def tools(settings: StackSettings) -> Service:
    """The worker that runs calls of tools.

    Secrets that connections name as ``env:NAME`` are those of whoever started the stack.
    """
    return process(
        "tools",
        "workers tools",
        settings.tools_health_port,
        settings,
        environment={**postgres.reached(settings), **places.tools(settings)},
        depends_on=("catalog", "postgres", "redis"),
    )
