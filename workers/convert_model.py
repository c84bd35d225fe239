"""Turns the GGUF file of a model package into a Hugging Face folder, which vLLM can serve.

    python workers/convert_model.py PACKAGE TARGET

Runs once, in the worker environment, in a process of its own: it takes about a minute and 2.2 GB.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM


def convert(package: str, target: Path) -> None:
    """Write config, tokenizer and float32 weights to ``target``.

    Raises:
        FileNotFoundError: the package is not installed or carries no GGUF file.
    """
    gguf = _gguf(package)
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    read = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    # A fresh model without the quantisation that the file was read from; the weights are plain.
    config = read.config.to_dict()
    config.pop("quantization_config", None)
    model = LlamaForCausalLM(LlamaConfig.from_dict(config))
    model.load_state_dict(read.state_dict())
    model.tie_weights()
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def _gguf(package: str) -> Path:
    # Found, not imported: importing it would load a runtime that is left out on purpose.
    spec = find_spec(package)
    folders = list(spec.submodule_search_locations or []) if spec else []
    if not folders and spec is not None and spec.origin:
        folders = [str(Path(spec.origin).parent)]
    for folder in folders:
        for found in sorted(Path(folder).rglob("*.gguf")):
            return found
    raise FileNotFoundError(f"{package} is not installed here or carries no GGUF file")


if __name__ == "__main__":
    convert(sys.argv[1], Path(sys.argv[2]))
