"""Who acts in the catalog's tests, and a small catalog to start from."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime

from catalog.store.change import Change
from catalog.store.ledger import Actor
from catalog.store.store import Store
from infra.signing import Signer, generate
from schemas.events import CatalogChanged
from schemas.kinds import Key

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
ACTOR = Actor(principal="root", tenant="demo", key_id=None, request_id="r-1", at=NOON)

MODEL = "main.default.scorer"
ENDPOINT = "main.default.chat"
WEIGHTS: Mapping[str, object] = {"uri": "file:/models/scorer"}


def route(**more: object) -> dict[str, object]:
    """Returns the spec of an endpoint with one route."""
    return {"routes": [{"name": "local", "pool": "echo", "model": "echo", **more}]}


def begin(change: Change) -> None:
    """Makes a tenant, its administrator, a catalog and a schema."""
    change.create("tenant", "demo", owner="demo")
    change.create("user", "root", owner="root", spec={"tenant": "demo"})
    change.own_root("root")
    change.create("catalog", "main", owner="root")
    change.create("schema", "main.default", owner="root")


def begun(store: Store) -> Store:
    """Returns a store with that in it."""
    with store.change(ACTOR) as change:
        begin(change)
    return store


def new_key(principal: str) -> tuple[str, Key]:
    """Returns a fresh signing key of a principal, with its id."""
    signer = Signer(generate())
    public_key = b64encode(signer.public_key).decode()
    return signer.key_id, Key(principal=principal, public_key=public_key, not_before=NOON)


def live(store: Store) -> dict[tuple[str, str], tuple[int, str | None]]:
    """Returns position and body of every entry by kind and name."""
    return folded(list(store.entries()))


def folded(changes: list[CatalogChanged]) -> dict[tuple[str, str], tuple[int, str | None]]:
    """Returns what is left of changes: the last of each entry that is not gone."""
    last = {(changed.kind, changed.name): (changed.position, changed.body) for changed in changes}
    return {key: entry for key, entry in last.items() if entry[1] is not None}
