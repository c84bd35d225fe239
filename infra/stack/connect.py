"""Kafka Connect with Debezium for PostgreSQL and the Avro converter: changes of tables as events.

One distributed worker: it keeps connectors, offsets and their state in Kafka, so that a connector
goes on by itself after a restart (a standalone worker forgets those that came over REST).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from infra import artifacts
from infra.stack.jvm import LOGGING, java, properties, write
from infra.stack.service import LOOPBACK, Service, data_folder, http_ok, private, run_folder
from infra.stack.settings import StackSettings

HEAP_MIB = 512
PLUGINS = ("converter", "debezium")
# They tell by which condition, and up to which key, rows are read again.
SILENT = """\
logger.offsets.name=io.debezium.connector.common.BaseSourceTask
logger.offsets.level=warn
logger.reread.name=io.debezium.pipeline.source.snapshot.incremental
logger.reread.level=warn
"""
PROVIDERS = "org.apache.kafka.common.config.provider"


def service(settings: StackSettings) -> Service:
    """Connect with its REST interface on ``connect_port``."""
    folder = data_folder("connect", settings)
    config, logging = folder / "worker.properties", folder / "log4j2.properties"

    def prepare() -> None:
        private(lent_folder(settings))
        values = configuration(
            broker=f"{LOOPBACK}:{settings.kafka_port}",
            registry=f"http://{LOOPBACK}:{settings.registry_port}/apis/ccompat/v7",
            listener=f"http://{LOOPBACK}:{settings.connect_port}",
            plugins=[artifacts.folder(name, settings.cache) for name in PLUGINS],
            secrets=lent_folder(settings),
        )
        write(config, properties(values))
        write(logging, LOGGING + SILENT)

    return Service(
        name="connect",
        command=java(
            HEAP_MIB,
            f"-Dlog4j2.configurationFile={logging}",
            "-cp",
            f"{artifacts.folder('kafka', settings.cache)}/*",
            "org.apache.kafka.connect.cli.ConnectDistributed",
            str(config),
        ),
        port=settings.connect_port,
        prepare=prepare,
        ready=http_ok(settings.connect_port, "/connectors"),
        depends_on=("kafka", "registry"),
        artifacts=(*PLUGINS, "kafka"),
        start_s=180.0,
    )


def lent_folder(settings: StackSettings) -> Path:
    """Where the passwords lie that connectors log in with; nothing else is read for them."""
    return run_folder(settings) / "lent"


def reached(settings: StackSettings) -> dict[str, str]:
    """Where it is and where it reads passwords, for any process of ours."""
    return {
        "CONNECT_LENT": str(lent_folder(settings)),
        "CONNECT_URL": f"http://{LOOPBACK}:{settings.connect_port}",
    }


def configuration(
    *, broker: str, registry: str, listener: str, plugins: Sequence[Path], secrets: Path
) -> dict[str, str | int]:
    """What the worker is told; the image for Docker is told the same with other addresses."""
    topics = {
        f"{kind}.storage.{key}": value
        for kind in ("config", "offset", "status")
        for key, value in (("topic", f"connect-{kind}"), ("replication.factor", 1))
    }
    converters = {
        f"{side}.converter{key}": value
        for side in ("key", "value")
        for key, value in (
            ("", "io.confluent.connect.avro.AvroConverter"),
            (".schema.registry.url", registry),
        )
    }
    return {
        "bootstrap.servers": broker,
        "config.providers": "file",
        "config.providers.file.class": f"{PROVIDERS}.DirectoryConfigProvider",
        # Whoever reaches the REST interface may name any file there: only what is lent is read.
        "config.providers.file.param.allowed.paths": str(secrets),
        "group.id": "connect",
        "listeners": listener,
        "offset.flush.interval.ms": 1000,
        "offset.storage.partitions": 1,
        "status.storage.partitions": 1,
        "plugin.path": ",".join(map(str, plugins)),
        **topics,
        **converters,
    }
