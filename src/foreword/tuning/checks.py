"""Checks that keep a useless artifact from being written, each a sentence for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from foreword.artifact import Site
from foreword.errors import TrainingError
from foreword.prefix.attach import attach
from foreword.prefix.base_model import BaseModel
from foreword.prefix.kv import PrefixKV
from foreword.prefix.observe import AttentionShare, observing
from foreword.tuning.encoders import Encoder
from foreword.tuning.objective import mean_loss
from foreword.tuning.tokens import TokenRow

_PARITY = 1e-4
"""Largest relative difference of held-out loss between the trained module and the export."""
_LEAST_DIVERGENCE = 1e-3
"""Mean KL(prefix || base) in nats per token below which the prefix has no effect to speak of."""
_CROWDED = 0.5
_SAMPLE = 32


@dataclass(frozen=True)
class Outcome:
    """What was measured on held-out rows after training."""

    held_out: float
    """Mean loss per target token with the exported prefix."""
    frozen: float
    """The same for the frozen model."""
    divergence: float
    """Mean KL(with prefix || frozen) over target positions, nats per token."""
    parity: float
    """Relative difference in held-out loss between the trained module and its export."""
    attention: Mapping[Site, Mapping[int, float]]
    """Share of attention that falls on the prefix, per site and layer."""
    warnings: tuple[str, ...]
    trained: float | None = None
    """Mean loss per target token on rows it was trained on; None if none were given."""


def require_gradients(base: BaseModel, prefix: PrefixKV) -> None:
    """After the first backward pass: every site must have felt something.

    `prefix` is the one that was attached, with its gradients retained. Single layers may stay
    silent: a sliding window can have left the prefix behind before the first target token.

    Raises:
        TrainingError: a site got no gradient, so training it would do nothing, silently.
    """
    felt = {
        site: any(
            tensor.grad is not None and bool(tensor.grad.abs().sum() > 0)
            for layer in layers.values()
            for tensor in (layer.key, layer.value)
        )
        for site, layers in prefix.layers.items()
    }
    silent = [site for site, reached in felt.items() if not reached]
    if silent:
        raise TrainingError(
            f"no gradient reaches the {' and '.join(silent)} prefix of {base.ref.architecture}; it "
            "would not be trained there",
            code="training.no_gradient",
        )


def judge(
    base: BaseModel,
    encoder: Encoder,
    exported: PrefixKV,
    rows: Sequence[TokenRow],
    frozen_loss: float,
    batch_tokens: int,
    trained_on: Sequence[TokenRow] = (),
) -> Outcome:
    """Measure the exported prefix on held-out rows, and on some it was trained on.

    Raises:
        TrainingError: the prefix is not finite, has no effect, is no better than the frozen model,
            or does not behave as the module it came from.
    """
    if not exported.is_finite():
        raise TrainingError("the prefix has values that are not finite", code="training.not_finite")
    with torch.no_grad():
        trained_loss = mean_loss(base, encoder(), rows, batch_tokens)
    held_out = mean_loss(base, exported, rows, batch_tokens)
    parity = abs(held_out - trained_loss) / max(trained_loss, 1e-6)
    sample = rows[:_SAMPLE]
    divergence = _divergence(base, exported, sample)
    attention = _attention(base, exported, sample, batch_tokens)
    outcome = Outcome(
        held_out,
        frozen_loss,
        divergence,
        parity,
        attention,
        tuple(_crowded(attention)),
        mean_loss(base, exported, trained_on, batch_tokens) if trained_on else None,
    )
    _require_useful(outcome, exported)
    return outcome


def _require_useful(outcome: Outcome, exported: PrefixKV) -> None:
    # A prefix stored in 16 bits may differ from its float32 module by rounding.
    allowed = _PARITY if exported.dtype == torch.float32 else 2e-2
    if outcome.parity > allowed:
        raise TrainingError(
            f"the exported prefix gives another held-out loss than the trained module "
            f"({outcome.parity:.1e} relative, allowed {allowed:.0e}); nothing was written",
            code="training.export_parity",
        )
    if outcome.divergence < _LEAST_DIVERGENCE:
        raise TrainingError(
            f"the prefix hardly changes the model's answers (KL {outcome.divergence:.1e} nats per "
            "token); train longer, raise train.lr, or check that targets depend on inputs",
            code="training.no_effect",
        )
    if outcome.held_out >= outcome.frozen:
        raise TrainingError(
            f"the held-out loss is {outcome.held_out:.3f}, the frozen model's is "
            f"{outcome.frozen:.3f}: the prefix is no better than none; lower train.lr, give more "
            "rows, or look at the report's samples",
            code="training.did_not_learn",
        )


@torch.no_grad()
def _divergence(base: BaseModel, prefix: PrefixKV, rows: Sequence[TokenRow]) -> float:
    """Mean KL(with prefix || without) at the positions that predict a target token."""
    total, count = 0.0, 0
    for row in rows:
        inputs, first = _inputs(base, row)
        with attach(base, prefix):
            ours = F.log_softmax(base.model(**inputs).logits[0, first:].float(), dim=-1)
        theirs = F.log_softmax(base.model(**inputs).logits[0, first:].float(), dim=-1)
        total += float(F.kl_div(theirs, ours, log_target=True, reduction="sum"))
        count += ours.shape[0]
    return total / count


def _inputs(base: BaseModel, row: TokenRow) -> tuple[dict[str, torch.Tensor], int]:
    """One row as the model reads it, and the first position that predicts a target token."""
    if base.kind == "causal":
        ids = torch.tensor([[*row.prompt, *row.target[:-1]]], device=base.device)
        return {"input_ids": ids}, len(row.prompt) - 1
    start = base.model.config.decoder_start_token_id
    return {
        "input_ids": torch.tensor([row.prompt], device=base.device),
        "decoder_input_ids": torch.tensor([[start, *row.target[:-1]]], device=base.device),
    }, 0


def _attention(
    base: BaseModel, prefix: PrefixKV, rows: Sequence[TokenRow], batch_tokens: int
) -> dict[Site, dict[int, float]]:
    share = AttentionShare()
    with observing(base, share):
        for row in rows:
            mean_loss(base, prefix, [row], batch_tokens)
    return share.result()


def _crowded(attention: Mapping[Site, Mapping[int, float]]) -> list[str]:
    """One warning per site whose layers spend more attention on the prefix than on the text."""
    warnings = []
    for site, layers in attention.items():
        over = [index for index, share in layers.items() if share > _CROWDED]
        if over:
            warnings.append(
                f"{site}: in {len(over)} of {len(layers)} layers more than half of the attention "
                f"falls on the prefix (layers {', '.join(map(str, over))}); some of it is the "
                "model's attention sink, which moves to the first virtual token; if answers ignore "
                "their input, use a shorter prefix or fewer layers"
            )
    return warnings
