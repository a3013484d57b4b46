"""A sentence encoder as vectors for answer relevancy: any BERT-like model with mean pooling."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from foreword.errors import CompatibilityError

_BATCH = 32
_LONGEST = 512
"""Tokens of a text that are read, if the model's directory says nothing else."""


class SentenceEncoder:
    """Texts to unit vectors `[texts, d]`: the mean of the last hidden states of a text's tokens."""

    def __init__(self, directory: Path) -> None:
        """Load a directory in the layout of sentence-transformers, or of a plain encoder.

        Raises:
            CompatibilityError: it cannot be read, or pools otherwise (`encoder.*`).
        """
        from transformers import AutoModel, AutoTokenizer

        pooling = _setting(directory / "1_Pooling" / "config.json")
        if not pooling.get("pooling_mode_mean_tokens", True):
            raise CompatibilityError(
                f"{directory} does not pool by the mean of its tokens; name an encoder that does, such "
                "as all-MiniLM-L6-v2",
                code="encoder.pooling",
            )
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(directory, local_files_only=True)
            model = AutoModel.from_pretrained(
                directory, local_files_only=True, use_safetensors=True
            )
        except (OSError, ValueError) as e:
            raise CompatibilityError(
                f"{directory} cannot be read as an encoder ({str(e)[:200]}); expected config.json, "
                "safetensors and a tokenizer",
                code="encoder.unreadable",
            ) from e
        self._model: Any = model.eval()
        longest = _setting(directory / "sentence_bert_config.json").get("max_seq_length")
        self._longest = int(longest) if longest else _LONGEST
        self.name = directory.name

    def __call__(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        parts = [order[start : start + _BATCH] for start in range(0, len(order), _BATCH)]
        vectors: npt.NDArray[np.float32] | None = None
        for places in parts:
            found = self._encode([texts[place] for place in places])
            if vectors is None:
                vectors = np.zeros((len(texts), found.shape[1]), dtype=np.float32)
            vectors[places] = found
        return vectors if vectors is not None else np.zeros((0, 1), dtype=np.float32)

    def _encode(self, texts: list[str]) -> npt.NDArray[np.float32]:
        import torch

        tokens = self._tokenizer(
            texts, padding=True, truncation=True, max_length=self._longest, return_tensors="pt"
        )
        with torch.inference_mode():
            states = self._model(**tokens).last_hidden_state.float()
            mask = tokens["attention_mask"][..., None].float()
            means = (states * mask).sum(1) / mask.sum(1).clamp(min=1)
            unit = torch.nn.functional.normalize(means, dim=-1)
        return np.asarray(unit.numpy(), dtype=np.float32)


def _setting(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
