"""Seeing on the real bus how much of a limit is used."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from infra.bootstrap import ROOT
from streams.client import Client
from tests.broker.speaking import teach
from tests.harness import PATIENCE_S, Bus, unique
from tests.seed import changes, publish

pytestmark = [pytest.mark.stack, pytest.mark.usefixtures("gateway", "echo")]

NAME = unique("main.tests.seen")
LIMIT = {"type": "limit", "unit": "requests", "most": 5, "window": "1h"}
CATALOG: list[dict[str, Any]] = [
    {
        "kind": "policy",
        "name": NAME,
        "spec": {
            "rules": [
                {**LIMIT, "name": "own", "per": "tenant"},
                {**LIMIT, "name": "shared", "per": "service"},
            ]
        },
    },
    {
        "kind": "endpoint",
        "name": NAME,
        "spec": {"routes": [{"name": "a", "pool": "echo", "model": "echo"}], "policies": [NAME]},
    },
    {"kind": "tenant", "name": "seen", "spec": {"accept_unsigned": True}},
]


@pytest.fixture
async def client(bus: Bus) -> AsyncIterator[Client]:
    teach(bus, *changes(CATALOG))
    async with Client(tenant="seen", kafka=bus.kafka, registry=bus.registry_settings) as client:
        yield client


def limits(bus: Bus, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "streams", "limits", *words],
        cwd=ROOT,
        env={**bus.environment, "CLIENT_TENANT": "seen", "CLIENT_PRINCIPAL": ""},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


async def test_what_was_asked_is_seen_as_used(bus: Bus, client: Client) -> None:
    await client.chat(NAME, "hello")
    await client.chat(NAME, "hello again")
    ran = limits(bus, "seen", NAME, "--json")
    assert ran.returncode == 0, ran.stderr
    found = {each["rule"]: each for each in map(json.loads, ran.stdout.splitlines())}
    assert {rule: (each["used"], each["left"]) for rule, each in found.items()} == {
        f"{NAME}/own": ("2", "3"),
        f"{NAME}/shared": ("2", "3"),
    }
    # Nothing was taken over by looking: whoever decides goes on deciding.
    await client.chat(NAME, "and again")
    shown = limits(bus, "seen", NAME).stdout.splitlines()
    assert len(shown) == 3
    assert shown[1].split()[-3:] == ["3", "5", "2"]


def test_where_no_limit_holds_that_is_said(bus: Bus) -> None:
    publish(bus, *changes(CATALOG))
    ran = limits(bus, "seen", "main.tests.echo")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("no limit holds for seen on main.tests.echo; policies set them")


def test_who_is_unknown_is_said(bus: Bus) -> None:
    ran = limits(bus, "nobody", "main.tests.echo")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == "limits: the catalog knows no nobody; see: tessera catalog list\n"
