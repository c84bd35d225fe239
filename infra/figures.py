"""Figures: what was used, by whom or by what, summed over the table of inferences.

Knows how usage is grouped and summed, exactly. Does not know how it is shown, nor what is going on
right now (``meter.py``).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path

from infra.lake import is_table, query
from schemas.events import InferenceRecorded, Outcome

TAG = "tag:"
# Refused or failed; what its caller cancelled is no error.
ERRORS = frozenset({Outcome.FAILED, Outcome.REFUSED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """What a group of requests used.

    Attributes:
        name: What the group has in common; empty where that is nothing, None for all requests.
        requests: How many there were.
        errors: How many of them were refused or failed.
        prompt_tokens: Tokens read, the cached ones among them.
        cached_tokens: Tokens read that a provider's cache served.
        completion_tokens: Tokens produced, the reasoning ones among them.
        reasoning_tokens: Tokens produced that nobody sees.
        saved_tokens: Tokens that answers out of our cache spared.
        cost: US dollars, of all whose price is known.
        unpriced: Requests whose cost is unknown.
        p50_ms: Median time of those answered, from the request to its reply; None without any.
        p99_ms: What 99 of 100 of them stayed within.
    """

    name: str | None
    requests: int = 0
    errors: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    saved_tokens: int = 0
    cost: Decimal = Decimal(0)
    unpriced: int = 0
    p50_ms: int | None = None
    p99_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Grouping:
    """What usage is told apart by.

    Attributes:
        sql: The expression over a row of the table.
        of: The same of an event.
        values: What the expression's ``$names`` stand for.
    """

    sql: str
    of: Callable[[InferenceRecorded], str | None]
    values: Mapping[str, object] = field(default_factory=dict)


GROUPINGS: dict[str, Grouping] = {
    "endpoint": Grouping(sql="endpoint", of=lambda event: event.endpoint),
    "model": Grouping(sql="model", of=lambda event: event.model),
    "route": Grouping(sql="route", of=lambda event: event.route),
    "tenant": Grouping(sql="tenant", of=lambda event: event.tenant),
    "user": Grouping(sql="principal", of=lambda event: event.principal),
}


def grouping(text: str) -> Grouping:
    """Returns the grouping that a word of the command line means.

    Raises:
        ArgumentTypeError: It means none.
    """
    if text in GROUPINGS:
        return GROUPINGS[text]
    tag = text.removeprefix(TAG)
    if tag == text or not tag:
        known = ", ".join(GROUPINGS)
        raise argparse.ArgumentTypeError(f"{text} is none: say {known}, or {TAG}NAME")
    return Grouping(sql="tags[$tag]", of=lambda event: event.tags.get(tag), values={"tag": tag})


def figures(root: Path, by: Grouping, since: datetime) -> list[Figure]:
    """Returns what was used since an instant: of all requests first, then of each group.

    The groups come by what they cost, the dearest first. Without any request there is no figure.

    Raises:
        QueryInvalid: The lake cannot be asked.
    """
    if not anything(root):
        return []
    sql = f"""
        SELECT
            CASE WHEN grouping(name) = 1 THEN NULL ELSE name END AS name,
            count(*) AS requests,
            count(*) FILTER (outcome IN ('FAILED', 'REFUSED')) AS errors,
            CAST(sum(prompt_tokens) AS BIGINT) AS prompt_tokens,
            CAST(sum(cached_tokens) AS BIGINT) AS cached_tokens,
            CAST(sum(completion_tokens) AS BIGINT) AS completion_tokens,
            CAST(sum(reasoning_tokens) AS BIGINT) AS reasoning_tokens,
            CAST(coalesce(sum(saved_tokens), 0) AS BIGINT) AS saved_tokens,
            coalesce(sum(cost), 0) AS cost,
            count(*) FILTER (cost IS NULL) AS unpriced,
            quantile_disc(elapsed_ms, 0.5) FILTER (outcome = 'COMPLETED') AS p50_ms,
            quantile_disc(elapsed_ms, 0.99) FILTER (outcome = 'COMPLETED') AS p99_ms
        FROM (SELECT *, coalesce({by.sql}, '') AS name FROM inferences)
        WHERE requested_at >= $since AND date >= CAST($since AS DATE)
        GROUP BY GROUPING SETS ((name), ())
        HAVING count(*) > 0
        ORDER BY grouping(name) DESC, cost DESC, requests DESC, name
    """
    found = query(root, sql, {"since": since, **by.values}).to_pylist()
    return [Figure(**row) for row in found]


def over_time(root: Path, since: datetime, until: datetime, parts: int) -> list[tuple[int, int]]:
    """Returns how many requests, and how many errors among them, each part of a time had.

    Raises:
        QueryInvalid: The lake cannot be asked.
    """
    counts = [(0, 0)] * parts
    if not anything(root):
        return counts
    sql = """
        SELECT
            least(CAST(floor(epoch(requested_at - $since) / $width) AS INTEGER), $last) AS part,
            count(*) AS requests,
            count(*) FILTER (outcome IN ('FAILED', 'REFUSED')) AS errors
        FROM inferences
        WHERE requested_at >= $since AND date >= CAST($since AS DATE)
        GROUP BY part
    """
    width = max((until - since).total_seconds() / parts, 0.001)
    values = {"since": since, "width": width, "last": parts - 1}
    for row in query(root, sql, values).to_pylist():
        counts[row["part"]] = row["requests"], row["errors"]
    return counts


def anything(root: Path) -> bool:
    """Returns whether the lake has the table of inferences, which appears with the first one."""
    return is_table(root / "inferences")
