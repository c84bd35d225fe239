"""What the local stack reads from its environment, once: its folders and its ports."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field
from pydantic_settings import SettingsConfigDict

from infra.bootstrap import cache_folder
from infra.settings import Settings


class StackSettings(Settings):
    """Where the local stack keeps its files and which loopback ports it takes.

    Attributes:
        home: Data, logs and sockets; relative to the clone.
        lake: The tables, if elsewhere than in the home.
        cache: Shared by every clone on the machine: uv, JVM jars, Weaviate, the converted model.
        inherited: What child processes inherit (PATH, locale, proxies), read here once.
    """

    model_config = SettingsConfigDict(
        env_prefix="STACK_", env_ignore_empty=True, frozen=True, populate_by_name=True
    )

    home: Path = Path(".tessera")
    lake: Path | None = Field(default=None, validation_alias="LAKE_ROOT")
    cache: Annotated[Path, BeforeValidator(cache_folder)] = Field(
        default_factory=lambda: cache_folder(None), validation_alias="TESSERA_CACHE"
    )
    inherited: Mapping[str, str] = Field(default_factory=lambda: dict(os.environ), repr=False)
    kafka_port: int = 19092
    kafka_controller_port: int = 19093
    registry_port: int = 18081
    registry_management_port: int = 18082
    connect_port: int = 18083
    postgres_port: int = 15432
    redis_port: int = 16379
    weaviate_port: int = 18080
    weaviate_grpc_port: int = 15051
    # Weaviate also takes the port above each of these two.
    weaviate_gossip_port: int = 17946
    weaviate_raft_port: int = 18300
    gateway_health_port: int = 19101
    inference_health_port: int = 19102
    recorder_health_port: int = 19103
    catalog_health_port: int = 19104
    outside_health_port: int = 19105
    guard_health_port: int = 19106
    embedding_health_port: int = 19107
    sources_health_port: int = 19109
    indexer_health_port: int = 19110
    searcher_health_port: int = 19111
    jobs_health_port: int = 19112
    agents_health_port: int = 19113
    toolbox_health_port: int = 19114
    tools_health_port: int = 19115

    def variable_of(self, port: int) -> str:
        """The variable that chose a port; of two that stand side by side, the lower one's."""
        return next(
            self._variable(name)
            for below in (port, port - 1)
            for name, value in self.model_dump().items()
            if value == below and name.endswith("_port")
        )
