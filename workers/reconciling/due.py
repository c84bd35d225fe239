"""When an index is to be compared with its source: pure."""

from __future__ import annotations

from datetime import datetime, timedelta

from schemas.events import IndexReconciled, IndexReported, IndexState
from schemas.indexes import IndexSpec, drift_of

COMPLETE = frozenset({IndexState.DEGRADED, IndexState.READY})


def is_due(
    spec: IndexSpec,
    last: IndexReported | None,
    found: IndexReconciled | None,
    *,
    every: timedelta,
    again: timedelta,
    now: datetime,
) -> bool:
    """Returns whether an index is to be compared now.

    Args:
        spec: The index.
        last: How it stands; one that is not complete, or is being built anew, waits.
        found: What the last comparison found.
        every: How often one that is as its source is compared.
        again: How soon one that was not.
        now: When.
    """
    if spec.source is None or last is None or last.state not in COMPLETE:
        return False
    if not last.generation or last.building is not None:
        return False
    if found is None or found.generation != last.generation or spec.reconcile > found.reconcile:
        return True
    if last.shaken_at is not None and last.shaken_at > found.reconciled_at:
        return True
    # One that is triggered mends nothing before it is triggered.
    soon = drift_of(found) and spec.sync == "continuous"
    return now - found.reconciled_at >= (again if soon else every)
