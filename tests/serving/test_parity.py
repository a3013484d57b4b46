"""Mixed batches say what PEFT says with one adapter at a time, to the token."""

from __future__ import annotations

from collections.abc import Sequence

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from foreword.artifact import Site
from foreword.prefix.base_model import BaseModel, load_base
from foreword.prefix.bases import demo_base
from foreword.prefix.kv import PrefixKV
from foreword.prefix.loading import LoadedPrefix
from foreword.prefix.observe import kv_of_tokens
from foreword.serving.contract import Sampling
from foreword.serving.engine.model.attention import Piece
from foreword.serving.engine.model.rows import RowPool
from foreword.serving.engine.model.runner import ModelRunner
from foreword.serving.engine.waiting.ledger import Ledger
from tests.serving.asking import answers, ask, engine_with, held, loaded, text
from tests.serving.prefix_samples import kv
from tests.tiny import DECODERS, tiny, tiny_base

VARIED = 5.0
"""A repetition penalty under which a random model says more than one word."""
TOLERANCE = 1e-5
"""Of float32 logits alone and mixed, relative to the largest of them."""


def under_peft(model: PreTrainedModel, prefix: PrefixKV) -> peft.PeftModel:
    """A model under PEFT, with these numbers as its prompt embedding."""
    config = peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=prefix.length)
    wrapped = peft.get_peft_model(model, config).eval()
    columns = [
        tensor.transpose(0, 1).reshape(prefix.length, -1)
        for layer in prefix.layers[Site.DECODER].values()
        for tensor in (layer.key, layer.value)
    ]
    with torch.no_grad():
        wrapped.prompt_encoder["default"].embedding.weight.copy_(torch.cat(columns, dim=1))
    return wrapped


def peft_says(
    model: PreTrainedModel,
    prefix: LoadedPrefix | None,
    prompt: Sequence[int],
    count: int,
    penalty: float = 1.0,
) -> list[int]:
    speaker = model if prefix is None else under_peft(model, prefix.kv)
    tokens = torch.tensor([list(prompt)])
    out = speaker.generate(
        input_ids=tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=count,
        do_sample=False, eos_token_id=None, pad_token_id=0, repetition_penalty=penalty,
    )  # fmt: skip
    said: list[int] = out[0, -count:].tolist()
    return said


def cast(base: BaseModel) -> list[LoadedPrefix | None]:
    """Of several lengths; the longest is shared by the engines below."""
    return [loaded(base, 1, 3), loaded(base, 2, 8), None, loaded(base, 3, 1), loaded(base, 4, 20)]


def mixed(base: BaseModel) -> list[tuple[LoadedPrefix | None, tuple[int, ...]]]:
    prefixes = cast(base)
    lengths = [9, 4, 12, 1, 7, 6, 3, 10]
    return [(prefixes[i % 5], text(n, seed=i)) for i, n in enumerate(lengths)]


def ours(
    base: BaseModel,
    asked: Sequence[tuple[LoadedPrefix | None, Sequence[int]]],
    count: int,
    penalty: float = 1.0,
) -> list[list[int]]:
    """All at once in one engine that shares prefixes of 16 or more and cuts prompts."""
    prefixes = {p.digest: p for p, _ in asked if p is not None}.values()
    engine = engine_with(base, *prefixes, share_from=16, prompt_tokens=11, kv_bytes=1 << 30)
    how = Sampling(repetition_penalty=penalty)
    return answers(engine, *(ask(t, p, max_tokens=count, sampling=how) for p, t in asked))


@pytest.mark.parametrize("penalty", [1.0, VARIED])
@pytest.mark.parametrize("family", DECODERS)
def test_a_mixed_batch_says_what_peft_says_one_at_a_time(family: str, penalty: float) -> None:
    base = tiny_base(family)
    asked = mixed(base)
    said = ours(base, asked, 10, penalty)
    expected = [peft_says(tiny(family), prefix, prompt, 10, penalty) for prefix, prompt in asked]
    assert said == expected


@pytest.mark.parametrize("family", DECODERS)
def test_the_prefix_decides_what_is_said(family: str) -> None:
    # What the test above would not see if the tiny models said the same with every prefix. The text
    # is shorter than the windows: what is far behind them, no prefix decides.
    base = tiny_base(family)
    said = ours(base, [(prefix, text(3)) for prefix in cast(base)], 10, VARIED)
    assert len({tuple(answer) for answer in said}) >= len(said) - 1


def logits(
    base: BaseModel, runner: ModelRunner, asked: Sequence[tuple[PrefixKV | None, Sequence[int]]]
) -> torch.Tensor:
    """Of every text's last token: its prompt in one step, the last token in the next."""
    pool = RowPool(runner.layers, base.dtype, base.device, Ledger(1 << 30), len(asked))
    firsts = [0 if prefix is None else prefix.length for prefix, _ in asked]
    rows = pool.reserve(64, len(asked)) or []
    for row, (prefix, _) in zip(rows, asked, strict=True):
        if prefix is not None:
            row.write_prefix(prefix)
    runs = list(zip(rows, firsts, asked, strict=True))
    runner.run([Piece(r, t[:-1], first, p, False) for r, first, (p, t) in runs])
    return runner.run([Piece(r, t[-1:], first + len(t) - 1, p, False) for r, first, (p, t) in runs])


def furthest(base: BaseModel, asked: Sequence[tuple[PrefixKV | None, Sequence[int]]]) -> float:
    """How far the logits of a mixed step are from those of each text in a step of its own."""
    runner = ModelRunner(base)
    together = logits(base, runner, asked)
    alone = torch.cat([logits(base, runner, [one]) for one in asked])
    scale = alone.abs().amax(1, keepdim=True).clamp(min=1.0)
    return float(((together - alone) / scale).abs().max())


@pytest.mark.parametrize("family", DECODERS)
def test_logits_alone_and_mixed_are_within_the_tolerance(family: str) -> None:
    base = tiny_base(family)
    prefixes = [kv(base, 1, 3), None, kv(base, 2, 8), kv(base, 3, 1)]
    asked = [(prefixes[i % 4], text(2 + i, seed=i)) for i in range(12)]
    assert furthest(base, asked) < TOLERANCE


TEXTS = (
    "You are a pirate. Answer every question like a pirate would, with curses and the sea in it.",
    "The weather report for the north of Norway in the first week of January reads as follows.",
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return fibonacci(n - 1) + ",
    "Mix flour, eggs and milk to a smooth batter, let it rest for half an hour, then heat butter.",
)
PROMPTS = ("The answer is", " and then", "\nWhat should I do next?\n", "It")


@pytest.fixture(scope="module")
def smol() -> BaseModel:
    return load_base(demo_base())


def of_text(base: BaseModel, words: str, length: int) -> LoadedPrefix:
    """The keys and values of real words: what a prefix that was trained looks like."""
    tokens = base.required_tokenizer()(words * 4, return_tensors="pt").input_ids[:, :length]
    with torch.no_grad():
        return held(kv_of_tokens(base, {"input_ids": tokens}, length), words[:16])


def spoken(base: BaseModel) -> list[tuple[LoadedPrefix | None, list[int]]]:
    lengths = (4, 11, 16, 40)
    prefixes = [of_text(base, words, m) for words, m in zip(TEXTS, lengths, strict=True)]
    tokenizer = base.required_tokenizer()
    return [
        (prefix, tokenizer(prompt).input_ids)
        for i, prefix in enumerate([*prefixes, None])
        for prompt in (PROMPTS[i % 4], PROMPTS[(i + 1) % 4])
    ]


@pytest.mark.real
def test_smollm2_says_what_peft_says_one_at_a_time(smol: BaseModel) -> None:
    asked = spoken(smol)
    said = ours(smol, asked, 12)
    model = AutoModelForCausalLM.from_pretrained(demo_base(), dtype=torch.float32).eval()
    assert said == [peft_says(model, prefix, prompt, 12) for prefix, prompt in asked]
    assert len({tuple(answer) for answer in said}) == len(said)


@pytest.mark.real
def test_smollm2_logits_alone_and_mixed_are_within_the_tolerance(smol: BaseModel) -> None:
    asked = [
        (prefix.kv if prefix is not None else None, [*prompt, 28, 260])
        for prefix, prompt in spoken(smol)
    ]
    assert furthest(smol, asked) < TOLERANCE
