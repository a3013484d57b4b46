"""Proof by measurement that attaching works on this very model.

The keys and values of real tokens, attached as a prefix, must give the outputs of the longer run.
A family whose positions or masks we misread fails here, before anything is trained on it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from foreword.errors import UnsupportedModel
from foreword.prefix.attach import attach
from foreword.prefix.base_model import BaseModel
from foreword.prefix.observe import kv_of_tokens
from foreword.prefix.packing import Packing

_PREFIX, _TOKENS = 4, 11


@dataclass(frozen=True)
class SelfCheck:
    """How far the outputs with a prefix are from those of the longer run, and the bound."""

    error: float
    """Largest difference of any logit, relative to the largest logit (at least 1)."""
    tolerance: float
    packed_error: float | None
    """The same for a padding-free batch of two rows; None where that does not apply."""

    @property
    def ok(self) -> bool:
        return self.error <= self.tolerance and (self.packed_error or 0.0) <= self.tolerance


def tolerance(dtype: torch.dtype) -> float:
    """Relative bound: rounding over a deep network, in float32 and in 16-bit types."""
    return 1e-4 if dtype == torch.float32 else 5e-2


@torch.no_grad()
def check_attachment(base: BaseModel) -> SelfCheck:
    """Attach captured tokens and compare with the run that really saw them."""
    ids = _tokens(base, seed=1)
    inputs = {"input_ids": ids}
    if base.kind == "seq2seq":
        inputs["decoder_input_ids"] = _tokens(base, seed=2)
    prefix = kv_of_tokens(base, inputs, _PREFIX)
    expected = base.model(**inputs).logits[:, _PREFIX:]
    rest = {name: tensor[:, _PREFIX:] for name, tensor in inputs.items()}
    with attach(base, prefix):
        got = base.model(**rest).logits
    packed = None
    if base.kind == "causal":
        packed = _packed_error(base, rest["input_ids"], expected)
    return SelfCheck(_relative(got, expected), tolerance(base.dtype), packed)


def require_attachment(base: BaseModel) -> SelfCheck:
    """`check_attachment`, as an `UnsupportedModel` error when it fails."""
    check = check_attachment(base)
    if not check.ok:
        raise UnsupportedModel(
            f"{base.ref.architecture} cannot carry a prefix yet: real tokens attached as a prefix "
            f"change its outputs by {max(check.error, check.packed_error or 0):.2g} (relative), "
            f"allowed is {check.tolerance:.0e}; please report the model's name",
            code="model.selfcheck",
        )
    return check


def _packed_error(base: BaseModel, rest: Tensor, expected: Tensor) -> float:
    """Row one has the prefix, row two has none: a mixed, padding-free batch."""
    other = _tokens(base, seed=3)[:, :5]
    prefix = kv_of_tokens(base, {"input_ids": _tokens(base, seed=1)}, _PREFIX)
    packing = Packing.of([rest.shape[1], other.shape[1]], base.device)
    with attach(base, [prefix, None], packing=packing):
        flat = base.model(
            input_ids=torch.cat([rest, other], dim=1),
            position_ids=packing.positions(),
            attention_mask=packing.placeholder_mask(),
            use_cache=False,
        ).logits
    alone = base.model(input_ids=other).logits
    return max(
        _relative(flat[:, : rest.shape[1]], expected), _relative(flat[:, rest.shape[1] :], alone)
    )


def _relative(got: Tensor, expected: Tensor) -> float:
    scale = max(1.0, float(expected.abs().max()))
    return float((got - expected).abs().max()) / scale


def _tokens(base: BaseModel, seed: int) -> Tensor:
    vocabulary = base.model.config.get_text_config(decoder=True).vocab_size
    generator = torch.Generator().manual_seed(seed)
    low = min(10, vocabulary - 1)
    return torch.randint(low, vocabulary, (1, _TOKENS), generator=generator).to(base.device)
