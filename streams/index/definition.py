"""Whether an index can be kept as the catalog defines it: its endpoint and columns."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from infra.catalog import CatalogView
from infra.changes.rows import ENVELOPE
from infra.changes.source import Unfit
from infra.documents.texts import problems
from infra.registry import Registry, SchemaMissing
from schemas.indexes import IndexSpec


def endpoint_of(spec: IndexSpec, view: CatalogView) -> str:
    """Returns who embeds.

    Raises:
        Unfit: Nobody does.
    """
    if spec.endpoint is None:
        raise Unfit("the index names no embedding endpoint", "name one")
    if spec.endpoint not in view.endpoints:
        raise Unfit(
            f"the embedding endpoint {spec.endpoint} is not in the catalog, or no version that it "
            "names exists",
            "create the endpoint, or name another one",
        )
    return spec.endpoint


class Definition:
    """Knows whether what an index says of columns holds, as far as schemas tell.

    Args:
        registry: Knows the schemas of the source's topic.
        topic: The source's.
        spec: The index.
    """

    def __init__(self, registry: Registry, topic: str, spec: IndexSpec) -> None:
        self._registry = registry
        self._subject = f"{topic}-value"
        self._spec = spec
        self._good: set[int] = set()

    async def check(self, schema_id: int | None = None) -> None:
        """Returns if rows are as the index says; a column that came later is null in older rows.

        Args:
            schema_id: Of some rows; the newest one's if left out.

        Raises:
            RegistryUnreachable: The registry does not answer.
            Unfit: The newest rows lack a column, or the definition is wrong in itself.
        """
        if schema_id in self._good:
            return
        newest, there = await asyncio.to_thread(self._newest)
        if found := problems(self._spec, there):
            raise Unfit("; ".join(found), "alter the index, or the table, so that they fit")
        self._good |= {newest} if schema_id is None else {newest, schema_id}

    def _newest(self) -> tuple[int, frozenset[str]]:
        """Returns the id of the newest schema and its columns; none where there is none; blocks."""
        try:
            newest, schema = self._registry.latest(self._subject)
        # Nothing was written yet, or under another name.
        except SchemaMissing:
            return 0, frozenset()
        return newest, columns(schema)


# `Any`: Avro schemas are JSON.
def columns(schema: Mapping[str, Any]) -> frozenset[str]:
    """Returns the columns of the rows that records of a schema tell of."""
    fields = {each["name"]: each["type"] for each in schema.get("fields", ())}
    if not ENVELOPE.issubset(fields):
        return frozenset(fields)
    for part in (fields.get("before"), fields["after"]):
        for branch in part if isinstance(part, list) else [part]:
            if isinstance(branch, Mapping) and "fields" in branch:
                return frozenset(each["name"] for each in branch["fields"])
    return frozenset()
