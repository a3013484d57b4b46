"""The next token: parity of every processor with transformers, and independence of the batch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import generation as theirs

from foreword.serving.contract import GenerateRequest, Sampling
from foreword.serving.engine.choice import filters
from foreword.serving.engine.choice.noise import draw, gumbel
from foreword.serving.engine.choice.penalties import Seen, penalize
from foreword.serving.engine.choice.sampling import RowSampler, choose, temper

VOCAB = 1000
PROMPT = (3, 3, 7, 500)


def logits(rows: int, seed: int = 0, vocab: int = VOCAB) -> torch.Tensor:
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * 3


def row(index: int = 0, logprobs: int | None = None, **sampling: Any) -> RowSampler:
    request = GenerateRequest("r", PROMPT, sampling=Sampling(**sampling), logprobs=logprobs)
    return RowSampler(request, index)


def after(sampler: RowSampler, *tokens: int) -> RowSampler:
    for token in tokens:
        sampler.accept(token)
    return sampler


PROCESSORS: dict[str, tuple[Callable[[Any], None], Callable[[], Any]]] = {
    "temperature": (lambda s: temper(s, 0.7), lambda: theirs.TemperatureLogitsWarper(0.7)),
    "hot": (lambda s: temper(s, 3.0), lambda: theirs.TemperatureLogitsWarper(3.0)),
    "top-k": (lambda s: filters.keep_top_k(s, 50), lambda: theirs.TopKLogitsWarper(50)),
    "top-k of one": (lambda s: filters.keep_top_k(s, 1), lambda: theirs.TopKLogitsWarper(1)),
    "top-k of nearly all": (lambda s: filters.keep_top_k(s, 999), lambda: theirs.TopKLogitsWarper(999)),
    "top-k beyond all": (lambda s: filters.keep_top_k(s, 5000), lambda: theirs.TopKLogitsWarper(5000)),
    "top-p": (lambda s: filters.keep_top_p(s, 0.9), lambda: theirs.TopPLogitsWarper(0.9)),
    "top-p of one": (lambda s: filters.keep_top_p(s, 1e-6), lambda: theirs.TopPLogitsWarper(1e-6)),
    "top-p of nearly all": (lambda s: filters.keep_top_p(s, 0.9999), lambda: theirs.TopPLogitsWarper(0.9999)),
    "min-p": (lambda s: filters.keep_min_p(s, 0.05), lambda: theirs.MinPLogitsWarper(0.05)),
    "min-p of one": (lambda s: filters.keep_min_p(s, 1.0), lambda: theirs.MinPLogitsWarper(1.0)),
}  # fmt: skip


@pytest.mark.parametrize("name", PROCESSORS)
def test_a_processor_does_what_transformers_does(name: str) -> None:
    ours, make = PROCESSORS[name]
    for seed in range(20):
        raw = logits(1, seed)
        scores = (raw - raw.max())[0].numpy().copy()
        ours(scores)
        expected = make()(torch.tensor([PROMPT]), raw.clone()).softmax(1)[0]
        assert torch.allclose(torch.from_numpy(scores).softmax(0), expected, rtol=1e-4, atol=1e-7)
        assert ((torch.from_numpy(scores) > -torch.inf) == (expected > 0)).all()


def test_a_flat_distribution_keeps_as_many_as_it_needs() -> None:
    """The nucleus is then larger than any shortcut for peaked distributions."""
    scores = (np.arange(VOCAB, dtype=np.float32) - VOCAB) * 1e-4
    filters.keep_top_p(scores, 0.5)
    assert 470 < np.isfinite(scores).sum() < 500
    steep = np.arange(VOCAB, dtype=np.float32) - VOCAB + 1
    filters.keep_top_k(steep, 300)
    assert np.isfinite(steep).sum() == 300


@pytest.mark.parametrize("penalty", [1.3, 0.8])
def test_repetition_penalty_is_transformers_over_prompt_and_answer(penalty: float) -> None:
    answer, raw = (9, 9, 7), logits(1)
    seen = Seen(PROMPT)
    for token in answer:
        seen.add(token)
    scores = raw[0].numpy().copy()
    penalize(scores, seen, Sampling(repetition_penalty=penalty))
    processor = theirs.RepetitionPenaltyLogitsProcessor(penalty)
    expected = processor(torch.tensor([PROMPT + answer]), raw.clone())[0]
    assert torch.equal(torch.from_numpy(scores), expected)


def test_presence_and_frequency_count_the_answer_only() -> None:
    seen, raw = Seen(PROMPT), logits(1)[0].numpy()
    scores = raw.copy()
    sampling = Sampling(presence_penalty=0.5, frequency_penalty=0.25)
    penalize(scores, seen, sampling)
    assert (scores == raw).all()
    for token in (9, 9, 7):
        seen.add(token)
    penalize(scores, seen, sampling)
    lower = {9: 0.5 + 2 * 0.25, 7: 0.5 + 0.25}
    assert {i: raw[i] - scores[i] for i in lower} == pytest.approx(lower, abs=1e-5)
    rest = np.delete(np.arange(VOCAB), list(lower))
    assert (scores[rest] == raw[rest]).all()


def test_greedy_takes_the_lowest_of_equals() -> None:
    raw = torch.zeros(3, VOCAB)
    raw[1, [40, 7, 900]] = 2.0
    raw[2] = -5.0
    # A negligible penalty takes the other path, which must agree.
    for rows in ([row(), row(), row()], [row(presence_penalty=1e-9)] * 3):
        assert choose(raw, rows).tokens == (0, 7, 0)


def test_logits_are_left_as_they_are() -> None:
    raw = logits(3)
    before = raw.clone()
    mask = np.zeros(VOCAB, dtype=np.bool_)
    mask[5] = True
    choose(
        raw,
        [row(repetition_penalty=2.0), row(temperature=1.0, top_k=3, logprobs=4), row()],
        {2: mask},
    )
    assert torch.equal(raw, before)


_KINDS: list[dict[str, Any]] = [
    {},
    {"temperature": 1.0},
    {"temperature": 0.8, "top_p": 0.9},
    {"temperature": 1.2, "top_k": 20, "min_p": 0.02},
    {"temperature": 1.0, "repetition_penalty": 1.2, "presence_penalty": 0.3},
    {"frequency_penalty": 0.7},
]


def test_a_row_does_not_depend_on_the_batch() -> None:
    raw = logits(24)
    rows = [after(row(i, seed=i // 3, **_KINDS[i % 6]), *range(i)) for i in range(24)]
    alone = [choose(raw[i : i + 1], [rows[i]]).tokens[0] for i in range(24)]
    shuffle = torch.Generator().manual_seed(1)
    for size in (24, 24, 7, 2):
        order = torch.randperm(24, generator=shuffle)[:size].tolist()
        assert list(choose(raw[order], [rows[i] for i in order]).tokens) == [
            alone[i] for i in order
        ]


def test_a_draw_survives_the_rounding_of_another_batch() -> None:
    """Logits of the same row differ by rounding between batches; tokens should not."""
    raw = logits(1, vocab=50_000)
    rng = torch.Generator().manual_seed(5)
    changed = 0
    for seed in range(300):
        sampler = row(temperature=1.5, seed=seed)
        near = raw + torch.randn(raw.shape, generator=rng) * 1e-5
        changed += choose(raw, [sampler]).tokens != choose(near, [sampler]).tokens
    assert changed <= 2


def test_seed_answer_and_position_each_draw_anew() -> None:
    raw = torch.zeros(1, VOCAB)
    tokens = {
        (seed, index, at): choose(raw, [after(row(index, temperature=1.0, seed=seed), *[0] * at)])
        .tokens[0]
        for seed in range(4) for index in range(4) for at in range(4)
    }  # fmt: skip
    assert len(set(tokens.values())) > 55
    again = choose(raw, [after(row(2, temperature=1.0, seed=1), 0, 0, 0)]).tokens[0]
    assert again == tokens[1, 2, 3]
    assert choose(raw, [row(temperature=1.0, seed=-1)]).tokens != (tokens[1, 0, 0],)


def test_without_a_seed_two_answers_differ() -> None:
    raw = torch.zeros(8, 50_000)
    assert len(set(choose(raw, [row(temperature=1.0) for _ in range(8)]).tokens)) > 6


def test_the_numbers_never_change() -> None:
    """A seed means the same tokens in the next release too."""
    assert gumbel((1, 2, 3), 4).tolist() == pytest.approx(
        [-0.6858337622251237, -0.39920842065106593, -0.31159905688096295, 1.7260834145833082]
    )


@pytest.mark.parametrize("vocab", [1, 2, 11, 16])
def test_draws_follow_the_distribution(vocab: int) -> None:
    scores = np.linspace(-3, 0, vocab, dtype=np.float32)
    if vocab > 8:
        scores[:4] = -np.inf  # a whole block and more
    expected = torch.from_numpy(scores).softmax(0).tolist()
    draws = 20_000
    found = Counter(draw(scores, (7, 0, at)) for at in range(draws))
    for token, p in enumerate(expected):
        assert abs(found[token] - draws * p) <= 4.5 * math.sqrt(draws * p * (1 - p)) + 1e-9


def test_tiny_temperature_is_greedy_and_huge_penalties_stay_finite() -> None:
    raw = logits(1) * 1e4
    best = choose(raw, [row()]).tokens
    assert choose(raw, [row(temperature=1e-45, seed=1)]).tokens == best
    assert choose(raw, [row(temperature=1e-6, top_p=0.9, min_p=0.1, seed=1)]).tokens == best
    assert not choose(raw, [after(row(repetition_penalty=100.0), 1)]).broken


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("sampling", _KINDS)
def test_broken_logits_break_their_own_row_only(bad: float, sampling: dict[str, Any]) -> None:
    raw = logits(3)
    good = choose(raw, [row(), row(), row()]).tokens
    raw[1, 17] = bad
    chosen = choose(raw, [row(), row(logprobs=2, **sampling), row()])
    assert chosen.broken == {1}
    assert (chosen.tokens[0], chosen.tokens[2]) == (good[0], good[2])
    assert not chosen.logprobs


def test_a_mask_binds_greedy_and_drawn_rows_and_an_empty_one_breaks_its_row() -> None:
    raw = logits(4)
    allowed = np.zeros(VOCAB, dtype=np.bool_)
    allowed[[11, 12]] = True
    rows = [row(), row(temperature=5.0), row(), row()]
    chosen = choose(raw, rows, {0: allowed, 1: allowed, 2: np.zeros_like(allowed)})
    assert chosen.tokens[0] == 11 + int(raw[0, 12] > raw[0, 11])
    assert chosen.tokens[1] in (11, 12)
    assert chosen.broken == {2}
    assert chosen.tokens[3] == int(raw[3].argmax())


def test_log_probabilities_are_the_models_own() -> None:
    raw = logits(2)
    rows = [row(logprobs=3, temperature=2.0, top_k=5, repetition_penalty=3.0), row()]
    chosen = choose(raw, rows)
    assert set(chosen.logprobs) == {0}
    found, expected = chosen.logprobs[0], raw[0].log_softmax(0)
    assert found.token == chosen.tokens[0]
    assert found.logprob == pytest.approx(float(expected[found.token]), abs=1e-4)
    top = expected.topk(3)
    assert [i for i, _ in found.alternatives] == top.indices.tolist()
    assert [p for _, p in found.alternatives] == pytest.approx(top.values.tolist(), abs=1e-4)
    assert choose(raw[:1], [row(logprobs=0)]).logprobs[0].alternatives == ()


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.floats(0.01, 0.99))
def test_top_p_keeps_the_smallest_set_whatever_the_ties(levels: list[int], p: float) -> None:
    scores = np.array(levels, dtype=np.float32) - max(levels)
    weights = np.exp(scores.astype(np.float64)) / np.exp(scores.astype(np.float64)).sum()
    filters.keep_top_p(scores, p)
    kept = np.isfinite(scores)
    assert weights[kept].sum() >= p - 1e-6
    least = weights[kept].min()
    assert weights[weights > least * (1 + 1e-9)].sum() < p + 1e-6
    assert kept[weights >= least * (1 - 1e-9)].all()
