"""What decisions are made by in a view of the catalog, for tests that compare views."""

from __future__ import annotations

from typing import Any

from infra.catalog import CatalogView
from schemas.events import CatalogChanged
from tests.seed import LIMITS

CHAT = "main.tests.chat"
WHICH = (None, "1", "2", "x", "none")


def decided(view: CatalogView) -> dict[str, Any]:
    """Returns everything that decisions are made by."""
    principals = ("a", "b", "c", "acme", "ann")
    securables = ("a", "main", "main.tests.a", "main.tests.e", CHAT)
    versions = [(f, which) for f in (view.functions, view.prompts) for which in WHICH]
    return {
        "agents": view.agents,
        "comments": [view.comment(kind, "main.tests.a") for kind in ("agent", "function")],
        "effective": [view.access.effective(p, s) for p in principals for s in securables],
        "endpoints": view.endpoints,
        "identities": [view.access.identities(p) for p in principals],
        "keys": view.keys,
        "pools": view.pools,
        "principals": view.principals,
        "versions": [known.find("main.tests.a", which) for known, which in versions],
        "tenants": view.tenants,
    }


def applied(history: list[CatalogChanged]) -> CatalogView:
    view = CatalogView(LIMITS)
    for change in history:
        view.apply(change)
    return view
