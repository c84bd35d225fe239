"""An index of facts that is played: it keeps rows whole, and finds those that a filter names."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any

from infra.settings import InferenceSettings
from schemas.events import Completion, Delta, FinishReason, InferenceRequested, Route, Usage
from schemas.search import Found, Hit, Search, Write, Written


class Facts:
    """Rows by their key."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, Any]] = {}

    async def complete(
        self, request: InferenceRequested, route: Route
    ) -> AsyncGenerator[Delta | Completion, None]:
        """Writes rows, deletes them, or finds all that satisfy a filter."""
        said = json.loads(request.search or "")
        answer = (
            self._written(Write.model_validate(said))
            if said.get("operation") in {"delete", "upsert"}
            else self._found(Search.model_validate(said))
        )
        yield Completion(
            model=route.model, finish_reason=FinishReason.STOP, usage=Usage(), found=answer
        )

    async def close(self) -> None:
        """Holds nothing."""

    def _written(self, write: Write) -> str:
        for row in write.rows:
            self._rows[row["id"]] = row
        for key in write.keys:
            self._rows.pop(key["id"], None)
        count = len(write.rows) + len(write.keys)
        return Written(status="SUCCESS", written=count).model_dump_json()

    def _found(self, search: Search) -> str:
        assert isinstance(search.filters, dict)
        wanted = search.filters.items()
        hits = tuple(
            Hit(key={"id": row["id"]}, text=row["fact"], columns={"at": row["at"]})
            for row in self._rows.values()
            if wanted <= row.items()
        )
        return Found(hits=hits).model_dump_json()


async def open_facts(settings: InferenceSettings) -> Facts:
    """Opens the index."""
    return Facts()
