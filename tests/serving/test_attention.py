"""A step's logits are those of one forward pass, however texts and prefixes lie in the rows."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from foreword.artifact import Site
from foreword.errors import UnsupportedModel
from foreword.prefix.base_model import BaseModel
from foreword.prefix.kv import PrefixKV
from foreword.serving.engine.model.attention import Piece
from foreword.serving.engine.model.rows import Row, RowPool
from foreword.serving.engine.model.runner import ModelRunner
from foreword.serving.engine.waiting.ledger import Ledger
from tests.serving.asking import logits_of, text
from tests.serving.prefix_samples import kv
from tests.tiny import DECODERS, WINDOW, WINDOWED, tiny, tiny_base

LEAN = ("llama", "mistral", "qwen2", "qwen3")
WAYS = [
    (family, lean, compiled)
    for lean, families in ((False, DECODERS), (True, LEAN))
    for family in families
    for compiled in (True, False)
]
TOLERANCE = 1e-5
"""Of float32 logits, relative to the largest of them."""


@cache
def runner_of(family: str, lean: bool, compiled: bool) -> tuple[BaseModel, ModelRunner]:
    base = tiny_base(family)
    return base, ModelRunner(base, lean=lean, compiled=compiled)


def pool_of(base: BaseModel, runner: ModelRunner) -> RowPool:
    return RowPool(runner.layers, base.dtype, base.device, Ledger(64 << 20), 16)


def without(prefix: PrefixKV, *layers: int) -> PrefixKV:
    kept = {i: kv for i, kv in prefix.layers[Site.DECODER].items() if i not in layers}
    return PrefixKV(prefix.length, {Site.DECODER: kept})


@dataclass
class Text:
    """A text on its way through the engine, and where it is."""

    tokens: tuple[int, ...]
    prefix: PrefixKV | None = None
    shared: bool = False
    row: Row | None = None
    done: int = 0

    def enter(self, pool: RowPool) -> None:
        [self.row] = pool.reserve(64, 1) or []
        if self.prefix is not None and not self.shared:
            self.row.write_prefix(self.prefix)

    def piece(self, count: int) -> Piece:
        """The next `count` tokens."""
        first = 0 if self.prefix is None or self.shared else self.prefix.length
        tokens = self.tokens[self.done : self.done + count]
        assert self.row is not None
        piece = Piece(self.row, tokens, first + self.done, self.prefix, self.shared)
        self.done += len(tokens)
        return piece


def off(base: BaseModel, found: Tensor, run: Text) -> float:
    """Relative distance from the model's own forward pass."""
    expected = logits_of(base, run.prefix, run.tokens[: run.done])[-1]
    return float((found - expected).abs().max() / max(1.0, float(expected.abs().max())))


def mixed(base: BaseModel) -> list[Text]:
    """No prefix, copied and shared ones, some in a few layers only, some longer than a window."""
    long, partial = kv(base, 1, 9), without(kv(base, 2, 7), 1)
    return [
        Text(text(9, 1), kv(base, 3, 5)),
        Text(text(4, 2)),
        Text(text(6, 3), partial),
        Text(text(12, 4), long, shared=True),
        Text(text(5, 5), long, shared=True),
        Text(text(7, 6), partial, shared=True),
        Text(text(8, 7), kv(base, 4, 1)),
        Text(text(3, 8), without(kv(base, 5, 3), 0, 2)),
    ]


def steps(texts: Sequence[Text], rng: random.Random) -> Iterator[list[tuple[Text, Piece]]]:
    """Some of the texts, in any order, a few tokens of each, until all are through."""
    while going := [each for each in texts if each.done < len(each.tokens)]:
        chosen = rng.sample(going, rng.randint(1, len(going)))
        yield [(each, each.piece(rng.choice([1, 1, 2, 5]))) for each in chosen]


def worst(base: BaseModel, runner: ModelRunner, texts: Sequence[Text], rng: random.Random) -> float:
    pool = pool_of(base, runner)
    for each in texts:
        each.enter(pool)
    return max(
        off(base, found, each)
        for step in steps(texts, rng)
        for found, (each, _) in zip(runner.run([p for _, p in step]), step, strict=True)
    )


@pytest.mark.parametrize(("family", "lean", "compiled"), WAYS)
def test_every_mixture_of_rows_gives_the_logits_of_each_alone(
    family: str, lean: bool, compiled: bool
) -> None:
    base, runner = runner_of(family, lean, compiled)
    assert runner.name == ("lean" if lean else "modules")
    assert worst(base, runner, mixed(base), random.Random(1)) < TOLERANCE


@pytest.mark.parametrize("family", LEAN)
@pytest.mark.parametrize("compiled", [True, False])
def test_norms_weigh_and_floor_as_the_model_says(family: str, compiled: bool) -> None:
    """A new model's norms all have weight one, under which a weight that got lost is not missed."""
    model = tiny(family)
    for name, module in model.named_modules():
        if hasattr(module, "variance_epsilon"):
            torch.nn.init.uniform_(module.weight, 0.3, 1.7)
            module.variance_epsilon = 0.05 * (1 + len(name))
    base = BaseModel.from_model(model)
    runner = ModelRunner(base, pack=compiled, compiled=compiled)
    assert worst(base, runner, mixed(base), random.Random(5)) < TOLERANCE


@pytest.mark.parametrize("family", ["llama", "gemma2"])
@settings(max_examples=12)
@given(seed=st.integers(0, 2**32))
def test_it_does_not_matter_how_texts_are_cut_and_mixed(family: str, seed: int) -> None:
    base, runner = runner_of(family, family in LEAN, True)
    rng = random.Random(seed)
    texts = rng.sample(mixed(base), 4)
    assert worst(base, runner, texts, rng) < TOLERANCE


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_rows_that_share_a_long_prefix_see_it_and_their_own_text(
    family: str, compiled: bool
) -> None:
    base, runner = runner_of(family, family in LEAN, compiled)
    long, other = kv(base, 1, 40), kv(base, 2, 33)
    texts = [Text(text(6 + i, i), long, shared=True) for i in range(5)]
    texts += [Text(text(8, 9), other, shared=True), Text(text(8, 9), long), Text(text(8, 9))]
    assert worst(base, runner, texts, random.Random(2)) < TOLERANCE


@pytest.mark.parametrize("family", WINDOWED)
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("compiled", [True, False])
def test_a_window_slides_past_a_prefix_and_past_the_text(
    family: str, shared: bool, compiled: bool
) -> None:
    base, runner = runner_of(family, family in LEAN, compiled)
    lengths = (1, WINDOW - 1, WINDOW, WINDOW + 1, 3 * WINDOW)
    texts = [Text(text(4 * WINDOW, m), kv(base, m, m), shared) for m in lengths]
    assert worst(base, runner, texts, random.Random(3)) < TOLERANCE


@pytest.mark.parametrize("family", ["llama", "gemma2", "opt"])
@pytest.mark.parametrize("compiled", [True, False])
def test_what_an_earlier_request_left_in_a_row_is_not_seen(family: str, compiled: bool) -> None:
    base, runner = runner_of(family, family in LEAN, compiled)
    pool = pool_of(base, runner)
    rows = pool.reserve(64, 8) or []
    for tensor in (*pool.arenas[64].keys, *pool.arenas[64].values):
        tensor.fill_(1e4)
    for row in rows:
        pool.release(row)
    texts = mixed(base)
    for each in texts:
        each.enter(pool)
    for each, found in zip(texts, runner.run([t.piece(3) for t in texts]), strict=True):
        assert off(base, found, each) < TOLERANCE
    for each, found in zip(texts[:2], runner.run([t.piece(1) for t in texts[:2]]), strict=True):
        assert off(base, found, each) < TOLERANCE


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near_the_forward_pass(family: str, dtype: torch.dtype) -> None:
    base = BaseModel.from_model(tiny(family).to(dtype))
    runner = ModelRunner(base)
    texts = [
        Text(each.tokens, each.prefix.to(dtype=dtype) if each.prefix else None, each.shared)
        for each in mixed(base)
    ]
    assert worst(base, runner, texts, random.Random(4)) < 30 * torch.finfo(dtype).eps


def test_the_model_itself_is_as_it_was_after_a_step() -> None:
    for family in ("llama", "gpt2"):
        base = tiny_base(family)
        tokens = torch.tensor([text(9)])
        with torch.no_grad():
            before = base.model(tokens).logits
            runner = ModelRunner(base)
            run = Text(text(5), kv(base, 1))
            run.enter(pool_of(base, runner))
            runner.run([run.piece(5)])
            assert torch.equal(base.model(tokens).logits, before)
        assert base.hub.step is None


def random_model(config: transformers.PreTrainedConfig) -> transformers.PreTrainedModel:
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


SIZES = {
    "vocab_size": 128, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 32, "pad_token_id": 0,
    "max_position_embeddings": 64, "num_local_experts": 2, "num_experts_per_tok": 1,
}  # fmt: skip


def test_attention_that_the_engine_does_not_know_is_refused_by_name() -> None:
    sinks = transformers.GptOssConfig(**SIZES)
    with pytest.raises(UnsupportedModel, match="s_aux") as caught:
        ModelRunner(BaseModel.from_model(random_model(sinks)))
    assert caught.value.code == "engine.attention"


def test_attention_in_chunks_is_refused_though_short_texts_look_right() -> None:
    # Its layers are told of the chunks by the mask alone, which a step does not use.
    chunked = transformers.Llama4TextConfig(
        **SIZES, attention_chunk_size=16, intermediate_size_mlp=32
    )
    with pytest.raises(UnsupportedModel, match="chunked_attention") as caught:
        ModelRunner(BaseModel.from_model(random_model(chunked)))
    assert caught.value.code == "engine.attention"


@pytest.mark.parametrize("family", ["bart", "bert"])
def test_what_is_no_decoder_is_refused(family: str) -> None:
    with pytest.raises(UnsupportedModel) as caught:
        ModelRunner(tiny_base(family))
    assert caught.value.code == "engine.not_a_decoder"


def test_a_step_that_is_not_the_models_own_pass_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = tiny_base("llama")
    monkeypatch.setattr(base.model, "forward", tiny("llama", seed=1).forward)
    with pytest.raises(UnsupportedModel) as caught:
        ModelRunner(base)
    assert caught.value.code == "engine.self_check"
