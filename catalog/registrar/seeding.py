"""The first start: what an empty catalog is filled with, in one transaction."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path

from catalog.declared.documents import Document, parse, public_key_of
from catalog.declared.picture import Picture
from catalog.declared.plan import plan
from catalog.declared.problems import Invalid
from catalog.registrar.applying import take
from catalog.registrar.call import Call
from catalog.store.ledger import Actor
from catalog.store.refusals import CatalogRefused
from catalog.store.store import Store
from infra.catalog import CatalogView
from infra.secrets import SecretUnavailable, resolve
from infra.settings import CatalogSettings
from infra.signing import KeyUnusable, Signer, key_id
from infra.telemetry import now
from schemas.kinds import Key

REQUEST_ID = "seed"


class SeedInvalid(Exception):
    """The catalog cannot begin as the settings say; the message names what is wrong."""


def seed(store: Store, settings: CatalogSettings, view: CatalogView) -> int:
    """Fills an empty store; returns how many entries it has then.

    Args:
        store: The store, which holds nothing.
        settings: The seed's file and whose it is; without both nothing is done.
        view: An empty view.

    Raises:
        SeedInvalid: The file cannot be applied, or the key is none.
    """
    if settings.seed is None or not settings.first_key:
        return 0
    documents = _documents(settings.seed)
    public_key = _public_key(settings.first_key)
    first = settings.first_principal
    tenant = _tenant(documents, first, settings.seed)
    actor = Actor(principal=first, tenant=tenant, request_id=REQUEST_ID, at=now())
    try:
        with store.change(actor) as change:
            # These three need each other, so they begin as their own.
            change.create("tenant", tenant, owner=tenant)
            kind = next(each.kind for each in documents if _is(each, first))
            change.create(kind, first, owner=first, spec={"tenant": tenant})
            change.own_root(first)
            began = [
                (each.kind, each.name, each.position, each.body or "") for each in change.changes
            ]
            said = [
                each.model_copy(update={"owner": first})
                if _is(each, tenant) and not each.owner
                else each
                for each in documents
            ]
            take(Call(view, actor, store.engine, change), plan(Picture.of(began), said))
            key = Key(
                principal=first,
                public_key=b64encode(public_key).decode(),
                not_before=actor.at,
            )
            change.key(key_id(public_key), key)
            return len(change.changes)
    except Invalid as problem:
        raise SeedInvalid(f"{settings.seed}: {problem}") from None
    except CatalogRefused as refused:
        raise SeedInvalid(f"{settings.seed}: {refused.field}: {refused.message}") from None


def _documents(path: Path) -> list[Document]:
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except Invalid as problem:
        raise SeedInvalid(str(problem)) from None
    except (OSError, UnicodeDecodeError) as problem:
        raise SeedInvalid(f"{path} cannot be read: {type(problem).__name__}") from None


def _tenant(documents: Sequence[Document], first: str, path: Path) -> str:
    found = [each for each in documents if _is(each, first) and each.spec]
    tenant = str((found[0].spec or {}).get("tenant")) if found else ""
    if not any(each.kind == "tenant" and each.name == tenant for each in documents):
        raise SeedInvalid(
            f"{path} must have a user or service_principal {first} and the tenant in its spec"
        )
    return tenant


def _is(document: Document, name: str) -> bool:
    return document.name == name and document.kind in ("service_principal", "tenant", "user")


def _public_key(reference: str) -> bytes:
    try:
        text = resolve(reference)
        return public_key_of(text) if "PRIVATE" not in text else Signer(text).public_key
    except (KeyUnusable, SecretUnavailable, ValueError) as problem:
        raise SeedInvalid(f"CATALOG_FIRST_KEY: {problem}") from None
