"""What is asked of an index: whether a search or a write is in its shape."""

from __future__ import annotations

from datetime import datetime

from infra.catalog import CatalogView
from infra.identity import identity
from schemas.events import InferenceRequested, Reason, Refusal, Task
from schemas.kinds import Privilege
from schemas.openai import FormInvalid
from schemas.search import Search, Write, read
from streams.gateway.asked import Asked

OF_INDEXES = frozenset({Task.SEARCH, Task.WRITE})


def search_sensible(asked: Asked, view: CatalogView, now: datetime) -> Refusal | None:
    """A search or a write must be in its shape, and a search have something to look for."""
    request = asked.request
    if request.task not in OF_INDEXES:
        return None
    try:
        if request.task is Task.WRITE:
            read(request.search, Write)
            return None
        search = read(request.search, Search)
    except FormInvalid as problem:
        return _invalid("search", f"search: {problem}")
    return _lacks_query(request, search) or _ranks_unasked(asked, search, view)


def _ranks_unasked(asked: Asked, search: Search, view: CatalogView) -> Refusal | None:
    """Whoever ranks the hits is asked by the platform, so that must be checked here."""
    who, ranks = identity(asked.sender, view), search.rerank
    if ranks is None or view.access.may(who, Privilege.QUERY, ranks.endpoint):
        return None
    return Refusal(
        reason=Reason.PRIVILEGE_MISSING,
        message=f"{who} may not query {ranks.endpoint}, which is to rank the hits, or there is "
        "none; ask its owner for QUERY on it, or search without rerank",
        field="search",
    )


def _lacks_query(request: InferenceRequested, search: Search) -> Refusal | None:
    if search.operation != "search":
        unwanted = request.query is not None
        return _invalid("query", f"a {search.operation} takes no query") if unwanted else None
    if (request.query or "").strip():
        return None
    if search.mode != "vector":
        return _invalid("query", f"a {search.mode} search looks for words: give a query")
    if search.vector is None:
        return _invalid("query", "query is empty: say what to search for, or give a vector")
    return None


def _invalid(field: str, message: str) -> Refusal:
    return Refusal(reason=Reason.REQUEST_INVALID, message=message, field=field)
