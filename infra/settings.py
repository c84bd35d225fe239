"""Settings: what a process reads from its environment, once, in ``__main__``.

Each class is one concern; a field is read from ``<CONCERN>_<FIELD>``. The defaults name the local
stack on loopback. Nothing below ``__main__`` reads the environment: settings are passed down.
"""

from __future__ import annotations

from pathlib import Path

from pydantic_settings import BaseSettings, SettingsConfigDict


class StackSettings(BaseSettings):
    """Where the local stack keeps its files and which loopback ports it takes."""

    model_config = SettingsConfigDict(env_prefix="STACK_", frozen=True)

    home: Path = Path(".tessera")
    kafka_port: int = 19092
    kafka_controller_port: int = 19093
    registry_port: int = 18081
    connect_port: int = 18083
    postgres_port: int = 15432
    redis_port: int = 16379
    weaviate_port: int = 18080
    weaviate_grpc_port: int = 15051


class KafkaSettings(BaseSettings):
    """How to reach the broker."""

    model_config = SettingsConfigDict(env_prefix="KAFKA_", frozen=True)

    bootstrap_servers: str = "127.0.0.1:19092"


class RegistrySettings(BaseSettings):
    """How to reach the schema registry (Confluent API)."""

    model_config = SettingsConfigDict(env_prefix="REGISTRY_", frozen=True)

    url: str = "http://127.0.0.1:18081/apis/ccompat/v7"


class LakeSettings(BaseSettings):
    """Where the Delta tables lie."""

    model_config = SettingsConfigDict(env_prefix="LAKE_", frozen=True)

    root: Path = Path(".tessera/lake")
    flush_ms: int = 1000
    flush_rows: int = 5000


class HealthSettings(BaseSettings):
    """The health endpoint of one process; it listens on loopback unless told otherwise."""

    model_config = SettingsConfigDict(env_prefix="HEALTH_", frozen=True)

    host: str = "127.0.0.1"
    port: int = 0
    stall_ms: int = 60_000
