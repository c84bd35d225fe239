"""Redis: the broker of the heavy jobs, and the cache of embeddings."""

from __future__ import annotations

from infra import artifacts
from infra.stack.service import LOOPBACK, Probe, Service, data_folder
from infra.stack.settings import StackSettings

# What goes when there is no room is what expires anyhow, the cache: jobs stay.
BOUNDED = {"maxmemory": "512mb", "maxmemory-policy": "volatile-lru"}


def service(settings: StackSettings) -> Service:
    """Redis on ``redis_port``; every write is in its append-only file."""
    data = data_folder("redis", settings)
    options = {
        "appendonly": "yes",
        "bind": LOOPBACK,
        "daemonize": "no",
        "dir": str(data),
        **BOUNDED,
        "port": str(settings.redis_port),
        "save": "",
    }
    return Service(
        name="redis",
        command=(
            str(artifacts.folder("redis", settings.cache) / "redis-server"),
            *(word for name, value in options.items() for word in (f"--{name}", value)),
        ),
        port=settings.redis_port,
        prepare=lambda: data.mkdir(parents=True, exist_ok=True),
        ready=Probe(port=settings.redis_port, ask=b"PING\r\n", answer=b"+PONG"),
        artifacts=("redis",),
    )
