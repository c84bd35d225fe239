"""Our own processes, in the same shape as the services that they stand on."""

from __future__ import annotations

import os
import sys
from dataclasses import replace

from infra import artifacts
from infra.bootstrap import python_of
from infra.settings import StackSettings
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


def gateway(settings: StackSettings) -> Service:
    """The processor that admits requests and releases replies."""
    return _process(
        "gateway",
        (sys.executable, "-m", "streams", "gateway"),
        settings.gateway_health_port,
        settings,
    )


def inference(settings: StackSettings) -> Service:
    """The worker that serves the packaged model with vLLM; starting it takes minutes."""
    process = _process(
        "inference",
        (str(python_of("worker")), "-m", "workers", "inference"),
        settings.inference_health_port,
        settings,
    )
    model = artifacts.folder(MODEL, settings.cache)
    return replace(
        process,
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


def provision(settings: StackSettings) -> Service:
    """Makes topics and registers schemas, once, before any process starts."""
    return Service(
        name="provision",
        command=(sys.executable, "-m", "infra.provision"),
        environment=bus(settings),
        port=None,
        ready=None,
        depends_on=("kafka", "registry"),
    )


def recorder(settings: StackSettings) -> Service:
    """The sink that writes the inference table."""
    process = _process(
        "recorder",
        (sys.executable, "-m", "streams", "recorder"),
        settings.recorder_health_port,
        settings,
    )
    return replace(process, prepare=lambda: private(lake_folder(settings)))


def bus(settings: StackSettings) -> dict[str, str]:
    """Where the log, the schemas and the tables are, for any process of ours."""
    return {
        "KAFKA_BOOTSTRAP_SERVERS": f"{LOOPBACK}:{settings.kafka_port}",
        "LAKE_ROOT": str(lake_folder(settings)),
        "REGISTRY_URL": f"http://{LOOPBACK}:{settings.registry_port}/apis/ccompat/v7",
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
