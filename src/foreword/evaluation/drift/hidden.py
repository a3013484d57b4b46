"""Hidden states of the frozen base as vectors of texts: what the model itself sees of its inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from foreword.errors import UnsupportedModel
from foreword.evaluation.drift.window import Encoder

if TYPE_CHECKING:
    from foreword.prefix.base_model import BaseModel

_BATCH_TOKENS = 2_048
_MOST_TOKENS = 512
"""Of a text that are read."""


def hidden_states(base: BaseModel) -> Encoder:
    """The mean of the last hidden states of a text's tokens, without any prefix, as unit vectors.

    Raises:
        UnsupportedModel: the base is no decoder (`evaluation.no_decoder`).
    """
    if base.kind != "causal":
        raise UnsupportedModel(
            f"{base.ref.architecture} is no decoder; take another encoder for its inputs",
            code="evaluation.no_decoder",
        )

    def embed(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        tokenizer = base.required_tokenizer()
        most = min(_MOST_TOKENS, base.context or _MOST_TOKENS)
        ids = [tokenizer(text or " ")["input_ids"][:most] for text in texts]
        parts = [_means(base, part) for part in _batches(ids)]
        return np.concatenate(parts)

    return Encoder(f"hidden states of {base.ref.fingerprint}/1", embed)


def _batches(rows: Sequence[Sequence[int]]) -> Iterator[list[Sequence[int]]]:
    part: list[Sequence[int]] = []
    size = 0
    for row in rows:
        if part and size + len(row) > _BATCH_TOKENS:
            yield part
            part, size = [], 0
        part.append(row)
        size += len(row)
    if part:
        yield part


def _means(base: BaseModel, rows: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
    import torch

    from foreword.prefix.attach import attach
    from foreword.prefix.packing import Packing

    lengths = [len(row) for row in rows]
    packing = Packing.of(lengths, base.device)
    arguments: dict[str, Any] = {
        "input_ids": torch.tensor([[token for row in rows for token in row]], device=base.device),
        "position_ids": packing.positions(),
        "attention_mask": packing.placeholder_mask(),
        "use_cache": False,
    }
    with torch.inference_mode(), attach(base, None, packing=packing):
        # Without the head: nobody asks for a logit of each word of the vocabulary here.
        states = base.model.base_model(**arguments).last_hidden_state[0].float()
        means = torch.stack([part.mean(0) for part in states.split(lengths)])
        unit = torch.nn.functional.normalize(means, dim=-1)
    return np.asarray(unit.cpu().numpy(), dtype=np.float32)
