"""People who approve: their keys, what waits for them, and the command that they decide with."""

from __future__ import annotations

import asyncio
import base64
import os
import subprocess
import sys
from pathlib import Path

from infra.bootstrap import ROOT
from infra.signing import Signer, generate
from schemas.events import ApprovalWanted
from schemas.topics import APPROVAL_WANTED
from tests.harness import Bus, eventually
from tests.seed import Document

OFFICE = "office"
PATIENCE_S = 180.0
KEYS = {name: generate() for name in ("boss", "judge")}


def officers(folder: Path) -> list[Document]:
    """Returns the people as documents; their keys lie in the folder."""
    for name, pem in KEYS.items():
        (folder / f"{name}.pem").write_text(pem)
    people = [
        {
            "kind": "user",
            "name": name,
            "spec": {"tenant": OFFICE},
            "keys": [{"public_key": base64.b64encode(Signer(pem).public_key).decode()}],
        }
        for name, pem in KEYS.items()
    ]
    return [{"kind": "tenant", "name": OFFICE}, *people]


def command(
    bus: Bus, folder: Path, *words: str, who: str = "boss"
) -> subprocess.CompletedProcess[str]:
    """Runs `tessera approvals` as somebody."""
    identity = {
        "CLIENT_TENANT": OFFICE,
        "CLIENT_PRINCIPAL": who,
        "CLIENT_KEY": f"file:{folder / f'{who}.pem'}",
    }
    return subprocess.run(
        [sys.executable, "-m", "streams", "approvals", *words],
        cwd=ROOT,
        env={**os.environ, **bus.environment, **identity},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )


def approve(bus: Bus, folder: Path, approval_id: str, verdict: str = "approve") -> None:
    """Has the boss approve what waits, or deny it."""
    done = command(bus, folder, verdict, approval_id)
    assert done.returncode == 0, done.stderr


async def wanted(bus: Bus, tenant: str, tag: str) -> ApprovalWanted:
    """Waits until a request of a tenant, with a tag, waits for a person."""

    def found() -> list[ApprovalWanted]:
        return [
            each
            for each in bus.events(APPROVAL_WANTED, tenant)
            if each.held and tag in " ".join(each.held.texts)
        ]

    await asyncio.to_thread(eventually, found, PATIENCE_S, "the approval that is wanted")
    [waits] = await asyncio.to_thread(found)
    return waits
