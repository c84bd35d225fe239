"""Rows that a connector reads again while changes flow on: how it is asked, and how it answers.

It is asked in the place that it notes as read, while it is stopped; that is what a signal to it
comes to. But Debezium takes a signal on a thread of its own, and changes that arrive meanwhile end
the task; and it forgets one where Connect ends before the next place is noted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from infra.connectors.source import Source

# Of what a connector notes: which tables it reads again, and who asked.
TABLES = "incremental_snapshot_collections"
ASKED = "incremental_snapshot_correlation_id"
# Where it is within a table: left over, it would begin there.
WITHIN = ("incremental_snapshot_maximum_key", "incremental_snapshot_primary_key")
REQUEST = "tessera-{number}"
# Of what it tells of: that it has come to the end of a table, and how that can end well.
SCANNED = "TABLE_SCAN_COMPLETED"
WELL = frozenset({"EMPTY", "SUCCEEDED"})
# In front of why a request cannot be carried out.
REFUSED = "request {number} to read its rows again: "

# `Any`: JSON's values.
Offset = Mapping[str, Any]


def asked(offset: Offset, source: Source, condition: str | None) -> dict[str, Any]:
    """Returns what a connector that stands at a place notes to read the table again from there.

    Args:
        offset: Where it stands.
        source: Its table, with the number of the request.
        condition: Picks the rows, as SQL; None for all.
    """
    table = {
        f"{TABLES}_id": f"{source.schema}.{source.relation}",
        f"{TABLES}_additional_condition": condition,
        f"{TABLES}_surrogate_key": None,
    }
    request = REQUEST.format(number=source.capture.resnapshot)
    stands = {name: value for name, value in offset.items() if name not in WITHIN}
    return {**stands, TABLES: json.dumps([table]), ASKED: request}


def under_way(offset: Offset) -> bool:
    """Returns whether a connector reads rows again, or will once it runs."""
    return bool(offset.get(TABLES))


def ending(notices: Iterable[Mapping[str, Any]], number: int) -> str | None:
    """Returns how a request ended the last time, of all that its connector told; None if never."""
    request, ended = REQUEST.format(number=number), None
    for notice in notices:
        if notice.get("id") == request and notice.get("type") == SCANNED:
            ended = (notice.get("additional_data") or {}).get("status", "UNKNOWN")
    return ended


def refusal(number: int, reason: str) -> str:
    """Returns why a request cannot be carried out."""
    return f"{REFUSED.format(number=number)}{reason}"


def is_refused(reason: str | None, number: int) -> bool:
    """Returns whether this is why a request cannot be carried out.

    >>> is_refused(refusal(2, "no such column"), 2), is_refused(refusal(2, "no such column"), 3)
    (True, False)
    """
    return (reason or "").startswith(REFUSED.format(number=number))
