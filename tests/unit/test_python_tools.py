"""Functions of language `python`, as a worker runs them."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from infra.bootstrap import ROOT
from schemas.kinds import FunctionVersionSpec
from workers.tools import Call, Checkpoint, Fault, ToolFailed
from workers.tools.python import bounds_of, open_python

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)


def call_of(source: str, deadline: datetime, arguments: dict[str, Any], **spec: Any) -> Call:
    return Call(
        call_id="run-1/0",
        function="sales.tools.total",
        version=1,
        spec=FunctionVersionSpec(language="python", source=source, **spec),
        arguments=arguments,
        tenant="acme",
        principal="ann",
        deadline=deadline,
    )


async def test_a_version_is_called_with_its_arguments_and_its_key() -> None:
    runner = await open_python(None)
    source = "def total(amounts, idempotency_key): return [sum(amounts), idempotency_key]"
    deadline = datetime.now(UTC) + timedelta(minutes=1)
    call = call_of(source, deadline, {"amounts": [1, 2]}, timeout="50s", memory_mb=32)
    assert await runner.run(call) == [3, "run-1/0"]
    await runner.close()


async def test_a_version_has_the_bounds_that_it_names() -> None:
    runner = await open_python(None)
    deadline = datetime.now(UTC) + timedelta(minutes=1)
    hungry = "def total(): return len(bytearray(64 << 20))"
    with pytest.raises(ToolFailed, match="32 MiB") as failed:
        await runner.run(call_of(hungry, deadline, {}, timeout="50s", memory_mb=32))
    assert failed.value.fault is Fault.LIMIT
    call = call_of(hungry, deadline, {}, timeout="50s", memory_mb=128)
    assert await runner.run(call) == 64 << 20


async def test_a_source_can_say_whether_an_earlier_call_had_its_effect() -> None:
    runner = await open_python(None)
    deadline = datetime.now(UTC) + timedelta(minutes=1)
    source = "def total(amounts): return 1"
    call = call_of(source, deadline, {"amounts": [1]}, timeout="50s")
    assert await runner.reconcile(call) is None
    source += """
def reconcile(amounts, idempotency_key):
    return {"done": True, "result": [amounts, idempotency_key]}
"""
    call = call_of(source, deadline, {"amounts": [1]}, timeout="50s")
    assert await runner.reconcile(call) == {"done": True, "result": [[1], "run-1/0"]}
    call = call_of("def reconcile(): raise ValueError", deadline, {}, timeout="50s")
    with pytest.raises(ToolFailed, match="ValueError"):
        await runner.reconcile(call)


async def test_a_version_and_what_says_whether_it_was_done_have_the_checkpoint_of_their_call() -> (
    None
):
    saved = []

    async def save(text: str) -> None:
        saved.append(text)

    source = """
def total(checkpoint):
    checkpoint.save([checkpoint.last, "and on"])

def reconcile(checkpoint):
    return {"done": checkpoint.last == "far"}
"""
    deadline = datetime.now(UTC) + timedelta(minutes=1)
    call = call_of(source, deadline, {}, timeout="50s")
    call = replace(call, checkpoint=Checkpoint(last='"far"', save=save))
    runner = await open_python(None)
    assert await runner.run(call) is None
    assert saved == ['["far", "and on"]']
    assert await runner.reconcile(call) == {"done": True}


async def test_a_checkpoint_that_the_parameters_name_is_an_argument_like_any_other() -> None:
    async def save(text: str) -> None:
        raise AssertionError

    parameters = {"type": "object", "properties": {"checkpoint": {"type": "string"}}}
    deadline = datetime.now(UTC) + timedelta(minutes=1)
    source = "def total(checkpoint): return checkpoint"
    call = call_of(
        source, deadline, {"checkpoint": "model-7"}, timeout="50s", parameters=parameters
    )
    runner = await open_python(None)
    call = replace(call, checkpoint=Checkpoint(last=None, save=save))
    assert await runner.run(call) == "model-7"


def test_a_call_takes_no_longer_than_its_version_says_or_than_somebody_waits() -> None:
    patient = call_of("x = 1", NOON + timedelta(hours=1), {}, timeout="1500ms", network=True)
    bounds = bounds_of(patient, NOON)
    assert (bounds.wall_s, bounds.cpu_s, bounds.network) == (1.5, 2, True)
    hurried = call_of("x = 1", NOON + timedelta(seconds=1), {}, timeout="5m")
    assert bounds_of(hurried, NOON).wall_s == 1
    with pytest.raises(ToolFailed, match="before it began"):
        bounds_of(hurried, NOON + timedelta(seconds=1))


async def test_the_example_of_the_readme_runs() -> None:
    text = (ROOT / "workers/tools/README.md").read_text()
    [example] = re.findall(r"```python\n(.*?)```", text, re.S)
    names: dict[str, Any] = {}
    exec(example, names)
    assert await names["example"]() == {"total": 5, "unit": "EUR"}
