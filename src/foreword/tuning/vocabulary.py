"""Cross-entropy over a large vocabulary without keeping the logits.

The vocabulary projection is frozen, so all the backward pass needs is the gradient with respect to
the hidden states, and that is known as soon as a row's logits are. Rows are taken a few at a time:
their logits, softmax and gradient live in one small buffer that is used again, instead of four
matrices of `target tokens x vocabulary`.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from foreword.prefix.discover import probe_inputs

_CHUNK_VALUES = 4 << 20
"""Values in the buffer of logits: 16 MB in float32, which the processor's caches still help with."""

_heads: WeakKeyDictionary[PreTrainedModel, nn.Linear | None] = WeakKeyDictionary()


def plain_head(model: PreTrainedModel) -> nn.Linear | None:
    """The vocabulary projection, if logits are exactly this layer of the last hidden state.

    Asked of the model by running it, because some families scale or cap their logits; None then.
    """
    if model not in _heads:
        _heads[model] = _measure_head(model)
    return _heads[model]


@torch.no_grad()
def _measure_head(model: PreTrainedModel) -> nn.Linear | None:
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Linear) or head.bias is not None or model.base_model is model:
        return None
    inputs = probe_inputs(model)
    hidden = model.base_model(**inputs, use_cache=False)[0]
    same = torch.equal(head(hidden), model(**inputs, use_cache=False).logits)
    return head if same else None


def summed_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Sum of `-log softmax(hidden @ weight.T)[target]`, natural log, in float32.

    `hidden [token, dim]`, frozen `weight [vocabulary, dim]`, `targets [token]`.
    """
    total: Tensor = _SummedCrossEntropy.apply(hidden, weight, targets)
    return total


class _SummedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        wants_gradient = ctx.needs_input_grad[0]
        rows = max(1, _CHUNK_VALUES // weight.shape[0])
        gradient = torch.empty_like(hidden) if wants_gradient else None
        buffer = hidden.new_empty(min(rows, hidden.shape[0]), weight.shape[0])
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for first in range(0, hidden.shape[0], rows):
            part = slice(first, first + rows)
            logits = buffer[: hidden[part].shape[0]]
            torch.mm(hidden[part], weight.t(), out=logits)
            wanted = targets[part, None]
            total += _log_sum_exp_in_place(logits, wanted)
            if gradient is not None:
                # What is left in the buffer is softmax; its gradient is softmax - one-hot.
                logits.scatter_add_(1, wanted, logits.new_full(wanted.shape, -1.0))
                torch.mm(logits, weight, out=gradient[part])
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream, None, None


def _log_sum_exp_in_place(logits: Tensor, wanted: Tensor) -> Tensor:
    """Summed negative log-likelihood of `wanted [row, 1]`; `logits` become their softmax."""
    picked = logits.gather(1, wanted).float()
    highest = logits.amax(dim=1, keepdim=True)
    logits.sub_(highest).exp_()
    mass = logits.sum(dim=1, keepdim=True)
    logits.div_(mass)
    return (mass.float().log() + highest.float() - picked).sum()
