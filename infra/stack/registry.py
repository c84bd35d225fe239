"""Apicurio Registry: the schema registry, speaking Confluent's API, its journal a Kafka topic."""

from __future__ import annotations

from infra import artifacts
from infra.stack.jvm import QUICK_START, java
from infra.stack.service import LOOPBACK, Service, http_ok
from infra.stack.settings import StackSettings

HEAP_MIB = 384


def service(settings: StackSettings) -> Service:
    """The registry on ``registry_port``; schemas and their ids live in Kafka."""
    jar = artifacts.folder("registry", settings.cache) / "quarkus-run.jar"
    broker = f"{LOOPBACK}:{settings.kafka_port}"
    return Service(
        name="registry",
        command=java(HEAP_MIB, *QUICK_START, "-jar", str(jar)),
        environment={
            "APICURIO_KAFKASQL_BOOTSTRAP_SERVERS": broker,
            "APICURIO_KAFKA_COMMON_BOOTSTRAP_SERVERS": broker,
            # Its default of 5 s is waited out three times at every start.
            "APICURIO_KAFKASQL_CONSUMER_POLL_TIMEOUT": "250",
            "APICURIO_STORAGE_KIND": "kafkasql",
            "QUARKUS_HTTP_HOST": LOOPBACK,
            "QUARKUS_HTTP_PORT": str(settings.registry_port),
            "QUARKUS_LOG_CATEGORY__ORG_APACHE_KAFKA__LEVEL": "WARN",
            # Metrics and health listen on a port of their own, by default on every interface.
            "QUARKUS_MANAGEMENT_HOST": LOOPBACK,
            "QUARKUS_MANAGEMENT_PORT": str(settings.registry_management_port),
        },
        port=settings.registry_port,
        # Its API answers while the journal is still being read, as if what is missing never was.
        ready=http_ok(settings.registry_management_port, "/health/ready"),
        depends_on=("kafka",),
        artifacts=("registry",),
        other_ports=(settings.registry_management_port,),
    )
