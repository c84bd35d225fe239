"""The README's client examples, run as they stand against the session's stack."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from infra.bootstrap import ROOT
from tests.harness import Bus

pytestmark = [pytest.mark.stack, pytest.mark.usefixtures("gateway", "echo")]

EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
# The tests' own names for what the local stack calls otherwise.
NAMES = {
    '"demo"': '"client"',
    "main.default.smollm2": "main.tests.echo",
    "main.default.nowhere": "main.tests.nowhere",
}


def run(bus: Bus, example: str) -> str:
    places = {
        "127.0.0.1:19092": bus.kafka.bootstrap_servers,
        "http://127.0.0.1:18081/apis/ccompat/v7": bus.registry_settings.url,
    }
    for ours, theirs in {**NAMES, **places}.items():
        example = example.replace(ours, theirs)
    # Where it stands when it takes too long, it says itself.
    watched = f"import faulthandler; faulthandler.dump_traceback_later(100, exit=True)\n{example}"
    ran = subprocess.run(
        [sys.executable, "-c", watched],
        cwd=ROOT,
        env=bus.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_the_python_client_example_runs(bus: Bus) -> None:
    said = run(bus, EXAMPLES[0])
    assert "Why is the sky blue? 5" in said
    assert "Count to five." in said
    assert "ENDPOINT_UNKNOWN" in said


def test_a_client_that_uses_nothing_of_ours_is_answered(bus: Bus) -> None:
    assert not re.search(r"^(from|import) (schemas|infra|streams|workers)", EXAMPLES[1], re.M)
    said = run(bus, EXAMPLES[1])
    assert "whole: {" in said
    assert "'content': 'Why is the sky blue?'" in said
