"""The registrar's process: settings in, what it stands on opened, loops started."""

from __future__ import annotations

import asyncio
import sys

import structlog
from sqlalchemy.exc import OperationalError

from catalog.lineage.ingest import Ingest
from catalog.registrar.commands import Commands, Superseded
from catalog.registrar.registrar import Lock, Registrar
from catalog.registrar.seeding import SeedInvalid, seed
from catalog.relay.relay import Relay, TopicLost
from catalog.relay.told import TopicAhead
from catalog.relay.transactions import WriterLost
from catalog.store.store import Store, connect
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
from infra.telemetry import configure
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
        await registrar.run(commands, relay.ready, lambda: not store.waiting())
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
    """Runs the registrar; returns the exit code."""
    try:
        configure("catalog", TelemetrySettings())
        asyncio.run(register())
    except UNFIT as problem:
        print(f"catalog: {str(problem).partition(chr(10))[0]}", file=sys.stderr)
        return 1
    return 0
