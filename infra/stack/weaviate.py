"""Weaviate: the vector index, one node.

Its gRPC and cluster data ports listen on every interface whatever it is told, so the one lets
nobody in without the API key and the other asks for a password.
"""

from __future__ import annotations

from infra import artifacts
from infra.stack.secret import secret, secret_path
from infra.stack.service import LOOPBACK, Service, data_folder, http_ok
from infra.stack.settings import StackSettings
from schemas.search import MOST_HITS

NODE = "tessera"


def service(settings: StackSettings) -> Service:
    """Weaviate on ``weaviate_port`` and ``weaviate_grpc_port``; its data survives restarts."""
    data = data_folder("weaviate", settings)
    server = artifacts.folder("weaviate", settings.cache) / "weaviate-server"
    port = settings.weaviate_port

    def prepare() -> None:
        data.mkdir(parents=True, exist_ok=True)
        for name in ("weaviate", "weaviate-cluster"):
            secret(name, settings)

    return Service(
        name="weaviate",
        command=(str(server), "--host", LOOPBACK, "--port", str(port), "--scheme", "http"),
        environment={
            "AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED": "false",
            "AUTHENTICATION_APIKEY_ENABLED": "true",
            "AUTHENTICATION_APIKEY_USERS": NODE,
            "AUTHORIZATION_ADMINLIST_ENABLED": "true",
            "AUTHORIZATION_ADMINLIST_USERS": NODE,
            "AUTOSCHEMA_ENABLED": "false",
            "CLUSTER_ADVERTISE_ADDR": LOOPBACK,
            "CLUSTER_BASIC_AUTH_USERNAME": NODE,
            "CLUSTER_BIND_ADDR": LOOPBACK,
            "CLUSTER_DATA_BIND_PORT": str(settings.weaviate_gossip_port + 1),
            "CLUSTER_GOSSIP_BIND_PORT": str(settings.weaviate_gossip_port),
            "CLUSTER_HOSTNAME": NODE,
            "CLUSTER_IN_LOCALHOST": "true",
            "DEFAULT_VECTORIZER_MODULE": "none",
            "DISABLE_TELEMETRY": "true",
            "GO_PROFILING_DISABLE": "true",
            "GRPC_PORT": str(settings.weaviate_grpc_port),
            "PERSISTENCE_DATA_PATH": str(data),
            "PROMETHEUS_MONITORING_ENABLED": "false",
            "QUERY_MAXIMUM_RESULTS": str(MOST_HITS),
            "RAFT_BOOTSTRAP_EXPECT": "1",
            "RAFT_INTERNAL_RPC_PORT": str(settings.weaviate_raft_port + 1),
            "RAFT_JOIN": f"{NODE}:{settings.weaviate_raft_port}",
            "RAFT_PORT": str(settings.weaviate_raft_port),
            "RAFT_TIMEOUTS_MULTIPLIER": "1",
        },
        secrets={
            "AUTHENTICATION_APIKEY_ALLOWED_KEYS": secret_path("weaviate", settings),
            "CLUSTER_BASIC_AUTH_PASSWORD": secret_path("weaviate-cluster", settings),
        },
        port=port,
        prepare=prepare,
        ready=http_ok(port, "/v1/.well-known/ready"),
        artifacts=("weaviate",),
        other_ports=(
            settings.weaviate_grpc_port,
            *(settings.weaviate_gossip_port, settings.weaviate_gossip_port + 1),
            *(settings.weaviate_raft_port, settings.weaviate_raft_port + 1),
        ),
        start_s=180.0,
    )
