"""One id on several records: each is a request of its own, in table, usage, audit and replies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra.bootstrap import ROOT
from infra.lake import QueryInvalid, query
from infra.signing import claim, claimed
from schemas.topics import INFERENCE_RECORDED
from streams.steps import MOVED
from tests.broker.proving import Sent, ask, enrol, lay, reason, replied, sealed
from tests.harness import PATIENCE_S, Bus, Process, eventually, unique

pytestmark = pytest.mark.stack

TEXTS = ("what is two and two", "and three and three")


@pytest.fixture(scope="module", autouse=True)
def people(bus: Bus, gateway: Process, echo: Process, recorder: Process) -> None:
    enrol(bus)


def sent_under_one_id(bus: Bus, tag: str) -> list[Sent]:
    """Returns two signed records under one id, with different texts."""
    first = ask(TEXTS[0], tags={"test": tag})
    second = replace(ask(TEXTS[1], tags={"test": tag}), request_id=first.request_id)
    return [sealed(bus, each) for each in (first, second)]


def rows(folder: Path, sql: str) -> list[dict[str, Any]]:
    """Returns what the lake answers; nothing as long as the table is not there."""
    try:
        found: list[dict[str, Any]] = query(folder / "lake", sql).to_pylist()
    except QueryInvalid:
        return []
    return found


def stored(folder: Path, sent: Sent, count: int) -> list[dict[str, Any]]:
    """Waits for so many rows of an id, and returns all of them."""
    sql = f"SELECT * FROM inferences WHERE request_id = '{sent.id}'"
    eventually(lambda: len(rows(folder, sql)) >= count, what=f"{count} rows")
    return rows(folder, sql)


def called(bus: Bus, folder: Path, *words: str) -> subprocess.Popen[str]:
    """Starts a command as a person does."""
    return subprocess.Popen(
        [sys.executable, "-m", *words],
        cwd=ROOT,
        env={**os.environ, **bus.environment, "LAKE_ROOT": str(folder / "lake")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def figures(lines: Iterator[str], tag: str) -> Iterator[int]:
    """Yields how many requests of a tag each line of usage tells of."""
    for line in lines:
        told = json.loads(line)
        if told["name"] == tag:
            yield told["requests"]


def test_two_requests_under_one_id_are_answered_recorded_counted_and_proved_each_for_itself(
    bus: Bus, folder: Path
) -> None:
    tag = unique("twice")
    sent = sent_under_one_id(bus, tag)
    for each in sent:
        lay(bus, each)
    answers = {each.claim: each.completion for each in replied(bus, sent[0], 2)}
    for each, text in zip(sent, TEXTS, strict=True):
        completion = answers[claim(claimed(each.headers, each.value))]
        assert completion is not None
        assert text in completion.content
    found = stored(folder, sent[0], 2)
    assert sorted(json.loads(each["request"])["messages"][0]["content"] for each in found) == (
        sorted(TEXTS)
    )
    assert len({each["row_id"] for each in found}) == 2
    tries = f"SELECT attempt_id FROM attempts WHERE request_id = '{sent[0].id}' ORDER BY 1"
    eventually(lambda: len(rows(folder, tries)) == 2, what="a row of each try")
    assert [each["attempt_id"] for each in rows(folder, tries)] == sorted(
        f"{each['row_id']}/0" for each in found
    )
    with called(bus, folder, "infra.usage", "--by", "tag:test", "--json") as usage:
        assert usage.stdout is not None
        assert list(figures(iter(usage.stdout), tag)) == [2]
    follow = ("--follow", "--since", "10m", "--by", "tag:test", "--json")
    with called(bus, folder, "infra.usage", *follow) as usage:
        assert usage.stdout is not None
        assert 2 in figures(iter(usage.stdout), tag)
        usage.terminate()
    with called(bus, folder, "infra.audit", "--verify", sent[0].id) as audit:
        said, wrong = audit.communicate(timeout=PATIENCE_S)
    assert (audit.returncode, wrong) == (0, "")
    assert said.count(f"alice signed request {sent[0].id}, completed at") == 2


def test_what_is_no_other_request_adds_no_row(bus: Bus, folder: Path) -> None:
    sent, moved, last = (sealed(bus, ask()) for _ in range(3))
    lay(bus, sent)
    # A copy, and a record that was put home twice, since a process ended amid moving it.
    lay(bus, sent)
    twice = [*moved.headers, (MOVED, b"3/17")]
    lay(bus, moved, headers=twice)
    lay(bus, moved, headers=twice)
    assert {str(reason(each)) for each in replied(bus, sent, 2)} == {"None", "SIGNATURE_REPLAYED"}
    lay(bus, last)
    replied(bus, last)
    for each in (sent, moved, last):
        stored(folder, each, 1)
    # Their row lies on the log again, as if whoever recorded it had ended before it was settled.
    again = [each for each in bus.events(INFERENCE_RECORDED) if each.request_id == sent.id]
    bus.send(INFERENCE_RECORDED, *again)
    eventually(lambda: bus.lag("recorder", INFERENCE_RECORDED.name) == 0, what="the commit")
    for each in (sent, moved):
        assert len(stored(folder, each, 1)) == 1
