"""The loss: cross-entropy on target tokens only, with logits computed only where there is one.

Decoder-only batches carry no padding: rows lie one after another (`prefix/packing.py`), so neither
linear layers nor the vocabulary projection spend time on tokens that teach nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foreword.errors import UnsupportedModel
from foreword.prefix.attach import Prefixes, attach
from foreword.prefix.base_model import BaseModel
from foreword.prefix.packing import Packing
from foreword.tuning.tokens import TokenRow, micro_batches
from foreword.tuning.vocabulary import plain_head, summed_cross_entropy

_IGNORE = -100


class Loss(NamedTuple):
    """Summed negative log-likelihood (natural log) and how many target tokens it covers."""

    total: Tensor
    tokens: int


def forward_backward(
    base: BaseModel, prefixes: Prefixes, rows: Sequence[TokenRow], scale: float
) -> float:
    """Loss of one micro-batch times `scale`, its gradients added up; returns the summed loss.

    Forward and backward share one attachment: gradient checkpointing runs the layers again.
    """
    with _attached(base, prefixes, rows) as inputs:
        loss = _loss(base, inputs)
        (loss.total * scale).backward()
    return float(loss.total.detach())


@torch.no_grad()
def mean_loss(
    base: BaseModel, prefix: Prefixes, rows: Sequence[TokenRow], batch_tokens: int
) -> float:
    """Mean negative log-likelihood per target token over all rows."""
    total, tokens = 0.0, 0
    for part in micro_batches(rows, batch_tokens):
        with _attached(base, prefix, part) as inputs:
            loss = _loss(base, inputs)
        total += float(loss.total)
        tokens += loss.tokens
    return total / tokens


class _Inputs(NamedTuple):
    arguments: dict[str, Tensor]
    labels: Tensor
    """Flat `[position]`; what the model should say there, or -100."""
    head: nn.Linear | None = None
    """The vocabulary projection, where logits are nothing but that."""


class _attached:
    """Attach the prefixes the way these rows need it and lay the rows out for the model."""

    def __init__(self, base: BaseModel, prefixes: Prefixes, rows: Sequence[TokenRow]) -> None:
        if base.kind == "masked":
            raise UnsupportedModel(
                f"{base.ref.architecture} is an encoder without a decoder: a prefix can attach to "
                "it, but there is no text generation to train",
                code="model.encoder_only",
            )
        packing = None
        if base.kind == "causal":
            packing = Packing.of([len(row) for row in rows], base.device)
            self._inputs = _flat(base, rows, packing)
        else:
            self._inputs = _padded(base, rows)
        self._block = attach(base, prefixes, packing=packing)

    def __enter__(self) -> _Inputs:
        self._block.__enter__()
        return self._inputs

    def __exit__(self, *error: object) -> None:
        self._block.__exit__(None, None, None)


def _flat(base: BaseModel, rows: Sequence[TokenRow], packing: Packing) -> _Inputs:
    ids = [token for row in rows for token in (*row.prompt, *row.target)]
    labels: list[int] = []
    for row in rows:
        # The last prompt token predicts the first target token; the last target token nothing.
        labels += [_IGNORE] * (len(row.prompt) - 1) + list(row.target) + [_IGNORE]
    arguments = {
        "input_ids": torch.tensor([ids], device=base.device),
        "position_ids": packing.positions(),
        "attention_mask": packing.placeholder_mask(),
    }
    labelled = torch.tensor(labels, device=base.device)
    return _Inputs(arguments, labelled, plain_head(base.model))


def _padded(base: BaseModel, rows: Sequence[TokenRow]) -> _Inputs:
    pad = base.model.config.pad_token_id or 0
    start = base.model.config.decoder_start_token_id
    source = _right_padded([row.prompt for row in rows], pad)
    answer = _right_padded([(start, *row.target[:-1]) for row in rows], pad)
    labels = _right_padded([row.target for row in rows], _IGNORE)
    mask = _right_padded([(1,) * len(row.prompt) for row in rows], 0)
    arguments = {"input_ids": source, "attention_mask": mask, "decoder_input_ids": answer}
    moved = {name: tensor.to(base.device) for name, tensor in arguments.items()}
    return _Inputs(moved, labels.flatten().to(base.device))


def _right_padded(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[fill] * (longest - len(row))] for row in rows])


def _loss(base: BaseModel, inputs: _Inputs) -> Loss:
    keep = (inputs.labels != _IGNORE).nonzero()[:, 0]
    wanted, count = inputs.labels[keep], int(keep.shape[0])
    arguments: dict[str, object] = {**inputs.arguments, "use_cache": False}
    if inputs.head is not None and not torch.is_autocast_enabled(base.device.type):
        hidden = base.model.base_model(**arguments)[0][0]
        return Loss(summed_cross_entropy(hidden[keep], inputs.head.weight, wanted), count)
    if base.kind == "causal" and _keeps_logits(base.model):
        logits = base.model(**arguments, logits_to_keep=keep).logits[0]
    else:
        logits = base.model(**arguments).logits.flatten(0, 1)[keep]
    return Loss(F.cross_entropy(logits.float(), wanted, reduction="sum"), count)


def _keeps_logits(model: torch.nn.Module) -> bool:
    return "logits_to_keep" in inspect.signature(model.forward).parameters
