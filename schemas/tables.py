"""Tables: where their rows lie, how changes of them are captured, and who sees which of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from schemas.checks import Masking
from schemas.shapes import MOST_RULES, Duration, FullName, Name, Shape, Spec, Text


class RowFilter(Shape):
    """Rows that a principal sees.

    Attributes:
        to: Principals that it holds for; a principal under several sees what each of them lets it.
        where: Condition over the columns.
    """

    to: tuple[Name, ...] = Field(min_length=1, max_length=MOST_RULES)
    where: Text


class ColumnMask(Shape):
    """A column that is masked for everyone but some.

    Attributes:
        column: The column.
        mask: What is shown: nothing, a hash, or the last four characters.
        unless: Principals who see it as it is.
    """

    column: Text
    mask: Literal["hash", "last4", "null"] = "null"
    unless: tuple[Name, ...] = Field(default=(), max_length=MOST_RULES)


ColumnMasks = Annotated[tuple[ColumnMask, ...], Field(max_length=MOST_RULES), Masking]
RowFilters = Annotated[tuple[RowFilter, ...], Field(max_length=MOST_RULES)]


class Column(Shape):
    """A column of a table or index."""

    name: Text
    type: Text = "string"
    comment: str = ""


class Capture(Shape):
    """How changes of a table in PostgreSQL become records, by a Debezium connector of its own.

    Attributes:
        snapshot: Whether the rows that are there at the start are read, or only what changes.
        heartbeat: How often the database is written to, so that its log never waits for us.
        resnapshot: Raised to read rows again while changes flow on, so that missed ones come in.
        resnapshot_where: Condition over the columns that picks these rows; all if left out.
    """

    snapshot: Literal["initial", "never"] = "initial"
    heartbeat: Duration = "10s"
    resnapshot: Annotated[int, Field(ge=0)] = 0
    resnapshot_where: Text | None = None


class TableSpec(Spec):
    """A table or data set.

    Attributes:
        location: ``topic:NAME``, ``lake:NAME``, ``file:PATH``, or ``schema.table`` on a connection.
        connection: Database that it lies in.
        capture: How its changes become records; not at all if left out.
    """

    location: Text
    columns: tuple[Column, ...] = ()
    connection: FullName | None = None
    capture: Capture | None = None
    row_filters: RowFilters = ()
    column_masks: ColumnMasks = ()

    def references(self) -> Iterator[str]:
        """Yields the connection."""
        yield from filter(None, (self.connection,))
