"""What was used, from the log into the table: each request once, summed exactly, and live."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from infra.bootstrap import ROOT
from infra.lake import QueryInvalid, query
from infra.telemetry import now
from schemas.events import InferenceAttempted, InferenceRecorded, Outcome, Reason
from schemas.topics import AUDIT_RECORDED, INFERENCE_ATTEMPTED, INFERENCE_RECORDED
from tests.broker.pools import in_flight
from tests.harness import PATIENCE_S, Bus, eventually, running, unique

pytestmark = pytest.mark.stack

ROWS = 10_000
# What a recorder reads.
STORED = AUDIT_RECORDED, INFERENCE_ATTEMPTED, INFERENCE_RECORDED


def named(group: str) -> list[str]:
    """Returns the command of a recorder in a group of its own."""
    return ["-m", "streams", "streams.sinks:open_recorder", "--name", group]


def row(tenant: str, number: int, **changes: Any) -> InferenceRecorded:
    event = InferenceRecorded(
        request_id=f"{tenant}-{number}",
        tenant=tenant,
        principal="ann",
        endpoint="main.tests.echo",
        outcome=Outcome.COMPLETED,
        request="{}",
        requested_at=now() - timedelta(seconds=1),
        prompt_tokens=number,
        completion_tokens=1,
        elapsed_ms=10,
        cost=Decimal("0.0000001"),
        status=200,
    )
    return replace(event, **changes)


def asked(folder: Path, sql: str) -> list[dict[str, Any]]:
    """Returns what the lake answers; nothing as long as the table is not there."""
    try:
        found: list[dict[str, Any]] = query(folder / "lake", sql).to_pylist()
    except QueryInvalid:
        return []
    return found


def summed(folder: Path, tenant: str) -> tuple[int, int, Decimal]:
    """Returns how many rows a tenant has, how many ids, and what they cost."""
    sql = (
        "SELECT count(*) AS rows, count(DISTINCT request_id) AS ids, sum(cost) AS cost "
        f"FROM inferences WHERE tenant = '{tenant}'"
    )
    for found in asked(folder, sql):
        return found["rows"], found["ids"], found["cost"] or Decimal(0)
    return 0, 0, Decimal(0)


def usage(bus: Bus, folder: Path, *words: str) -> subprocess.Popen[str]:
    """Asks for usage as a person does whose output is no terminal."""
    return subprocess.Popen(
        [sys.executable, "-m", "infra.usage", *words],
        cwd=ROOT,
        env={**os.environ, **bus.environment, "LAKE_ROOT": str(folder / "lake")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_every_row_is_summed_once_and_exactly_though_the_sink_is_killed_and_reads_again(
    bus: Bus, tmp_path: Path
) -> None:
    group, tenant = unique("recorder"), unique("tenant")
    exact = (ROWS, ROWS, Decimal("0.001"))
    events = [row(tenant, number) for number in range(ROWS)]
    bus.send(INFERENCE_RECORDED, *events[: ROWS // 2])
    with running(bus, named(group), tmp_path) as recorder:
        eventually(lambda: summed(tmp_path, tenant)[0] > 0, what="the first rows")
        recorder.kill()
    # Down for a while: what is recorded meanwhile waits on the log.
    bus.send(INFERENCE_RECORDED, *events[ROWS // 2 :])
    with running(bus, named(group), tmp_path) as recorder:
        eventually(lambda: summed(tmp_path, tenant) == exact, what="every row")
        # The same records once more, at other offsets.
        bus.send(INFERENCE_RECORDED, *events[::10])
        eventually(lambda: bus.lag(group, INFERENCE_RECORDED.name) == 0, what="the commit")
        recorder.stop()
    assert summed(tmp_path, tenant) == exact
    # A group that knows of no offset reads all of it again, at the same offsets.
    group = unique("recorder")
    with running(bus, named(group), tmp_path):
        eventually(lambda: bus.lag(group, INFERENCE_RECORDED.name) == 0, what="the commit")
    assert summed(tmp_path, tenant) == exact


def test_a_recorder_that_is_told_to_stop_stores_what_it_has_gathered(
    bus: Bus, tmp_path: Path
) -> None:
    group, tenant, number = unique("recorder"), unique("tenant"), 500
    with running(bus, named(group), tmp_path) as recorder:
        # What other tests have put there.
        eventually(lambda: not any(bus.lag(group, each.name) for each in STORED), what="the commit")
        assert recorder.stop() == 0
    bus.send(INFERENCE_RECORDED, *(row(tenant, each) for each in range(number)))
    # It would gather for an hour.
    with running(
        bus, named(group), tmp_path, LAKE_FLUSH_MS="3600000", LAKE_FLUSH_ROWS="1000000"
    ) as recorder:
        eventually(lambda: in_flight(recorder) >= number, what="that all are gathered")
        assert summed(tmp_path, tenant)[0] == 0
        assert recorder.stop() == 0
    assert summed(tmp_path, tenant) == (number, number, Decimal("0.00005"))
    assert bus.lag(group, INFERENCE_RECORDED.name) == 0


def test_a_failed_request_is_one_row_that_cost_nothing_and_misses_no_price(
    bus: Bus, tmp_path: Path
) -> None:
    tenant = unique("tenant")
    failed = row(
        tenant,
        1,
        outcome=Outcome.FAILED,
        reason=Reason.PROVIDER_FAILED,
        status=502,
        cost=Decimal(0),
        prompt_tokens=0,
        completion_tokens=0,
    )
    bus.send(INFERENCE_RECORDED, failed, row(tenant, 2, cost=None))
    with running(bus, named(unique("recorder")), tmp_path):
        eventually(lambda: summed(tmp_path, tenant)[0] == 2, what="the rows")
    sql = f"SELECT requests, errors, cost, unpriced FROM usage WHERE tenant = '{tenant}'"
    [found] = asked(tmp_path, sql)
    assert found == {"requests": 2, "errors": 1, "cost": Decimal(0), "unpriced": 1}


def test_each_try_of_a_route_is_a_row_of_the_table_of_attempts(bus: Bus, tmp_path: Path) -> None:
    request_id = unique("request")
    tries = [
        InferenceAttempted(
            attempt_id=f"{request_id}/{number}",
            request_id=request_id,
            attempt=number,
            tenant="acme",
            endpoint="main.tests.echo",
            route=route,
            model="m",
            outcome=outcome,
            cost=cost,
            started_at=now(),
        )
        for number, (route, outcome, cost) in enumerate(
            [("a", Outcome.FAILED, Decimal(0)), ("b", Outcome.COMPLETED, Decimal("0.25"))]
        )
    ]
    bus.send(INFERENCE_ATTEMPTED, *tries, *tries)
    sql = (
        f"SELECT route, outcome, cost FROM attempts WHERE request_id = '{request_id}' "
        "ORDER BY attempt"
    )
    with running(bus, named(unique("recorder")), tmp_path):
        eventually(lambda: len(asked(tmp_path, sql)) == 2, what="the rows")
    assert asked(tmp_path, sql) == [
        {"route": "a", "outcome": "FAILED", "cost": Decimal(0)},
        {"route": "b", "outcome": "COMPLETED", "cost": Decimal("0.25")},
    ]


def test_live_figures_count_each_request_once_until_they_are_interrupted(
    bus: Bus, tmp_path: Path
) -> None:
    tenant = unique("tenant")
    events = [row(tenant, number) for number in range(20)]
    with usage(bus, tmp_path, "--follow", "--by", "tenant", "--json", "--since", "3m") as child:
        assert child.stdout is not None
        bus.send(INFERENCE_RECORDED, *events, *events[:5])
        found: dict[str, Any] = {}
        for line in child.stdout:
            told = json.loads(line)
            if told["name"] == tenant:
                found = told
                if told["requests"] == len(events):
                    break
        child.send_signal(signal.SIGINT)
        assert child.wait(PATIENCE_S) == 130
        assert child.stderr is not None
        assert child.stderr.read() == ""
    assert found["cost"] == "0.000002"
    assert (found["prompt_tokens"], found["p50_ms"]) == (190, 10)


def test_in_a_terminal_live_figures_are_drawn_over_and_it_is_left_in_order(
    bus: Bus, tmp_path: Path
) -> None:
    tenant = unique("tenant")
    bus.send(INFERENCE_RECORDED, *(row(tenant, number) for number in range(3)))
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "infra.usage", "-f", "--by", "tenant", "--since", "3m"],
        cwd=ROOT,
        env={**os.environ, **bus.environment, "TERM": "xterm", "COLUMNS": "120", "LINES": "60"},
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    with open(ours, "rb", buffering=0) as terminal:
        seen = b""
        while tenant.encode() not in seen or b"Ctrl-C ends it" not in seen:
            seen += terminal.read(4096)
        child.send_signal(signal.SIGINT)
        # It ends only once all that it draws is read; reading what a terminal shows ends in an
        # error when its last writer is gone.
        with suppress(OSError):
            while more := terminal.read(4096):
                seen += more
        assert child.wait(PATIENCE_S) == 130
    hidden, shown = b"\x1b[?25l", b"\x1b[?25h"
    assert seen.rfind(shown) > seen.rfind(hidden) >= 0
    assert b"Traceback" not in seen


@pytest.mark.parametrize("words", [(), ("--by", "user", "--json")])
def test_a_lake_without_requests_is_no_error(
    bus: Bus, tmp_path: Path, words: Sequence[str]
) -> None:
    with usage(bus, tmp_path, *words) as child:
        said, wrong = child.communicate(timeout=PATIENCE_S)
    assert (child.returncode, said) == (0, "")
    assert "no requests yet" in wrong
