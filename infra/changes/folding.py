"""What becomes of a document: the states that changes take it through, whatever their order.

A change that is not newer than what is stored does nothing. So records may come twice, late, or
with older ones behind newer ones, and the document ends the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from infra.changes.rows import Change, Op, parts, version_of
from infra.vectors import Head


def fold(
    changes: Iterable[Change], head: Head | None, floor: str, *, again: bool = False
) -> list[tuple[int, Change]]:
    """Returns the states that a document goes through, the last one last; none if all are old.

    Each comes with the place of its change among the given ones. Values that it left out are filled
    in from the state before; ``unavailable`` names what is still missing.

    Args:
        changes: Of one row, in the order of their partition.
        head: What is stored of it.
        floor: Version of the table's last truncation; empty without one.
        again: Whether the state that is stored counts as new, so that it is stored once more.
    """
    version = head.version if head else ""
    gone = head is None or head.deleted or version <= floor
    known: Mapping[str, Any] = {} if head is None or gone else head.inputs
    states: list[tuple[int, Change]] = []
    for at, each in enumerate(changes):
        change = _placed(each, version, gone=gone)
        repeated = again and change.version == version
        if change.version <= floor or (change.version <= version and not repeated):
            continue
        if change.op is Op.UPSERT:
            change = _filled(change, known)
            known = {
                name: value for name, value in change.row.items() if name not in change.unavailable
            }
        else:
            known = {}
        version, gone = change.version, change.op is not Op.UPSERT
        states.append((at, change))
    return states


def _placed(change: Change, version: str, *, gone: bool) -> Change:
    """Returns a change with its version behind the state that it follows on its partition."""
    if not version or not (change.after_all or change.after_snapshot):
        return change
    number, offset, snapshot = parts(version)
    own, at, _ = parts(change.version)
    if at == offset:
        return replace(change, version=version)
    follows = at > offset and (snapshot or (change.after_all and not gone))
    return replace(change, version=version_of(number, at)) if follows and own < number else change


def _filled(change: Change, known: Mapping[str, Any]) -> Change:
    found = {name: known[name] for name in change.unavailable if name in known}
    return replace(
        change, row={**change.row, **found}, unavailable=change.unavailable - found.keys()
    )
