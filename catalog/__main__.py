"""Starts the registrar, or is the command line of the catalog.

    python -m catalog                       the registrar
    python -m catalog grant --help          a command, as tessera runs it

Settings come from the environment: of the registrar KAFKA_*, REGISTRY_*, POSTGRES_*, CATALOG_*,
HEALTH_*, TELEMETRY_*; of the commands KAFKA_*, REGISTRY_*, CLIENT_*.
"""

from __future__ import annotations

import asyncio
import sys
from importlib import import_module

import structlog
from sqlalchemy.exc import OperationalError

from catalog.commands import Commands, Superseded
from catalog.ingest import Ingest
from catalog.registrar import Lock, Registrar
from catalog.relay import Relay, TopicLost
from catalog.seeding import SeedInvalid, seed
from catalog.store import Store, connect
from catalog.told import TopicAhead
from catalog.transactions import WriterLost
from infra.bus import BusUnreachable, Publisher
from infra.catalog import CatalogView, Limits
from infra.provision import ProvisioningFailed
from infra.registry import Reader, Registry, RegistryUnreachable
from infra.secrets import SecretUnavailable
from infra.settings import (
    CatalogSettings,
    GatewaySettings,
    HealthSettings,
    KafkaSettings,
    PostgresSettings,
    RegistrySettings,
    SettingInvalid,
    TelemetrySettings,
)
from infra.telemetry import close, configure
from schemas.codec import Codec

log = structlog.get_logger()

# What the settings or what is around are to blame for, told in a line.
UNFIT = (
    BusUnreachable,
    LookupError,
    OperationalError,
    ProvisioningFailed,
    RegistryUnreachable,
    SecretUnavailable,
    SeedInvalid,
    SettingInvalid,
    Superseded,
    TopicAhead,
    TopicLost,
    WriterLost,
)


async def register() -> None:
    """Runs the registrar until it is told to stop."""
    kafka, gateway = KafkaSettings(), GatewaySettings()
    registry = Registry(RegistrySettings())
    codec = Codec(await asyncio.to_thread(registry.ids))
    store = Store(await asyncio.to_thread(connect, PostgresSettings()))
    publisher = Publisher(kafka, codec, "catalog-publisher")
    registrar = Registrar(
        kafka=kafka,
        health=HealthSettings(),
        publisher=publisher,
        reader=Reader(codec, registry),
        lock=Lock(store),
    )
    try:
        if not await registrar.locked():
            return
        limits = Limits(
            max_request_bytes=gateway.max_request_bytes, max_deadline_ms=gateway.max_deadline_ms
        )
        commands = await asyncio.to_thread(opened, store, CatalogSettings(), limits)
        relay = Relay(store, kafka, codec, registry)
        registrar.beside("relay", relay.run)
        registrar.beside("lineage", Ingest(store.engine, kafka, registry).run)
        await registrar.run(commands, relay.ready)
    finally:
        await registrar.close()
        await publisher.close()


def opened(store: Store, settings: CatalogSettings, limits: Limits) -> Commands:
    """Returns what carries commands out, over a store that is up to date and seeded.

    Raises:
        SeedInvalid: The store is empty and cannot be filled as the settings say.
    """
    store.migrate()
    view = CatalogView(limits)
    snapshot = store.snapshot()
    if not snapshot.position and (count := seed(store, settings, view)):
        log.info("catalog seeded", entries=count, principal=settings.first_principal)
        snapshot = store.snapshot()
    for changed in snapshot.entries:
        view.apply(changed)
    log.info("catalog loaded", position=snapshot.position, entries=len(snapshot.entries))
    return Commands(store, view, snapshot.position)


def main() -> int:
    """Runs the registrar, or the command that the words name; returns the exit code."""
    if sys.argv[1:]:
        # The registrar knows nothing of terminals, and a command nothing of databases.
        app = import_module("catalog.operator").app
        app(prog_name="tessera", args=sys.argv[1:])
        return 0
    try:
        configure("catalog", TelemetrySettings())
        asyncio.run(register())
    except UNFIT as problem:
        print(f"catalog: {str(problem).partition(chr(10))[0]}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    try:
        code = main()
    except Exception as error:  # noqa: BLE001 - the last stop: what ended the work is logged already.
        log.error("process ends", reason=type(error).__name__)
        code = 70
    close()
    sys.exit(code)
