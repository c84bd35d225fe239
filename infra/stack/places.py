"""Where things are and who asks, as variables for the settings of any process of ours."""

from __future__ import annotations

from infra.stack.secret import key_path, secret_path
from infra.stack.service import LOOPBACK, lake_folder
from infra.stack.settings import StackSettings

# Who may do everything at first, and the tenant that it acts for; both are in the seed.
OPERATOR, TENANT = "operator", "demo"


def bus(settings: StackSettings) -> dict[str, str]:
    """Where the log, the schemas and the tables are, for any process of ours."""
    return {
        "KAFKA_BOOTSTRAP_SERVERS": f"{LOOPBACK}:{settings.kafka_port}",
        "LAKE_ROOT": str(lake_folder(settings)),
        "REGISTRY_URL": f"http://{LOOPBACK}:{settings.registry_port}/apis/ccompat/v7",
    }


def cache(settings: StackSettings) -> dict[str, str]:
    """Where vectors are kept that are known already."""
    return {"REDIS_URL": f"redis://{LOOPBACK}:{settings.redis_port}/0"}


def client(settings: StackSettings) -> dict[str, str]:
    """Who asks: the operator, unless the caller's own variables say who."""
    inherited = settings.inherited
    own = {name: inherited[name] for name in inherited if name.startswith("CLIENT_")}
    return own or operator(settings)


def jobs(settings: StackSettings) -> dict[str, str]:
    """Where jobs that come by the clock are queued."""
    return {"JOBS_BROKER": f"redis://{LOOPBACK}:{settings.redis_port}/1"}


def operator(settings: StackSettings) -> dict[str, str]:
    """Who asks: the operator."""
    return {
        "CLIENT_KEY": f"file:{key_path(OPERATOR, settings)}",
        "CLIENT_PRINCIPAL": OPERATOR,
        "CLIENT_TENANT": TENANT,
    }


def tools(settings: StackSettings) -> dict[str, str]:
    """Where calls of tools are queued."""
    return {"TOOLS_BROKER": f"redis://{LOOPBACK}:{settings.redis_port}/2"}


def vectors(settings: StackSettings) -> dict[str, str]:
    """Where the vector store is, and its key by reference."""
    return {
        "VECTORS_GRPC_PORT": str(settings.weaviate_grpc_port),
        "VECTORS_KEY": f"file:{secret_path('weaviate', settings)}",
        "VECTORS_URL": f"http://{LOOPBACK}:{settings.weaviate_port}",
    }
