"""The README's client examples, run as they stand against the session's stack.

Their tenant is one whose requests must be signed.
"""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from pathlib import Path

import pytest

from infra.bootstrap import ROOT
from infra.signing import Signer, generate
from tests.broker.speaking import teach
from tests.harness import Bus
from tests.seed import changes

pytestmark = [pytest.mark.stack, pytest.mark.usefixtures("gateway", "echo")]

EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
# The tests' own names for what the local stack calls otherwise.
NAMES = {
    '"demo"': '"reader"',
    "main.default.smollm2": "main.tests.echo",
    "main.default.nowhere": "main.tests.nowhere",
}


@pytest.fixture(scope="module")
def key_file(bus: Bus, folder: Path) -> Path:
    """The private key of a service principal of the examples' tenant."""
    pem = generate()
    public_key = base64.b64encode(Signer(pem).public_key).decode()
    principal = {"kind": "service_principal", "name": "runner", "spec": {"tenant": "reader"}}
    made = changes(
        [
            {"kind": "tenant", "name": "reader"},
            {**principal, "keys": [{"public_key": public_key}]},
        ]
    )
    teach(bus, *made)
    file = folder / "runner.pem"
    file.write_text(pem)
    return file


def run(bus: Bus, key_file: Path, example: str) -> str:
    places = {
        ".tessera/run/operator.pem": str(key_file),
        "127.0.0.1:19092": bus.kafka.bootstrap_servers,
        "http://127.0.0.1:18081/apis/ccompat/v7": bus.registry_settings.url,
    }
    for ours, theirs in {**NAMES, **places}.items():
        example = example.replace(ours, theirs)
    # Where it stands when it takes too long, it says itself.
    watched = f"import faulthandler; faulthandler.dump_traceback_later(280, exit=True)\n{example}"
    ran = subprocess.run(
        [sys.executable, "-c", watched],
        cwd=ROOT,
        env=bus.environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_the_python_client_example_runs(bus: Bus, key_file: Path) -> None:
    said = run(bus, key_file, EXAMPLES[0])
    assert "Why is the sky blue? 5" in said
    assert "Count to five." in said
    assert "ENDPOINT_UNKNOWN" in said


def test_a_client_that_uses_nothing_of_ours_is_answered(bus: Bus, key_file: Path) -> None:
    assert not re.search(r"^(from|import) (schemas|infra|streams|workers)", EXAMPLES[1], re.M)
    said = run(bus, key_file, EXAMPLES[1])
    assert "whole: {" in said
    assert "'content': 'Why is the sky blue?'" in said
