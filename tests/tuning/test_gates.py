"""Gated MLPs in training: the same outputs and gradients, fewer kept activations, all undone after."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from foreword.prefix.base_model import BaseModel
from foreword.tuning.gates import lean_gates
from tests.tiny import ids, tiny_base

GATED = ("llama", "qwen2", "qwen3", "mistral", "gemma2", "gemma3")


def outputs_and_gradient(base: BaseModel) -> tuple[Tensor, Tensor]:
    embedded = base.model.get_input_embeddings()(ids(2, 9)).detach().requires_grad_()
    logits = base.model(inputs_embeds=embedded, use_cache=False).logits
    logits.square().mean().backward()
    assert embedded.grad is not None
    return logits.detach(), embedded.grad


def kept_values(base: BaseModel) -> int:
    """Numbers that the forward pass keeps for the backward pass, weights left out."""
    weights = {p.untyped_storage().data_ptr() for p in base.model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        embedded = base.model.get_input_embeddings()(ids(2, 9)).detach().requires_grad_()
        total = base.model(inputs_embeds=embedded, use_cache=False).logits.sum()
    total.backward()
    return sum(kept.values()) // 4


@pytest.mark.parametrize("family", GATED)
def test_outputs_and_gradients_are_the_same(family: str) -> None:
    base = tiny_base(family)
    logits, gradient = outputs_and_gradient(base)
    with lean_gates(base):
        lean_logits, lean_gradient = outputs_and_gradient(base)
    assert torch.equal(lean_logits, logits)
    torch.testing.assert_close(lean_gradient, gradient, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("family", GATED)
def test_one_activation_per_layer_is_no_longer_kept(family: str) -> None:
    base = tiny_base(family)
    plain = kept_values(base)
    with lean_gates(base):
        lean = kept_values(base)
    tokens, width, layers = 2 * 9, 64, 3
    assert plain - lean >= tokens * width * layers


def test_an_mlp_of_another_formula_is_left_alone() -> None:
    """The parts are there, but the module does something else with them."""
    base = tiny_base()
    mlp = base.model.model.layers[0].mlp
    plain = type(mlp).forward

    def doubled(x: Tensor) -> Tensor:
        return 2 * plain(mlp, x)

    object.__setattr__(mlp, "forward", doubled)
    with lean_gates(base):
        assert mlp.forward is doubled
        assert base.model.model.layers[1].mlp.__dict__["forward"] is not None


def test_leaving_the_block_gives_back_the_modules() -> None:
    base = tiny_base()
    with pytest.raises(RuntimeError, match="stop"), lean_gates(base):
        raise RuntimeError("stop")
    assert not any("forward" in vars(module) for module in base.model.modules())
