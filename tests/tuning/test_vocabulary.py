"""The loss without logits is the loss, and is used only where logits are a plain projection."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from foreword.tuning import vocabulary
from foreword.tuning.vocabulary import plain_head, summed_cross_entropy
from tests.tiny import tiny


@pytest.mark.parametrize("chunk", [1, 300, 1 << 22])
@pytest.mark.parametrize("scale", [1.0, 60.0])
def test_value_and_gradient_equal_the_plain_computation(
    chunk: int, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vocabulary, "_CHUNK_VALUES", chunk)
    torch.manual_seed(0)
    weight, targets = torch.randn(101, 16) * scale, torch.randint(0, 101, (37,))
    ours = torch.randn(37, 16, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_(True)
    loss = summed_cross_entropy(ours, weight, targets)
    expected = F.cross_entropy(theirs @ weight.T, targets, reduction="sum")
    (loss * 0.3).backward()
    (expected * 0.3).backward()
    assert ours.grad is not None
    assert theirs.grad is not None
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert (ours.grad - theirs.grad).norm() < 1e-5 * theirs.grad.norm()
    with torch.no_grad():
        assert summed_cross_entropy(ours, weight, targets).item() == pytest.approx(loss.item())


def test_capped_logits_take_the_plain_way() -> None:
    assert plain_head(tiny("llama")) is not None
    assert plain_head(tiny("gpt2")) is not None
    # gemma2 caps its final logits at 30; with weights this large the cap is felt.
    assert plain_head(tiny("gemma2")) is None
