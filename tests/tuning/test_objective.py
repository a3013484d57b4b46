"""Losses and gradients: padding-free, split and checkpointed steps equal the plain ones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from foreword.prefix.attach import attach
from foreword.prefix.base_model import BaseModel
from foreword.prefix.kv import PrefixKV
from foreword.tuning.encoders import Encoder, build_encoder
from foreword.tuning.memory import checkpointed
from foreword.tuning.objective import forward_backward, mean_loss
from foreword.tuning.recipe import PrefixSettings
from foreword.tuning.starts import make_start
from foreword.tuning.tokens import TokenRow, micro_batches
from tests.tiny import DECODERS, ENCODER_DECODERS, ids, tiny_base


def rows(count: int = 6) -> list[TokenRow]:
    """Rows of different lengths, some longer than the tiny sliding windows."""
    drawn = [ids(1, 7 + 2 * i, seed=i)[0].tolist() for i in range(count)]
    return [TokenRow(tuple(row[: 3 + i]), tuple(row[3 + i :])) for i, row in enumerate(drawn)]


def encoder_for(base: BaseModel, kind: str = "direct") -> Encoder:
    torch.manual_seed(0)
    settings = PrefixSettings(length=4, encoder=kind, hidden=8, init="random")
    start = make_start(base, settings, rows(), seed=0)
    encoder = build_encoder(settings, start.prefix, start.scale)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return encoder


def gradients(encoder: Encoder) -> list[Tensor]:
    found = [p.grad.clone() for p in encoder.parameters() if p.grad is not None]
    for parameter in encoder.parameters():
        parameter.grad = None
    assert found
    return found


def assert_same(left: list[Tensor], right: list[Tensor], tolerance: float) -> None:
    for a, b in zip(left, right, strict=True):
        assert (a - b).norm() <= tolerance * max(float(b.norm()), 1e-3)


def one_at_a_time(base: BaseModel, encoder: Encoder) -> float:
    """The plainest computation: one row, all logits, transformers' own layout."""
    total = 0.0
    for row in rows():
        tokens = torch.tensor([[*row.prompt, *row.target]])
        with attach(base, encoder()):
            logits = base.model(input_ids=tokens, use_cache=False).logits[0]
            first = len(row.prompt) - 1
            loss = F.cross_entropy(logits[first:-1], torch.tensor(row.target), reduction="sum")
            loss.backward()
        total += float(loss.detach())
    return total


@pytest.mark.parametrize("family", DECODERS)
def test_packed_gradients_equal_one_row_at_a_time(family: str) -> None:
    base = tiny_base(family)
    encoder = encoder_for(base)
    expected_loss = one_at_a_time(base, encoder)
    expected = gradients(encoder)
    loss = forward_backward(base, encoder(), rows(), 1.0)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert_same(gradients(encoder), expected, 1e-4)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "bart", "t5"])
@pytest.mark.parametrize("kind", ["direct", "mlp"])
def test_checkpointed_gradients_equal_plain_ones(family: str, kind: str) -> None:
    base = tiny_base(family)
    encoder = encoder_for(base, kind)
    forward_backward(base, encoder(), rows(), 1.0)
    plain = gradients(encoder)
    forwards = 0

    def count(*_: object) -> None:
        nonlocal forwards
        forwards += 1

    inner = next(m for n, m in base.model.named_modules() if n.endswith(("mlp", "fc1", "wo")))
    inner.register_forward_pre_hook(count)
    with checkpointed(base, True):
        forward_backward(base, encoder(), rows(), 1.0)
    assert forwards == 2, "the layer ran again in the backward pass"
    again = gradients(encoder)
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


@pytest.mark.parametrize("family", ["llama", "bart"])
def test_a_split_step_has_the_gradient_of_the_whole(family: str) -> None:
    base = tiny_base(family)
    encoder = encoder_for(base)
    forward_backward(base, encoder(), rows(), 0.25)
    whole = gradients(encoder)
    for part in micro_batches(rows(), 20):
        forward_backward(base, encoder(), part, 0.25)
    assert_same(gradients(encoder), whole, 1e-4)


@pytest.mark.parametrize("family", ENCODER_DECODERS)
def test_padding_does_not_change_an_encoder_decoders_loss(family: str) -> None:
    base = tiny_base(family)
    prefix = encoder_for(base)().detach()
    together = mean_loss(base, prefix, rows(), 4096)
    apart = mean_loss(base, prefix, rows(), 1)
    assert together == pytest.approx(apart, rel=1e-5)


def test_gradients_are_right_in_float64() -> None:
    # Finite differences along a random direction, in double precision.
    base = tiny_base("gpt2")
    base.model.double()
    encoder = encoder_for(base)
    double: PrefixKV = encoder().detach().to(dtype=torch.float64)
    site, index, layer = next(iter(double))
    key = layer.key.clone().requires_grad_(True)
    direction = torch.randn_like(key)

    def loss(moved: Tensor) -> Tensor:
        changed = {s: dict(layers) for s, layers in double.layers.items()}
        changed[site][index] = type(layer)(moved, layer.value)
        with attach(base, PrefixKV(double.length, changed)):
            tokens = torch.tensor([[*rows()[3].prompt, *rows()[3].target]])
            logits = base.model(input_ids=tokens, use_cache=False).logits[0, :-1]
            return F.cross_entropy(logits, tokens[0, 1:])

    loss(key).backward()
    assert key.grad is not None
    step = 1e-5
    with torch.no_grad():
        measured = (loss(key + step * direction) - loss(key - step * direction)) / (2 * step)
    assert float((key.grad * direction).sum()) == pytest.approx(float(measured), rel=1e-5)
