"""What the READMEs show works as it stands there."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from infra.bootstrap import ROOT
from infra.settings import InferenceSettings
from infra.stack.processes import SEED
from schemas.agents import Definition
from schemas.avro import AVSC, whole
from schemas.events import EVENTS, RequestCancelled
from schemas.generate import render
from schemas.topics import INFERENCE_REQUESTED, REQUEST_CANCELLED
from streams.agents.definition import resolve
from tests.seed import documents, view_of
from tests.unit.asking import NOON, VIEW, ask
from workers import __main__ as entry


def example(folder: str, language: str) -> str:
    readme = (ROOT / folder / "README.md").read_text()
    [found] = re.findall(rf"```{language}\n(.*?)```", readme, re.S)
    return str(found)


def test_the_event_of_the_schemas_readme_is_one(tmp_path: Path) -> None:
    folder = tmp_path / "avsc"
    shutil.copytree(AVSC, folder)
    text = example("schemas", "json")
    (folder / "tool_returned_v1.avsc").write_text(text)
    events: dict[str, Any] = {"__name__": "schemas.events"}
    exec(compile(render(folder), "events.py", "exec"), events)
    kind = events["ToolReturned"]
    assert json.loads(text)["namespace"] + ".ToolReturned" == kind.SCHEMA
    assert set(events["EVENTS"]) == {*EVENTS, kind.SCHEMA}
    event = kind(call_id="call", result="{}")
    assert kind.from_avro(event.to_avro()) == event
    assert event.elapsed_ms == 0
    assert whole(kind.SCHEMA, folder)["name"] == "ToolReturned"


def test_another_model_is_asked_for_under_the_name_that_its_worker_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = (ROOT / "README.md").read_text()
    *_, shown = re.findall(r"```yaml\n(.*?)```", readme, re.S)
    catalog = tmp_path / "mine.yaml"
    catalog.write_text(shown)
    [(words, endpoint)] = re.findall(r"python -m workers (.*)\n.*--endpoint (\S+)", readme)
    [route] = view_of(documents(catalog)).endpoints[endpoint].routes
    served: list[InferenceSettings] = []

    async def inference(settings: InferenceSettings) -> None:
        served.append(settings)

    monkeypatch.setattr(entry, "inference", inference)
    monkeypatch.setattr(entry, "configure", lambda name, settings: None)
    monkeypatch.setattr(sys, "argv", ["workers", *words.split()])
    assert entry.main() == 0
    [settings] = served
    assert (settings.pool, settings.model_name) == (route.pool, route.model)


def test_the_agent_of_the_readme_can_run(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    [shown] = [each for each in re.findall(r"```yaml\n(.*?)```", readme, re.S) if "agent" in each]
    file = tmp_path / "clerk.yaml"
    file.write_text(shown)
    view = view_of([*documents(SEED), *documents(file)])
    [(name, spec)] = view.agents.items()
    found = resolve(name, spec, view)
    assert isinstance(found, Definition)
    assert {each.target for each in found.tools.values() if each.approval} == set(spec.approvals)
    assert f'tessera agent run {name} "' in readme


def test_the_processor_of_the_streams_readme_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "curfew.py").write_text(example("streams", "python"))
    monkeypatch.syspath_prepend(tmp_path)
    curfew = importlib.import_module("curfew")
    night = NOON.replace(hour=3)
    request = replace(ask(), deadline=night + timedelta(minutes=1))
    assert list(curfew.close_at_night(request, VIEW, NOON)) == []
    cancelled = RequestCancelled(
        request_id=request.request_id,
        tenant=request.tenant,
        cancelled_at=night,
        deadline=request.deadline,
    )
    assert list(curfew.close_at_night(request, VIEW, night)) == [(REQUEST_CANCELLED, cancelled)]
    works = curfew.open_curfew(SimpleNamespace(name="curfew"), lambda error: None)
    assert list(works) == [INFERENCE_REQUESTED]
