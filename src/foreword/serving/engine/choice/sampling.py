"""Choose the next token of every row of a batch; no row's choice depends on its neighbours.

One argmax serves all rows. A row that asks for more (a constraint, penalties, a temperature,
log-probabilities) is copied and worked on alone: its scores fit the processor's cache, which those of
a batch do not, and tensors over the batch took three to five times longer. The order is that of
transformers: constraint, repetition penalty, presence and frequency penalties, temperature,
top-k, top-p, min-p, draw.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from foreword.serving.contract import GenerateRequest, TokenLogprob
from foreword.serving.engine.choice.filters import keep_min_p, keep_top_k, keep_top_p
from foreword.serving.engine.choice.noise import draw
from foreword.serving.engine.choice.penalties import Seen, penalize

Scores = NDArray[np.float32]
"""`[vocab]`: logits of one row, on their way to a choice."""
Mask = NDArray[np.bool_]
"""`[vocab]`: which tokens a constraint allows."""


class RowSampler:
    """What one answer's next token depends on besides its logits.

    `choose` only reads it; `accept` tells it which token the answer went on with.
    """

    def __init__(self, request: GenerateRequest, index: int) -> None:
        """`index` tells the `n` answers of a request apart: each draws numbers of its own."""
        self.sampling = request.sampling
        self.logprobs = request.logprobs
        self.index = index
        seed = request.sampling.seed
        self.seed = secrets.randbits(64) if seed is None else seed % 2**64
        self.position = 0
        """How many tokens the answer has."""
        s = request.sampling
        penalized = s.repetition_penalty != 1.0 or s.presence_penalty or s.frequency_penalty
        self.seen = Seen(request.prompt) if penalized else None
        self.plain = self.seen is None and s.temperature == 0.0
        """True if, without a constraint, the likeliest token is the choice."""

    def accept(self, token: int) -> None:
        self.position += 1
        if self.seen is not None:
            self.seen.add(token)


@dataclass(frozen=True)
class Chosen:
    """One token per row, in the order of the rows."""

    tokens: tuple[int, ...]
    logprobs: Mapping[int, TokenLogprob]
    """By row, of the rows that asked."""
    broken: frozenset[int]
    """Rows whose logits hold a NaN or a positive infinity, or leave no token allowed.

    Their token means nothing; the answer must end with an error.
    """


def choose(
    logits: Tensor, rows: Sequence[RowSampler], masks: Mapping[int, Mask] | None = None
) -> Chosen:
    """The next token of each row.

    `logits` is `[row, vocab]`, float32, and is left as it is. `masks` gives, by row, the tokens a
    constraint allows. Of equally likely tokens a row that is not drawn takes the lowest id.
    """
    masks = masks or {}
    tokens, broken = _likeliest(logits)
    for i, row in enumerate(rows):
        if i not in broken and (i in masks or not row.plain):
            chosen = _choose_one(_copy(logits[i]), row, masks.get(i))
            if chosen is None:
                broken.add(i)
            else:
                tokens[i] = chosen
    logprobs = {
        i: _logprob(_copy(logits[i]), tokens[i], row.logprobs)
        for i, row in enumerate(rows)
        if row.logprobs is not None and i not in broken
    }
    return Chosen(tuple(tokens), logprobs, frozenset(broken))


def _copy(logits: Tensor) -> Scores:
    copied: Scores = logits.cpu().numpy().copy()
    return copied


def _likeliest(logits: Tensor) -> tuple[list[int], set[int]]:
    """Per row the token of the highest logit, and the rows where that is no finite number.

    On a CPU numpy's argmax takes a tenth of the time of torch's. Both take the first of equals and
    stop at a NaN, so looking at the winner tells whether there is one.
    """
    if logits.device.type == "cpu":
        host = logits.numpy()
        best = host.argmax(axis=1)
        top = host[np.arange(len(best)), best]
    else:
        values, indices = logits.max(dim=1)
        best, top = indices.cpu().numpy(), values.cpu().numpy()
    return best.tolist(), set(np.flatnonzero(~np.isfinite(top)).tolist())


def _choose_one(scores: Scores, row: RowSampler, mask: Mask | None) -> int | None:
    """The token of one row, None if none is allowed; `scores` is overwritten."""
    if mask is not None:
        scores[~mask] = -np.inf
    if row.seen is not None:
        penalize(scores, row.seen, row.sampling)
    best = int(scores.argmax())
    if not np.isfinite(scores[best]):
        return None
    if row.sampling.temperature == 0.0:
        return best
    temper(scores, row.sampling.temperature)
    _filter(scores, row)
    return draw(scores, (row.seed, row.index, row.position))


def temper(scores: Scores, temperature: float) -> None:
    """Divide by the temperature, after moving the highest score to 0.

    Moving changes no probability, and keeps a tiny temperature from making infinities.
    """
    scores -= scores.max()
    with np.errstate(over="ignore"):  # what lies below every float is never drawn
        scores /= max(np.float32(temperature), np.finfo(np.float32).tiny)


def _filter(scores: Scores, row: RowSampler) -> None:
    if row.sampling.top_k:
        keep_top_k(scores, row.sampling.top_k)
    if row.sampling.top_p < 1.0:
        keep_top_p(scores, row.sampling.top_p)
    if row.sampling.min_p:
        keep_min_p(scores, row.sampling.min_p)


def _logprob(logits: Scores, token: int, alternatives: int) -> TokenLogprob:
    top = float(logits.max())
    total = top + float(np.log(np.exp(logits - top).sum()))
    chosen = float(logits[token]) - total
    likeliest = []
    for _ in range(min(alternatives, len(logits))):
        best = int(logits.argmax())
        likeliest.append((best, float(logits[best]) - total))
        logits[best] = -np.inf
    return TokenLogprob(token, chosen, tuple(likeliest))
