"""Starts a stream processor, or asks a question.

    python -m streams agents              goes on with runs of agents
    python -m streams gateway             admits requests and releases answers
    python -m streams index               keeps indexes up to date with their tables
    python -m streams recorder            writes the inference table
    python -m streams package.module:open_it --name NAME       one of your own
    python -m streams ask "..."           see --help
    python -m streams agent run ...       see --help
    python -m streams approvals list      see --help
    python -m streams limits              see --help
    python -m streams mcp NAME            see --help
    python -m streams memory              see --help
    python -m streams runs list           see --help
    python -m streams search INDEX "..."  see --help

Settings come from the environment: KAFKA_*, REGISTRY_*, GATEWAY_*, LAKE_*, HEALTH_*, TELEMETRY_*;
those of agents also from CLIENT_* and POSTGRES_*, those of the index from VECTORS_*, CLIENT_* and
REDIS_*.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import structlog
import uvloop

from infra.bus import BusUnreachable, Publisher
from infra.catalog import CatalogView, Limits
from infra.follow import CatalogLost, follow
from infra.offsets import OffsetsHeld, TopicReplaced
from infra.provision import ProvisioningFailed
from infra.registry import Reader, Registry, RegistryUnreachable, SchemaMissing
from infra.secrets import SecretUnavailable
from infra.settings import (
    ClientSettings,
    GatewaySettings,
    HealthSettings,
    KafkaSettings,
    LakeSettings,
    PostgresSettings,
    RedisSettings,
    RegistrySettings,
    SettingInvalid,
    TelemetrySettings,
    VectorSettings,
)
from infra.telemetry import close, configure, configure_command
from schemas.codec import Codec
from streams.group import SettingRefused
from streams.processor import Crew, Fixed, Processor
from streams.steps import Runtime

log = structlog.get_logger()

# These decide nothing, so they need not wait for the catalog.
WITHOUT_CATALOG = frozenset({"recorder"})

# What is no processor: commands of people. Dotted paths, so that a process loads only what it runs.
COMMANDS: dict[str, str] = {
    "agent": "streams.agent_command:main",
    "approvals": "streams.approvals_command:main",
    "ask": "streams.ask:main",
    "limits": "streams.limits_command:main",
    "mcp": "streams.mcp_command:main",
    "memory": "streams.memory_command:main",
    "runs": "streams.runs_command:main",
    "search": "streams.search_command:main",
}

PROCESSORS: dict[str, str] = {
    "gateway": "streams.gateway:open_gateway",
    "recorder": "streams.sinks:open_recorder",
}

# These ask for others, as whom they are told.
ASKING: dict[str, str] = {
    "agents": "streams.agents.working:open_agents",
}

# These join and leave groups as they go.
CREWS: dict[str, str] = {
    "index": "streams.index.crew:open_index",
}

UNFIT = (
    BusUnreachable,
    CatalogLost,
    OffsetsHeld,
    ProvisioningFailed,
    RegistryUnreachable,
    SchemaMissing,
    SecretUnavailable,
    SettingInvalid,
    SettingRefused,
    TopicReplaced,
)


async def work(name: str, path: str, *, follows: bool) -> None:
    """Runs a processor until it is told to stop; it takes no work before it knows the catalog."""
    kafka = KafkaSettings()
    registry = Registry(RegistrySettings())
    gateway = GatewaySettings()
    codec = Codec(await asyncio.to_thread(registry.ids))
    runtime = Runtime(
        name=name,
        kafka=kafka,
        health=HealthSettings(),
        lake=LakeSettings(),
        registry=registry,
        codec=codec,
        view=CatalogView(
            Limits(
                max_request_bytes=gateway.max_request_bytes,
                max_deadline_ms=gateway.max_deadline_ms,
            )
        ),
        publisher=Publisher(kafka, codec, f"{name}-publisher"),
        seal=gateway.seal,
    )
    processor = Processor(runtime)
    opened = _named(path)
    if path in CREWS.values():
        crew: Crew = opened(runtime, VectorSettings(), ClientSettings(), RedisSettings())
    elif path in ASKING.values():
        client, postgres = ClientSettings(), PostgresSettings()
        crew = Fixed(runtime, lambda runtime, fail: opened(runtime, client, postgres, fail))
    else:
        crew = Fixed(runtime, opened)
    if follows:
        reader = Reader(codec, registry)
        following = await follow(kafka, reader, runtime.view, name, processor.fail)
        await processor.run(crew)
        await following.close()
    else:
        await processor.run(crew)
    await runtime.publisher.close()


def _named(path: str) -> Any:
    """Returns what a dotted path leads to."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def main() -> int:
    """Runs what the command line names; returns the exit code."""
    if command := COMMANDS.get(named := "".join(sys.argv[1:2])):
        answer: Callable[[Sequence[str]], int] = _named(command)
        try:
            configure_command(named)
        except SettingInvalid as problem:
            print(f"{named}: {problem}", file=sys.stderr)
            return 1
        return answer(sys.argv[2:])
    parser = argparse.ArgumentParser(
        prog="python -m streams",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("processor", help="a name from above, or package.module:function")
    parser.add_argument("--name", help="group and process name; needed for one of your own")
    arguments = parser.parse_args()
    known = {**ASKING, **CREWS, **PROCESSORS}
    path = known.get(arguments.processor, arguments.processor)
    if ":" not in path:
        parser.error(f"no processor {path}: use {', '.join(known)}, or package.module:function")
    name = arguments.name or arguments.processor
    if ":" in name:
        parser.error("give a processor of your own a --name")
    try:
        configure(name, TelemetrySettings())
        # Not ``uvloop.run``: it awaits Faust's tasks, of which some outlive their cancellation.
        uvloop.new_event_loop().run_until_complete(
            work(name, path, follows=arguments.processor not in WITHOUT_CATALOG)
        )
    except UNFIT as problem:
        print(f"{name}: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    try:
        code = main()
    except Exception as error:  # noqa: BLE001 - the last stop: what ended the work is logged already.
        log.error("process ends", reason=type(error).__name__)
        code = 70
    close()
    # Faust's consumer thread outlives a failed broker; nothing is left that it could still do.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
