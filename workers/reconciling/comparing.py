"""What differs between the log of a source and what is stored of it: pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from infra.vectors import Head, chunk_id
from workers.reconciling.expected import Log, Row, Where


@dataclass(slots=True)
class Difference:
    """Rows that differ, by kind; see ``IndexReconciled``.

    Attributes:
        wanted: Records that are to be taken in once more; those of a row in their order.
    """

    compared: int = 0
    missing: int = 0
    stale: int = 0
    surplus: int = 0
    unreachable: int = 0
    refused: int = 0
    wanted: dict[Where, None] = field(default_factory=dict)


def compare(
    log: Log, heads: Mapping[str, Head], floor: str, unreachable: Collection[str] = ()
) -> Difference:
    """Returns what differs; a state newer than the log's was stored since that was read.

    Args:
        log: What should be.
        heads: What is, by document id.
        floor: Version of the last truncation that the store knows of.
        unreachable: Ids of chunks that no search finds.
    """
    found = Difference(compared=len(log.rows))
    hidden = frozenset(unreachable)
    for name, row in log.rows.items():
        head = heads.get(name)
        if row.refused:
            found.refused += 1
        # All that is not newer was deleted since the log was read.
        elif log.floor < floor and row.version <= floor:
            continue
        elif log.is_live(row):
            _compare_live(found, row, head, name, hidden)
        elif head is not None and not head.deleted and head.version <= max(row.version, log.floor):
            found.surplus += 1
            emptied = [log.emptied_at] if log.emptied_at and row.version <= log.floor else []
            _want(found, [*row.told_at, *emptied])
    if log.emptied_at and floor < log.floor:
        _want(found, [log.emptied_at])
    return found


def _compare_live(
    found: Difference, row: Row, head: Head | None, name: str, hidden: frozenset[str]
) -> None:
    if head is not None and head.version > row.version:
        return
    if head is None or head.deleted:
        found.missing += 1
    elif head.version < row.version:
        found.stale += 1
    elif hidden and any(each in hidden for each in _chunks(name, head)):
        found.unreachable += 1
    else:
        return
    _want(found, row.told_at)


def _chunks(name: str, head: Head) -> Iterable[str]:
    return (chunk_id(name, position) for position in range(len(head.digests)))


def _want(found: Difference, records: Iterable[Where]) -> None:
    found.wanted |= dict.fromkeys(records)
