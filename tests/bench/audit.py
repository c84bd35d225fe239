"""What a question to the audit costs, in a table of a million rows over 30 days.

python -m tests.bench audit
"""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from time import perf_counter

from infra.audit import Question, ask
from infra.lake import EventTable, Row
from schemas import topics
from schemas.events import AuditOutcome, AuditRecorded

START = datetime(2026, 3, 1, tzinfo=UTC)
DAYS, A_DAY = 30, 33_334
TRIES = 7


def run() -> None:
    """Prints the figures."""
    end = START + timedelta(days=DAYS)
    questions = {
        "the newest 50": Question(),
        "one principal, last hour": Question(who="user-7", since=end - timedelta(hours=1)),
        "one object, all time": Question(on="main.default.endpoint-7"),
        "denials of grants, all time": Question(what="catalog.grant", outcome="denied"),
    }
    with tempfile.TemporaryDirectory() as folder:
        table = EventTable.of(Path(folder), "audits", group="bench")
        for day in range(DAYS):
            table.append([_row(day, number) for number in range(A_DAY)])
        for name, question in questions.items():
            spent = []
            for _ in range(TRIES):
                began = perf_counter()
                found = ask(Path(folder), question).num_rows
                spent.append(perf_counter() - began)
            print(f"{name:<30} {found:>3} rows  {median(spent) * 1e3:>6.0f} ms")


def _row(day: int, number: int) -> Row:
    at = START + timedelta(days=day, seconds=number * 86_400 / A_DAY)
    offset = day * A_DAY + number
    denied = number % 50 == 0
    event = AuditRecorded(
        audit_id=f"audit-{offset}",
        at=at,
        source="catalog",
        principal=f"user-{number % 500}",
        tenant=f"tenant-{number % 20}",
        action=("catalog.update", "catalog.grant", "request.refused")[number % 3],
        kind="endpoint",
        name=f"main.default.endpoint-{number % 1000}",
        outcome=AuditOutcome.DENIED if denied else AuditOutcome.DONE,
        reason="MANAGE is missing" if denied else None,
        before='{"owner": "alice", "spec": {"routes": [{"name": "a", "pool": "p", "model": "m"}]}}',
        after='{"owner": "bob", "spec": {"routes": [{"name": "a", "pool": "p", "model": "n"}]}}',
        request_id=f"request-{offset}",
    )
    return Row(event, topics.AUDIT_RECORDED.name, 0, offset)
