"""A town: a registrar as a process on the real bus, with its first principal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from infra.registry import Registry
from infra.settings import PostgresSettings
from infra.signing import Signer, generate
from infra.stack.local import LocalStack
from schemas.events import CatalogWanted, InferenceReplied
from schemas.topics import CATALOG_CHANGED, CATALOG_WANTED, REPLY, TOPICS
from tests.catalog.commanding import wanted
from tests.catalog.relaying import anew
from tests.harness import CALM_SESSION_MS, Bus, Process, eventually, unique

# How long anything may take on a busy machine.
PATIENCE_S = 120.0

SEED = """
kind: tenant
name: {tenant}
spec: {{replies: [{tenant}]}}
---
kind: service_principal
name: operator
spec: {{tenant: {tenant}}}
---
kind: catalog
name: main
---
kind: schema
name: main.default
"""


class Town:
    """A registrar that runs, and its first principal."""

    def __init__(self, bus: Bus, postgres: PostgresSettings, folder: Path) -> None:
        self.bus, self.postgres, self.folder = bus, postgres, folder
        self.tenant = unique("town")
        self.replies = REPLY.member(self.tenant)
        pem = generate()
        self.key = folder / "operator.pem"
        self.key.write_text(pem)
        self.signers = {"operator": Signer(pem)}
        seed = folder / "seed.yaml"
        seed.write_text(SEED.format(tenant=self.tenant))
        self.environment = {
            "CATALOG_FIRST_KEY": f"file:{self.key}",
            "CATALOG_SEED": str(seed),
            "CLIENT_KEY": f"file:{self.key}",
            "CLIENT_PRINCIPAL": "",
            "CLIENT_TENANT": self.tenant,
            "POSTGRES_DATABASE": postgres.database,
        }

    @contextmanager
    def registrar(self, **more: str) -> Iterator[Process]:
        """Runs the process for a block."""
        environment = {**self.bus.environment, **self.environment, **more}
        process = Process(
            ["-m", "catalog"], environment, self.folder / f"{unique('registrar')}.log"
        )
        try:
            process.ready()
            yield process
        finally:
            if process.child.poll() is None:
                process.kill()

    def want(self, action: str, who: str = "operator", /, **body: Any) -> CatalogWanted:
        """Sends a command, signed; returns it."""
        command = wanted(action, who, self.tenant, **body)
        late = command.requested_at + timedelta(seconds=PATIENCE_S)
        command = replace(command, deadline=late)
        self.send(command, self.signers[who])
        return command

    def send(self, command: CatalogWanted, signer: Signer | None) -> None:
        """Puts a command on the bus."""
        value, key = self.bus.codec.encode(command), CATALOG_WANTED.key(command).encode()
        name = CATALOG_WANTED.name
        headers = signer.headers(name, key, command.deadline, value) if signer else ()
        self.bus.put(name, key, value, headers=list(headers))
        self.bus.settle()

    def heard(self, command: CatalogWanted) -> list[InferenceReplied]:
        """Returns what was replied to a command so far."""
        key = command.request_id.encode()
        records = [each for each in self.bus.records(self.replies.name) if each.key == key]
        return [self.bus.codec.decode(each.value, InferenceReplied) for each in records]

    def reply(self, command: CatalogWanted) -> InferenceReplied:
        """Returns the first reply to a command, when it is there."""
        eventually(lambda: self.heard(command), PATIENCE_S, f"a reply to {command.action}")
        return self.heard(command)[0]

    def result(self, action: str, who: str = "operator", /, **body: Any) -> Any:
        """Commands and returns the result."""
        replied = self.reply(self.want(action, who, **body))
        assert replied.refusal is None, replied.refusal
        return json.loads(replied.result or "")

    def run(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Runs a command of the operator."""
        return subprocess.run(
            [sys.executable, "-m", "catalog", *words],
            env={**os.environ, **self.bus.environment, **self.environment, **more},
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )


def bare(stack: LocalStack) -> Bus:
    """Returns the bus with what every process needs, without a tenant or a pool."""
    bus = Bus(stack, CALM_SESSION_MS)
    bus.make(*(topic for topic in TOPICS if not topic.family))
    Registry(bus.registry_settings).register_all(TOPICS)
    return bus


def begun(bus: Bus, postgres: PostgresSettings, folder: Path) -> Town:
    """Returns a town whose registrar has not started yet."""
    # Each has a database of its own, and the topic must be that database's.
    anew(bus, CATALOG_CHANGED)
    return Town(bus, postgres, folder)
