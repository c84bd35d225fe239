"""Where the changes of an index's table lie."""

from __future__ import annotations

from typing import NamedTuple

from infra.catalog import CatalogView
from schemas.indexes import IndexSpec
from schemas.tables import TableSpec
from schemas.topics import captured

TOPIC = "topic:"


class Unfit(Exception):
    """A definition cannot be kept as it stands; nothing is lost, and it is tried again.

    Attributes:
        remedy: What to do about it.
    """

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.remedy = remedy


class Source(NamedTuple):
    """Where the changes of a table lie, and whether a connector of ours writes them."""

    topic: str
    captured: bool


def source_of(spec: IndexSpec, view: CatalogView) -> Source:
    """Returns where the changes of an index's table lie.

    Raises:
        Unfit: The catalog has no such table, or its changes lie on no topic.
    """
    name = spec.source or ""
    table: TableSpec | None = view.tables.get(name)
    if table is None:
        raise Unfit(
            f"the source {name} is no table of the catalog",
            "create the table, or name another source",
        )
    if table.location.startswith(TOPIC):
        return Source(table.location.removeprefix(TOPIC), captured=False)
    if table.connection is None or table.capture is None:
        raise Unfit(
            f"no topic has the changes of {name}",
            "let its changes be captured (`tessera source create`), or give it a `topic:` location",
        )
    return Source(captured(name, table.location), captured=True)
