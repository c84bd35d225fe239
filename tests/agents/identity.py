"""As whom agents ask: who may ask for others, with a key to sign by."""

from __future__ import annotations

import base64
from pathlib import Path

from infra.signing import Signer, generate
from tests.seed import Document

PLATFORM = "platform"
AGENTS = ["-m", "streams", "agents"]


def identity(folder: Path) -> tuple[list[Document], dict[str, str]]:
    """Returns what a catalog says of it, and the settings of a process; its key is in a folder."""
    key = folder / "agents.pem"
    key.write_text(pem := generate(), encoding="utf-8")
    key.chmod(0o600)
    public = base64.b64encode(Signer(pem).public_key).decode()
    documents: list[Document] = [
        {"kind": "root", "name": "*", "grants": {"agents": ["MANAGE"]}},
        {"kind": "tenant", "name": PLATFORM},
        {
            "kind": "service_principal",
            "name": "agents",
            "spec": {"tenant": PLATFORM},
            "keys": [{"public_key": public}],
        },
    ]
    asks = {
        "CLIENT_KEY": f"file:{key}",
        "CLIENT_PRINCIPAL": "agents",
        "CLIENT_TENANT": PLATFORM,
    }
    return documents, asks
