"""A catalog for tests that run without the catalog's own process: documents become changes.

A document is a mapping as in ``tessera apply``: kind and name, and what else there is of owner,
spec, aliases, versions, grants, denies and keys. What is left out is as little as can be.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from infra.catalog import CatalogView, Limits
from infra.provision import members, provision
from infra.registry import Registry
from infra.signing import key_id
from schemas.events import CatalogChanged
from schemas.kinds import Described, Grant, Key, Version
from schemas.shapes import Shape
from schemas.topics import CATALOG_CHANGED, Topic
from tests.harness import Bus

Document = Mapping[str, Any]

OWNER = "admin"
SEEDED = datetime(2026, 1, 1, tzinfo=UTC)
LIMITS = Limits(max_request_bytes=1024 * 1024, max_deadline_ms=900_000)

# Of the whole session, so that what is said later is later.
_positions = count(1)


def documents(path: Path) -> list[Document]:
    """Returns the documents of a YAML file."""
    return list(yaml.safe_load_all(path.read_text()))


def changed(kind: str, name: str, body: Shape | str | None) -> CatalogChanged:
    """Returns the next change: an entry with this body, or without one."""
    text = body.model_dump_json() if isinstance(body, Shape) else body
    return CatalogChanged(
        position=next(_positions),
        kind=kind,
        name=name,
        body=text,
        changed_at=SEEDED,
        changed_by=OWNER,
    )


def described(document: Document) -> Described:
    """Returns the body of an entry that has an owner."""
    return Described(
        owner=document.get("owner", OWNER),
        spec=document.get("spec", {}),
        aliases=document.get("aliases", {}),
        etag="1",
        created_at=SEEDED,
        created_by=OWNER,
        updated_at=SEEDED,
        updated_by=OWNER,
    )


def changes(of: Iterable[Document]) -> list[CatalogChanged]:
    """Returns the changes that make what the documents say."""
    return [change for document in of for change in _changes(document)]


def _changes(document: Document) -> Iterator[CatalogChanged]:
    kind, name = document["kind"], document["name"]
    if kind != "root":
        yield changed(kind, name, described(document))
    for number, version in enumerate(document.get("versions", ()), 1):
        body = Version(kind=kind, spec=version.get("spec", {}), created_at=SEEDED, created_by=OWNER)
        yield changed("version", f"{name}@{number}", body)
    allow, deny = document.get("grants", {}), document.get("denies", {})
    for principal in sorted({*allow, *deny}):
        grant = Grant(allow=tuple(allow.get(principal, ())), deny=tuple(deny.get(principal, ())))
        yield changed("grant", f"{name}/{principal}", grant)
    for key in document.get("keys", ()):
        made = Key.model_validate({"principal": name, "not_before": SEEDED, **key})
        yield changed("key", key_id(base64.b64decode(made.public_key)), made)


def view_of(of: Iterable[Document], limits: Limits = LIMITS) -> CatalogView:
    """Returns the view of a catalog that says what the documents say."""
    view = CatalogView(limits)
    for change in changes(of):
        view.apply(change)
    return view


def seed(bus: Bus, of: Iterable[Document]) -> list[CatalogChanged]:
    """Makes everything on the broker and in the registry, and publishes the catalog."""
    made = changes(of)
    provision(bus.kafka, bus.registry_settings, _members(made))
    bus.send(CATALOG_CHANGED, *made)
    return made


def publish(bus: Bus, *made: CatalogChanged) -> None:
    """Publishes changes to a bus that is seeded, after the topics that they need."""
    if needed := _members(made):
        bus.make(*needed)
        Registry(bus.registry_settings).register_all(needed)
    bus.send(CATALOG_CHANGED, *made)


def _members(made: Iterable[CatalogChanged]) -> list[Topic[Any]]:
    return list({topic.name: topic for each in made for topic in members(each)}.values())
