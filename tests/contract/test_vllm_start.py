"""How the vLLM provider refuses to start; needs the worker environment, not a model."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from infra.bootstrap import ROOT, python_of
from infra.stack.workers import VLLM

pytestmark = [pytest.mark.model, pytest.mark.timeout(600)]


def test_an_unknown_engine_argument_is_named() -> None:
    ended = subprocess.run(
        [str(python_of("worker")), "-m", "tests.contract.provider_driver", "no-model"],
        cwd=ROOT,
        env={**os.environ, **VLLM, "INFERENCE_ENGINE": json.dumps({"dtipe": "float32"})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode != 0
    assert "vLLM has no argument dtipe" in ended.stderr
