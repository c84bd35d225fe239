"""What is told of an index: pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from infra.vectors import Counted
from schemas.events import IndexReconciled, IndexReported, IndexState, SourceReported, SourceState
from schemas.indexes import IndexSpec, drift_of
from streams.index.keeping import Progress
from streams.index.standing import Standing

LOST = "the vector store had lost it"
# Of a source that an index must not be called healthy over.
UNWELL = frozenset({SourceState.DEGRADED, SourceState.FAILED, SourceState.REMOVED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What is known of an index at one moment.

    Attributes:
        spec: The index.
        last: What was told last; None before the first time.
        generation: That was looked at.
        standing: How its keeping stands; None where it is not kept.
        progress: How far it is; None where nobody takes up records here.
        counted: How much the generation that queries see holds, where that was counted.
        source: What was told of the source last.
        reconciled: What the last comparison with the source found.
    """

    spec: IndexSpec
    last: IndexReported | None
    generation: int
    standing: Standing | None = None
    progress: Progress | None = None
    counted: Counted | None = None
    source: SourceReported | None = None
    reconciled: IndexReconciled | None = None


def generations(spec: IndexSpec, last: IndexReported | None) -> tuple[int, ...]:
    """Returns the generations that are to be kept now, the one that is wanted last."""
    serving = last.generation if last else 0
    if spec.paused:
        return ()
    kept = []
    behind = spec.sync == "continuous" or spec.trigger > (last.triggered if last else 0)
    if serving and behind:
        kept.append(serving)
    if spec.generation != serving:
        kept.append(spec.generation)
    return tuple(kept)


def obsolete(generation: int, spec: IndexSpec, last: IndexReported | None) -> bool:
    """Returns whether a generation that exists is neither seen by queries nor being built."""
    return generation not in {spec.generation, last.generation if last else 0}


def report(index: str, seen: Seen, trigger: int, now: datetime) -> IndexReported:
    """Returns how an index stands.

    Args:
        index: Its name.
        seen: What is known of it.
        trigger: Up to which trigger it has come, if it is complete.
        now: When.
    """
    told = seen.last or IndexReported(index=index, state=IndexState.UNKNOWN, reported_at=now)
    progress, standing = seen.progress, seen.standing
    if progress is not None:
        told = replace(told, read=progress.read, waiting=progress.waiting)
    if progress is not None and progress.complete:
        told = replace(told, generation=seen.generation, triggered=max(trigger, told.triggered))
    if seen.counted is not None:
        told = replace(told, rows=seen.counted.rows, chunks=seen.counted.chunks)
    if standing is not None and standing.shaken_at is not None:
        told = replace(told, shaken_at=standing.shaken_at)
    if standing is not None and progress is not None:
        fresh = told.freshness_ms if standing.freshness_ms is None else standing.freshness_ms
        told = replace(told, embedded=standing.embedded, freshness_ms=fresh)
    if seen.reconciled is not None:
        told = replace(
            told,
            drift=drift_of(seen.reconciled),
            reconcile=seen.reconciled.reconcile,
            reconciled_at=seen.reconciled.reconciled_at,
        )
    building = None if told.generation == seen.spec.generation else seen.spec.generation
    state, reason, remedy = _state(seen, building=building is not None)
    return replace(
        told, building=building, state=state, reason=reason, remedy=remedy, reported_at=now
    )


def _state(seen: Seen, *, building: bool) -> tuple[IndexState, str | None, str | None]:
    standing = seen.standing
    if seen.spec.paused:
        return IndexState.PAUSED, None, None
    if standing is not None and standing.state is not IndexState.READY:
        return standing.state, standing.reason, standing.remedy
    if standing is not None and standing.anew and not building:
        return IndexState.DEGRADED, LOST, "nothing: it is made anew from its source"
    if seen.progress is not None and seen.progress.stalled:
        reason = f"records of {seen.progress.stalled} partitions wait, and none is taken in"
        return IndexState.DEGRADED, reason, "see the logs of the index processes"
    if lack := _lack(seen.spec, seen.source, seen.reconciled):
        return IndexState.DEGRADED, *lack
    return (IndexState.BUILDING if building else IndexState.READY), None, None


def _lack(
    spec: IndexSpec, source: SourceReported | None, reconciled: IndexReconciled | None
) -> tuple[str, str | None] | None:
    """Returns what is wrong with the source, and the remedy."""
    if source is not None and source.state in UNWELL:
        reason = source.reason or f"it is {source.state}"
        return f"the source {source.table}: {reason}", source.remedy
    if reconciled is not None and reconciled.missed:
        reason = f"{reconciled.missed} rows of its table never came through the capture"
        return reason, f"have them read again: tessera source snapshot {spec.source}"
    return None


def same(told: IndexReported, last: IndexReported | None) -> bool:
    """Returns whether a report says nothing new."""
    return last is not None and replace(told, reported_at=last.reported_at) == last
