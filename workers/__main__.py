"""Starts a worker.

    python -m workers inference                              with what the environment says
    python -m workers inference --pool NAME --model PATH --model-name NAME      another model
    python -m workers inference --engine dtype=bfloat16 --engine tensor_parallel_size=2
    python -m workers inference --provider outside --pool outside    the catalog's connections
    python -m workers jobs                                   compares indexes with their sources
    python -m workers guard                                  asks those who judge requests, answers
    python -m workers sources                                captures tables, as the catalog says
    python -m workers tools                                  runs functions that are called as tools
    python -m workers calls list                             see --help

Settings come from the environment: KAFKA_*, REGISTRY_*, INFERENCE_*, HEALTH_*, TELEMETRY_*; for
guards GUARD_*, and CLIENT_* says as whom judges are asked; for sources CONNECT_*, SOURCES_*;
for jobs JOBS_*, VECTORS_*; for tools TOOLS_*, POSTGRES_*; for calls CLIENT_*, too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from importlib import import_module

import structlog

from infra.asker import Asker
from infra.bus import BusUnreachable, Publisher
from infra.follow import CatalogLost, follow
from infra.registry import Reader, Registry, RegistryUnreachable, SchemaMissing
from infra.secrets import SecretUnavailable, resolve
from infra.settings import (
    ClientSettings,
    ConnectSettings,
    GuardSettings,
    HealthSettings,
    InferenceSettings,
    JobsSettings,
    KafkaSettings,
    PostgresSettings,
    RegistrySettings,
    SettingInvalid,
    SourcesSettings,
    TelemetrySettings,
    ToolsSettings,
    VectorSettings,
)
from infra.signing import KeyUnusable, Signer
from infra.tail import TailBroken
from infra.telemetry import close, configure, configure_command
from schemas.codec import Codec
from schemas.topics import INFERENCE_HELD, INFERENCE_ROUTED, LONGEST_DEADLINE_MS, REPLY
from workers.guard import Guarding
from workers.inference import Inference
from workers.providers import CatalogReader, opener
from workers.worker import Worker

log = structlog.get_logger()

THREADS = 64


class ProviderUnfit(RuntimeError):
    """The provider cannot be opened as the settings say."""


UNFIT = (
    BusUnreachable,
    CatalogLost,
    KeyUnusable,
    LookupError,
    ProviderUnfit,
    RegistryUnreachable,
    SchemaMissing,
    SecretUnavailable,
    SettingInvalid,
    TailBroken,
)


async def inference(settings: InferenceSettings) -> None:
    """Runs an inference worker until it is told to stop."""
    # Names are looked up and secrets read in threads: a few that hang must not take them all.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))
    kafka, health = KafkaSettings(), HealthSettings()
    registry = Registry(RegistrySettings())
    codec = Codec(await asyncio.to_thread(registry.ids))
    reader = Reader(codec, registry)
    name = f"inference-{settings.pool}"
    publisher = Publisher(kafka, codec, f"{name}-publisher")
    log.info("provider opens", provider=settings.provider, pool=settings.pool)
    try:
        provider = await opener(settings.provider)(settings)
    except ValueError as problem:
        raise ProviderUnfit(f"provider {settings.provider}: {problem}") from None
    # An inference may take until its deadline: only beyond that it stands still.
    stall_ms = LONGEST_DEADLINE_MS + health.stall_ms
    worker = Worker(
        name=name,
        topic=INFERENCE_ROUTED.member(settings.pool),
        work=Inference(provider, settings),
        most=settings.max_in_flight,
        drain_s=settings.drain_ms / 1000,
        kafka=kafka,
        health=health.model_copy(update={"stall_ms": stall_ms}),
        publisher=publisher,
        reader=reader,
    )
    async with AsyncExitStack() as held:
        if isinstance(provider, CatalogReader):
            following = await follow(
                kafka, reader, provider.view, name, worker.fail, provider.changed
            )
            held.push_async_callback(following.close)
        await worker.run()
    await publisher.close()


async def guard(settings: GuardSettings) -> None:
    """Runs a guard worker until it is told to stop."""
    kafka, health, client = KafkaSettings(), HealthSettings(), ClientSettings()
    registry = Registry(RegistrySettings())
    codec = Codec(await asyncio.to_thread(registry.ids))
    reader = Reader(codec, registry)
    publisher = Publisher(kafka, codec, "guard-publisher")
    signer = Signer(resolve(client.key)) if client.key else None
    stall_ms = LONGEST_DEADLINE_MS + health.stall_ms
    asker = Asker(kafka, registry, client.tenant, REPLY.member(client.tenant).name, signer)
    async with AsyncExitStack() as held:
        work = Guarding(await held.enter_async_context(asker), client)
        worker = Worker(
            name="guard",
            topic=INFERENCE_HELD,
            work=work,
            most=settings.max_in_flight,
            drain_s=settings.drain_ms / 1000,
            kafka=kafka,
            health=health.model_copy(update={"stall_ms": stall_ms}),
            publisher=publisher,
            reader=reader,
        )
        following = await follow(kafka, reader, work.view, "guard", worker.fail, work.changed)
        held.push_async_callback(following.close)
        await worker.run()
    await publisher.close()


async def jobs(settings: JobsSettings) -> None:
    """Runs the jobs that come by the clock until it is told to stop."""
    # The service environment alone has Celery, and drivers for stores and databases.
    work = import_module("workers.jobs")
    kafka = KafkaSettings()
    registry = Registry(RegistrySettings())
    codec = Codec(await asyncio.to_thread(registry.ids))
    reader = Reader(codec, registry)
    publisher = Publisher(kafka, codec, "jobs-publisher")
    await work.Jobs(kafka, VectorSettings(), settings, HealthSettings(), publisher, reader).run()
    await publisher.close()


async def sources(settings: SourcesSettings) -> None:
    """Runs the watch over captured tables until it is told to stop."""
    # The service environment alone has a driver for databases.
    watch = import_module("workers.sources")
    kafka = KafkaSettings()
    registry = Registry(RegistrySettings())
    codec = Codec(await asyncio.to_thread(registry.ids))
    reader = Reader(codec, registry)
    publisher = Publisher(kafka, codec, "sources-publisher")
    work = watch.Sources(kafka, ConnectSettings(), settings, HealthSettings(), publisher, reader)
    async with AsyncExitStack() as held:
        following = await follow(kafka, reader, work.view, "sources", work.fail, work.changed)
        held.push_async_callback(following.close)
        await work.run()
    await publisher.close()


async def tools(settings: ToolsSettings) -> None:
    """Runs the functions that are called as tools until it is told to stop."""
    # The service environment alone has Celery and a driver for databases.
    work = import_module("workers.tools.executor")
    kafka = KafkaSettings()
    registry = Registry(RegistrySettings())
    codec = Codec(await asyncio.to_thread(registry.ids))
    reader = Reader(codec, registry)
    publisher = Publisher(kafka, codec, "tools-publisher")
    executor = work.Executor(
        kafka, PostgresSettings(), settings, HealthSettings(), publisher, reader
    )
    async with AsyncExitStack() as held:
        following = await follow(
            kafka, reader, executor.view, "tools", executor.fail, executor.changed
        )
        held.push_async_callback(following.close)
        try:
            await executor.run()
        except (work.JournalUnreachable, work.RunnerUnfit) as problem:
            raise ProviderUnfit(str(problem)) from None
    await publisher.close()


# Those that need nothing of the command line.
PROCESSES: dict[str, Callable[[], Coroutine[None, None, None]]] = {
    "guard": lambda: guard(GuardSettings()),
    "jobs": lambda: jobs(JobsSettings()),
    "sources": lambda: sources(SourcesSettings()),
    "tools": lambda: tools(ToolsSettings()),
}


def main() -> int:
    """Runs what the command line names; returns the exit code."""
    if sys.argv[1:2] == ["calls"]:
        configure_command("calls")
        # The service environment alone has a driver for databases.
        code: int = import_module("workers.tools.settling").main(sys.argv[2:])
        return code
    parser = argparse.ArgumentParser(
        prog="python -m workers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("worker", choices=[*PROCESSES, "inference"])
    parser.add_argument("--provider", help="echo, outside, vllm, or package.module:function")
    parser.add_argument("--pool", help="worker pool: last segment of the routed topic")
    parser.add_argument("--model", help="model folder")
    parser.add_argument("--model-name", help="name under which routes ask for the model")
    parser.add_argument(
        "--engine",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="argument for the engine, under vLLM's name; may be repeated",
    )
    arguments = parser.parse_args()
    try:
        if arguments.worker in PROCESSES:
            configure(arguments.worker, TelemetrySettings())
            asyncio.run(PROCESSES[arguments.worker]())
            return 0
        settings = _settings(arguments)
        configure(f"inference-{settings.pool}", TelemetrySettings())
        asyncio.run(inference(settings))
    except UNFIT as problem:
        print(f"{arguments.worker}: {problem}", file=sys.stderr)
        return 1
    return 0


def _settings(arguments: argparse.Namespace) -> InferenceSettings:
    """What the command line says goes before what the environment says."""
    names = ("provider", "pool", "model", "model_name")
    given = {name: getattr(arguments, name) for name in names}
    settings = InferenceSettings()
    return settings.model_copy(
        update={
            **{name: value for name, value in given.items() if value is not None},
            "engine": {**settings.engine, **dict(map(_engine, arguments.engine))},
        }
    )


def _engine(argument: str) -> tuple[str, object]:
    """Reads NAME=VALUE; a value that is JSON is what it says, any other is text."""
    name, _, value = argument.partition("=")
    try:
        return name.replace("-", "_"), json.loads(value)
    except ValueError:
        return name.replace("-", "_"), value


if __name__ == "__main__":
    try:
        code = main()
    except Exception as error:  # noqa: BLE001 - the last stop: what ended the work is logged already.
        log.error("process ends", reason=type(error).__name__)
        code = 70
    close()
    sys.exit(code)
