"""Runs a benchmark by name."""

from __future__ import annotations

import sys
from importlib import import_module

BENCHES: dict[str, str] = {
    "agents": "tests.bench.agents",
    "audit": "tests.bench.audit",
    "catalog": "tests.bench.catalog",
    "embedding": "tests.bench.embedding",
    "failover": "tests.bench.failover",
    "gateway": "tests.bench.gateway",
    "index": "tests.bench.index",
    "lake": "tests.bench.lake",
    "lineage": "tests.bench.lineage",
    "pii": "tests.bench.pii",
    "routing": "tests.bench.routing",
    "spine": "tests.bench.spine",
    "store": "tests.bench.store",
}

if __name__ == "__main__":
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in BENCHES:
        sys.exit(f"usage: python -m tests.bench {{{','.join(BENCHES)}}}")
    import_module(BENCHES[name]).run(*sys.argv[2:])
