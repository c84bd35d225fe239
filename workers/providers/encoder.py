"""A sentence encoder in this process: the mean of what a model makes of each token, of length 1.

Reads a folder in the layout of sentence-transformers, without that library, and never the network.
Texts are taken as they come: what a model wants in front of a query or a document is put there by
whoever asks. What is longer than the model reads is cut at its end.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging

from workers.providers.batches import ModelUnsound, Tokens, Vector

PACKAGE = "package:"
# Texts in a batch.
MOST_OF_CPU = 8
MOST_OF_GPU = 32
DTYPES: dict[str, torch.dtype] = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
}


@dataclass(slots=True, frozen=True, kw_only=True)
class Engine:
    """How a model is run; the names are vLLM's where it has one.

    Attributes:
        device: ``cpu``, ``cuda``, ``cuda:1``; ``auto`` is the GPU where there is one.
        dtype: What it computes with.
        max_model_len: Tokens that it reads of a text; as its folder says if left out.
        max_num_seqs: Texts in a batch; if left out 8 on a CPU, which takes them as fast as it ever
            will, and 32 on a GPU.
        threads: Cores that it takes; as OMP_NUM_THREADS says, or all, if left out. Each takes a
            batch of its own: cores that share one wait for each other, a fifth of the time.
    """

    device: str = "auto"
    dtype: str = "float32"
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    threads: int | None = None


class SentenceEncoder:
    """A model and its tokenizer.

    Attributes:
        device: Where it runs.
        dimensions: Length of a vector.
        lanes: Batches that it computes at once.
        limit: Tokens that it reads of a text.
        most: Texts in a batch.
    """

    def __init__(  # noqa: PLR0917 - a model, where it runs, and how
        self, tokenizer: Any, model: Any, device: str, lanes: int, limit: int, most: int
    ) -> None:
        self._tokenizer = tokenizer
        self._model = model
        self.device = device
        self.lanes = lanes
        self.limit = limit
        self.most = most
        self.dimensions = int(model.config.hidden_size)

    def read(self, texts: Sequence[str]) -> list[Tokens]:
        """Returns the tokens of texts, each cut at the limit."""
        read = self._tokenizer(
            list(texts),
            max_length=self.limit,
            return_attention_mask=False,
            return_overflowing_tokens=True,
            return_token_type_ids=False,
            truncation=True,
        )
        # A text that is too long comes in several rows, of which the first is its beginning.
        rows: dict[int, list[list[int]]] = {}
        for text, ids in zip(read["overflow_to_sample_mapping"], read["input_ids"], strict=True):
            rows.setdefault(text, []).append(ids)
        return [Tokens(rows[at][0], cut=len(rows[at]) > 1) for at in range(len(texts))]

    def embed(self, batch: Sequence[Sequence[int]]) -> list[Vector]:
        """Returns the vectors of tokens; each has the length 1.

        Raises:
            ModelUnsound: They are no numbers.
            RuntimeError: The device failed; it has too little memory, perhaps.
        """
        width = max(map(len, batch))
        ids = torch.zeros((len(batch), width), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
        ids, mask = ids.to(self.device), mask.to(self.device)
        with torch.inference_mode():
            states = self._model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
            weights = mask.unsqueeze(-1).float()
            means = (states * weights).sum(1) / weights.sum(1)
            vectors = torch.nn.functional.normalize(means, dim=1)
            sound = bool(torch.isfinite(vectors).all())
        if not sound:
            raise ModelUnsound(
                "its vectors are no numbers: its weights are damaged, or its dtype is too narrow"
            )
        return list(map(tuple, vectors.tolist()))


def load(place: str, engine: Engine) -> SentenceEncoder:
    """Loads a model and tries it; blocks for seconds.

    Args:
        place: Its folder, or ``package:MODULE`` for one that an installed package carries.
        engine: How it is run.

    Raises:
        ModelUnsound: Its vectors are no numbers.
        ValueError: There is no such model, or it cannot be run so.
    """
    folder = _folder(place)
    if engine.dtype not in DTYPES:
        raise ValueError(f"INFERENCE_ENGINE: dtype is one of {', '.join(DTYPES)}")
    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModel.from_pretrained(folder, local_files_only=True, dtype=DTYPES[engine.dtype])
    device = _device(engine.device)
    lanes, most = _lanes(engine) if device == "cpu" else (1, MOST_OF_GPU)
    encoder = SentenceEncoder(
        tokenizer,
        model.to(device).eval(),
        device,
        lanes,
        _limit(folder, model.config, engine),
        engine.max_num_seqs or most,
    )
    encoder.embed([each.ids for each in encoder.read(["Is anybody there?"])])
    return encoder


def _lanes(engine: Engine) -> tuple[int, int]:
    """Returns how many cores compute a batch each, and how many texts are in one."""
    lanes = engine.threads or torch.get_num_threads()
    torch.set_num_threads(1)
    return lanes, MOST_OF_CPU


def _folder(place: str) -> Path:
    if place.startswith(PACKAGE):
        return _carried(place.removeprefix(PACKAGE))
    folder = Path(place)
    if not place or not (folder / "config.json").is_file():
        raise ValueError(
            "INFERENCE_MODEL names no folder with a config.json: give the model's folder, or "
            f"{PACKAGE}MODULE for one that an installed package carries"
        )
    return folder


def _carried(module: str) -> Path:
    spec = find_spec(module)
    for root in (spec.submodule_search_locations or []) if spec else []:
        for weights in sorted(Path(root).rglob("*.safetensors")):
            return weights.parent
    raise ValueError(f"INFERENCE_MODEL: no package {module} is installed that carries a model")


def _device(wanted: str) -> str:
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=wanted)
    # torch says it in many ways, none of them for whoever reads a log.
    except (AssertionError, RuntimeError) as lack:
        reason = type(lack).__name__
        raise ValueError(f"INFERENCE_ENGINE: no device {wanted} here ({reason})") from None
    return wanted


def _limit(folder: Path, config: Any, engine: Engine) -> int:
    """Returns how many tokens a model reads: what it was made for, unless told otherwise.

    Raises:
        ValueError: It has not so many places, or its vectors are made in another way than here.
    """
    pooling = _json(folder / "1_Pooling" / "config.json")
    if pooling and not pooling.get("pooling_mode_mean_tokens"):
        raise ValueError("INFERENCE_MODEL: its vectors are no means, and others are not made here")
    places = int(config.max_position_embeddings)
    said = _json(folder / "sentence_bert_config.json").get("max_seq_length")
    limit = engine.max_model_len or min(int(said or places), places)
    if not 2 < limit <= places:  # noqa: PLR2004 - the two at the ends, and one to read
        raise ValueError(f"INFERENCE_ENGINE: max_model_len lies from 3 to {places} for this model")
    return limit


def _json(path: Path) -> Mapping[str, Any]:
    return dict(json.loads(path.read_text())) if path.is_file() else {}
