"""Groundedness: how much of an answer is said by the row's context. A proxy, by words alone.

It finds invented numbers and names, and sentences about something else. It does not see a statement
that uses the context's words to say the opposite.
"""

from __future__ import annotations

import itertools
import re

from foreword.evaluation.checks.numbers import numbers_in
from foreword.evaluation.metrics.metric import Judged, Metric, row_metric
from foreword.evaluation.metrics.words import words

_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_INSIDE = re.compile(r"(?<!^)(?<![.!?]\s)\b[^\W\d_]\w+")
"""A word of letters that does not begin a sentence."""
_CAPITALS = frozenset({"de", "lb"})
"""Languages that write every noun with a capital: there it tells no name."""
_SHORT = 3
"""Words of so many letters or less carry no claim."""


def groundedness() -> Metric:
    return row_metric(
        "groundedness",
        "mean over sentences: 0 if a number or name in it is not in the context (or input), else the "
        "share of its longer words, and of pairs of words, that are",
        _grounded,
        proxy=True,
    )


def _grounded(judged: Judged) -> float | None:
    if judged.row.context is None:
        return None
    context = f"{judged.row.context}\n{judged.row.text}"
    claims = [s for s in _SENTENCE.split(judged.answer.text.strip()) if words(s)]
    if not claims:
        return 0.0
    known = _Known(context, names=judged.row.language.split("-")[0].lower() not in _CAPITALS)
    return sum(known.supports(claim) for claim in claims) / len(claims)


class _Known:
    """What a context says, as sets."""

    def __init__(self, context: str, names: bool) -> None:
        said = words(context)
        self.words = frozenset(said)
        self.pairs = frozenset(itertools.pairwise(said))
        self.numbers = frozenset(numbers_in(context))
        self._names = names

    def supports(self, claim: str) -> float:
        names = {word.casefold() for word in _INSIDE.findall(claim) if word[0].isupper()}
        if self._names and not names <= self.words:
            return 0.0
        if not self.numbers.issuperset(numbers_in(claim)):
            return 0.0
        said = words(claim)
        longer = [word for word in said if len(word) > _SHORT] or said
        contained = sum(word in self.words for word in longer) / len(longer)
        pairs = list(itertools.pairwise(said))
        paired = sum(pair in self.pairs for pair in pairs) / len(pairs) if pairs else contained
        return max(contained, paired)
