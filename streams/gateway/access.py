"""What of an index somebody may see: the rows and columns that the catalog lets them.

Row filters of the index hold, and those of the table that it follows: a row is seen that passes
both. Of one of them:

* without any filter, every row passes;
* somebody that filters name, by name or as a member of a group, sees what any of those lets them,
  whoever owns it;
* somebody that none names sees nothing, but for who owns it or may MANAGE it: a filter that was
  written for others must not let all the world see all the rest.

Masks of both hold. A column that both mask is masked by the strictest; one that is masked is shown
only to those whom every mask of it excepts, and owning it excepts nobody.

Who may write to an index (MODIFY) may write and delete any row of it, also one that they do not
see.

Knows who may see what; does not know whether a condition can be read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from infra.catalog import CatalogView
from infra.identity import quoted
from schemas.events import InferenceRequested, Reason, Refusal, Route, Task
from schemas.indexes import IndexSpec
from schemas.kinds import Privilege
from schemas.search import Access, Search, Write, read
from schemas.tables import ColumnMask, RowFilter, TableSpec
from streams.agents.facts import OWNER, unfit

# What shows least last.
STRICTEST = ("last4", "hash", "null")
# What is said of an index, by what is asked for.
SHAPES: dict[Task, type[Search] | type[Write]] = {Task.SEARCH: Search, Task.WRITE: Write}


def access_of(principal: str, index: str, view: CatalogView) -> Access:
    """Returns what a principal may see of an index.

    Args:
        principal: Who was found to act.
        index: Full name of an index of the catalog.
        view: The catalog.
    """
    spec = view.indexes[index]
    restricted: list[tuple[str, IndexSpec | TableSpec]] = [(index, spec)]
    if spec.source is not None:
        table = view.tables.get(spec.source)
        if table is None:
            # Nobody knows what it hides from whom.
            return Access(where=((),))
        restricted.append((spec.source, table))
    groups = [_conditions(principal, name, each.row_filters, view) for name, each in restricted]
    masks = [mask for _, each in restricted for mask in each.column_masks]
    return Access(
        where=tuple(group for group in groups if group is not None),
        masks=_masks(masks, view.access.identities(principal)),
    )


def _conditions(
    principal: str, name: str, filters: Sequence[RowFilter], view: CatalogView
) -> tuple[str, ...] | None:
    """Returns conditions of which a row satisfies one; None where it need not."""
    if not filters:
        return None
    identities = view.access.identities(principal)
    mine = tuple(each.where for each in filters if identities.intersection(each.to))
    if not mine and view.access.holds(principal, Privilege.MANAGE, name):
        return None
    return mine


def _masks(masks: Iterable[ColumnMask], identities: frozenset[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for mask in masks:
        if not identities.intersection(mask.unless):
            found[mask.column] = max(
                mask.mask, found.get(mask.column, mask.mask), key=STRICTEST.index
            )
    return found


def unnamed(
    asked: InferenceRequested, guarded: InferenceRequested, view: CatalogView
) -> Refusal | None:
    """Returns why rows cannot be written or named of which a policy masked what tells them apart.

    Rows of several keys would get the same one, and overwrite each other; facts about one person
    would be another's; and a filter by a placeholder finds what was written of everybody masked.
    """
    if asked.search == guarded.search:
        return None
    shape = SHAPES[asked.task]
    before, after = (read(each.search, shape) for each in (asked, guarded))
    if isinstance(before, Search) and isinstance(after, Search) and before.filters != after.filters:
        return _masked("in filters, by which rows are found: filter by what it lets pass")
    index = view.indexes.get(asked.endpoint)
    columns = () if index is None else _telling(index)
    for (place, row), (_, masked) in zip(_names(before), _names(after), strict=True):
        for column in row.keys() if place.startswith("keys") else columns:
            if row.get(column) != masked.get(column):
                return _masked(
                    f"in {place} under {quoted(column)}, by which rows are told apart: use values "
                    "that it lets pass"
                )
    return None


def _telling(index: IndexSpec) -> tuple[str, ...]:
    """Returns the columns by which rows are told apart; of facts, also by whose they are."""
    return index.key_columns if unfit(index) else (*index.key_columns, *OWNER)


def _masked(where: str) -> Refusal:
    message = f"a policy masks what stands {where}"
    return Refusal(reason=Reason.POLICY_DENIED, message=message, field="search")


def disguised(
    asked: InferenceRequested, guarded: InferenceRequested, route: Route, view: CatalogView
) -> Refusal | None:
    """Returns why a tool cannot be called with what a policy left of its arguments.

    What only computes may do so with a placeholder; what has an effect would have another one.
    """
    if asked.task is not Task.TOOL or asked.inputs == guarded.inputs:
        return None
    found = view.functions.find(route.entity)
    if found is not None and found.version.effect == "pure":
        return None
    return Refusal(
        reason=Reason.POLICY_DENIED,
        message=f"a policy masks a part of the arguments, and {asked.endpoint} would act on what "
        "is left: call it without personal data, or have its policy deny or let pass",
        field="inputs",
    )


def _names(document: Search | Write) -> list[tuple[str, Mapping[str, Any]]]:
    """Returns what names rows in a search or a write, and where it stands."""
    rows = document.rows if isinstance(document, Write) else ()
    return [
        *((f"rows[{at}]", row) for at, row in enumerate(rows)),
        *((f"keys[{at}]", key) for at, key in enumerate(document.keys)),
    ]
