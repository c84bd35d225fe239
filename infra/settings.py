"""Settings: what a process reads from its environment, once, in ``__main__``.

Each class is one concern; a field is read from ``<CONCERN>_<FIELD>``. The defaults name the local
stack on loopback. Nothing below ``__main__`` reads the environment: settings are passed down.
"""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from schemas.topics import LONGEST_DEADLINE_MS, MAX_RECORD_BYTES

# Eight times it, as JSON can make of control characters, must fit the row of a request.
MOST_REQUEST_BYTES = MAX_RECORD_BYTES // 8


class SettingInvalid(Exception):
    """A variable holds what it cannot; the message names it and what belongs there, no value."""


class Settings(BaseSettings):
    """What every concern has: a variable that cannot be read is a ``SettingInvalid``."""

    def __init__(self, **values: object) -> None:
        try:
            super().__init__(**values)  # type: ignore[arg-type]
        except ValidationError as failure:
            found = [
                (self._variable(str(each["loc"][0])), each["type"], each["msg"])
                for each in failure.errors()
            ]
            told = (
                f"{name} is empty" if kind == "string_too_short" else f"{name}: {message}"
                for name, kind, message in found
            )
            raise SettingInvalid("; ".join(told)) from None
        except SettingsError as failure:
            [field] = re.findall('"(.+?)"', str(failure))[:1]
            raise SettingInvalid(f"{self._variable(field)}: Input should be JSON") from None

    @classmethod
    def _variable(cls, name: str) -> str:
        """The variable of a field; one that is named by itself stays."""
        own = name not in cls.model_fields
        return name if own else f"{cls.model_config.get('env_prefix', '')}{name}".upper()


class ClientSettings(Settings):
    """Who asks.

    Attributes:
        tenant: Who pays.
        principal: Who acts; whose key it is, when empty.
        key: Reference to the PEM of the private key that signs: ``file:PATH``; empty for none.
    """

    model_config = SettingsConfigDict(env_prefix="CLIENT_", frozen=True)

    tenant: str = Field(default="demo", min_length=1)
    principal: str = ""
    key: str = ""


class CatalogSettings(Settings):
    """What the catalog begins with, where it holds nothing yet.

    Attributes:
        seed: YAML documents; they name the first principal and its tenant.
        first_key: Reference to the first principal's key, private as PEM or public in base64.
        first_principal: Who owns the root, and what names no owner.
    """

    model_config = SettingsConfigDict(env_prefix="CATALOG_", env_ignore_empty=True, frozen=True)

    seed: Path | None = None
    first_key: str = ""
    first_principal: str = "operator"


class KafkaSettings(Settings):
    """How to reach the broker and how to be a member of a group.

    Attributes:
        bootstrap_servers: Addresses, with commas between them.
        processing_guarantee: Of stream processors; only at_least_once is taken.
        group_protocol: Of workers: ``consumer`` (KIP-848), or ``classic`` for brokers before 4.0.
        session_timeout_ms: When a silent member of a classic group counts as gone.
        max_poll_interval_ms: Of workers: how long a member may go without polling.
        delivery_timeout_ms: When a publication counts as failed.
    """

    model_config = SettingsConfigDict(env_prefix="KAFKA_", frozen=True)

    bootstrap_servers: str = "127.0.0.1:19092"
    processing_guarantee: str = "at_least_once"
    group_protocol: str = "consumer"
    session_timeout_ms: int = 10_000
    max_poll_interval_ms: int = 300_000
    delivery_timeout_ms: int = 120_000


class RegistrySettings(Settings):
    """How to reach the schema registry (Confluent API)."""

    model_config = SettingsConfigDict(env_prefix="REGISTRY_", frozen=True)

    url: str = "http://127.0.0.1:18081/apis/ccompat/v7"


class PostgresSettings(Settings):
    """How to reach PostgreSQL.

    Attributes:
        password: Reference to it: ``env:NAME`` or ``file:PATH``; empty for none.
        database: The catalog's; made where it is missing.
    """

    model_config = SettingsConfigDict(env_prefix="POSTGRES_", frozen=True)

    host: str = "127.0.0.1"
    port: int = 15432
    user: str = "tessera"
    password: str = "file:.tessera/run/postgres.secret"
    database: str = "tessera_catalog"


class ConnectSettings(Settings):
    """How to reach Kafka Connect.

    Attributes:
        url: Its REST interface.
        lent: Folder for the passwords of connectors; Connect itself reads them there.
    """

    model_config = SettingsConfigDict(env_prefix="CONNECT_", frozen=True)

    url: str = "http://127.0.0.1:18083"
    lent: Path = Path(".tessera/run/lent")


class SourcesSettings(Settings):
    """How closely captured tables are watched.

    Attributes:
        every_ms: How often each is looked at.
        tell_ms: How often it is told at least how far one has come.
    """

    model_config = SettingsConfigDict(env_prefix="SOURCES_", frozen=True)

    every_ms: int = Field(default=5000, gt=0)
    tell_ms: int = Field(default=30_000, gt=0)


class JobsSettings(Settings):
    """Where jobs are queued, and how often they come.

    Attributes:
        broker: The queue, by URL; in Redis, beside what else is kept there.
        reconcile_every_ms: How often an index that is as its source is compared with it.
        reconcile_again_ms: How soon one that was not.
    """

    model_config = SettingsConfigDict(env_prefix="JOBS_", frozen=True)

    broker: str = "redis://127.0.0.1:16379/1"
    reconcile_every_ms: int = Field(default=15 * 60 * 1000, gt=0)
    reconcile_again_ms: int = Field(default=30_000, gt=0)


class ToolsSettings(Settings):
    """Where calls of tools wait and are noted, and how they are run.

    Attributes:
        broker: The queue, by URL; in Redis, beside what else is kept there.
        database: Of the journal, in PostgreSQL; made where it is missing.
        at_once: Calls that one executor runs at once.
        drain_ms: How long calls under way may go on after SIGTERM.
        lease_ms: How long a call belongs to an executor that is not heard of.
        look_ms: How often it is looked how the calls stand that are waited for.
        mcp_age_ms: How old a session with a command is at most when a call begins in it.
        mcp_commands: What ``stdio://NAME`` runs on this machine, by name: a program and its
            arguments. A connection can name no other.
        mcp_idle_ms: How long a session with such a command is kept for the next call.
        mcp_kept: How many are kept by one executor; 0 for none.
        mcp_kept_alike: How many of these for one tenant and connection.
        runners: Language to ``package.module:function``, before those that are known anyhow.
        visibility_ms: When the queue gives a call to another that nobody has settled.
    """

    model_config = SettingsConfigDict(env_prefix="TOOLS_", frozen=True)

    broker: str = "redis://127.0.0.1:16379/2"
    database: str = "tessera_tools"
    at_once: int = Field(default=32, gt=0)
    drain_ms: int = Field(default=20_000, ge=0)
    lease_ms: int = Field(default=15_000, ge=300)
    look_ms: int = Field(default=2000, gt=0)
    mcp_age_ms: int = Field(default=300_000, gt=0)
    mcp_commands: dict[str, tuple[str, ...]] = {}
    mcp_idle_ms: int = Field(default=60_000, gt=0)
    mcp_kept: int = Field(default=8, ge=0)
    mcp_kept_alike: int = Field(default=4, ge=0)
    runners: dict[str, str] = {}
    visibility_ms: int = Field(default=300_000, ge=1000)


class LakeSettings(Settings):
    """Where the Delta tables lie."""

    model_config = SettingsConfigDict(env_prefix="LAKE_", frozen=True)

    root: Path = Path(".tessera/lake")
    flush_ms: int = 1000
    flush_rows: int = 5000


class RedisSettings(Settings):
    """How to reach Redis, by URL; empty for no cache of vectors."""

    model_config = SettingsConfigDict(env_prefix="REDIS_", frozen=True)

    url: str = "redis://127.0.0.1:16379/0"


class VectorSettings(Settings):
    """How to reach the vector store.

    Attributes:
        url: Of its HTTP interface.
        grpc_port: Of its gRPC interface, on the same host.
        key: Reference to the API key: ``env:NAME`` or ``file:PATH``; empty for none.
        timeout_s: When a call counts as failed.
    """

    model_config = SettingsConfigDict(env_prefix="VECTORS_", frozen=True)

    url: str = "http://127.0.0.1:18080"
    grpc_port: int = 15051
    key: str = "file:.tessera/run/weaviate.secret"
    timeout_s: int = Field(default=30, gt=0)


class SecretsSettings(Settings):
    """Where secrets are besides variables and files.

    Attributes:
        stores: Name of a store to ``package.module:function``, which takes a place in it and
            returns the secret there.
    """

    model_config = SettingsConfigDict(env_prefix="SECRETS_", frozen=True)

    stores: dict[str, str] = {}


class TelemetrySettings(Settings):
    """How much a process says, and where its spans go (an OTLP/HTTP URL; empty for nowhere)."""

    model_config = SettingsConfigDict(env_prefix="TELEMETRY_", frozen=True)

    log_level: str = "info"
    library_log_level: str = "warning"
    otlp_endpoint: str = ""


class HealthSettings(Settings):
    """The health endpoint of one process; it listens on loopback unless told otherwise."""

    model_config = SettingsConfigDict(env_prefix="HEALTH_", frozen=True)

    host: str = "127.0.0.1"
    port: int = 0
    stall_ms: int = 60_000


class GatewaySettings(Settings):
    """Bounds that hold for every request.

    Attributes:
        max_request_bytes: UTF-8 bytes of all texts of a request together, and 8 more for each.
        max_deadline_ms: How far ahead a deadline may lie.
        seal: Reference to the secret that seals what is masked and restored, at least 32 characters
            and the same for all gateways; empty for one that each process makes for itself.
    """

    model_config = SettingsConfigDict(env_prefix="GATEWAY_", frozen=True)

    max_request_bytes: int = Field(default=1024 * 1024, gt=0, le=MOST_REQUEST_BYTES)
    max_deadline_ms: int = Field(default=900_000, gt=0, le=LONGEST_DEADLINE_MS)
    seal: str = ""


class GuardSettings(Settings):
    """How much one guard worker judges.

    Attributes:
        max_in_flight: What is judged at once.
        drain_ms: How long judging may go on after SIGTERM.
    """

    model_config = SettingsConfigDict(env_prefix="GUARD_", frozen=True)

    max_in_flight: int = 256
    drain_ms: int = 20_000


class InferenceSettings(Settings):
    """What one inference worker process serves.

    Attributes:
        provider: A name from ``workers.providers.PROVIDERS``, or ``package.module:function``.
        pool: Last segment of the routed topic that it consumes.
        model: Model folder; ``package:MODULE`` for a sentence encoder that a package carries.
        model_name: Name under which routes ask for the model.
        max_in_flight: Requests worked on at once.
        drain_ms: How long requests under way may go on after SIGTERM.
        coalesce_ms: Token deltas that come within this time travel as one part.
        parts_per_s: Streams that would send more parts than this together join more tokens to one.
        engine: Arguments for the engine as JSON, under vLLM's names: ``{"dtype": "bfloat16"}``;
            those of a sentence encoder are in ``workers.providers.encoder.Engine``.
    """

    model_config = SettingsConfigDict(env_prefix="INFERENCE_", frozen=True)

    provider: str = "vllm"
    pool: str = "smollm2"
    model: str = ""
    model_name: str = "smollm2-135m-instruct"
    max_in_flight: int = 64
    drain_ms: int = 20_000
    coalesce_ms: int = 30
    parts_per_s: int = Field(default=1600, gt=0)
    engine: dict[str, object] = {}
