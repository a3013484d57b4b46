"""Signs that an answer, or the whole set of answers, has degenerated."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

import numpy as np

from foreword.evaluation.metrics.metric import Facts, Judged, Metric, Numbers, Table, row_metric
from foreword.evaluation.metrics.words import words

_MOST_KEPT = 256
"""Different frequent answers that are counted: of all, only the most frequent one matters."""
_MOST_WORDS = 2_000
"""Looked at per answer: a repeat shows long before."""


def empty() -> Metric:
    return row_metric("empty", "the answer has no words", _empty, better="lower")


def distinct_2() -> Metric:
    return row_metric(
        "distinct_2", "different pairs of words over all pairs, within each answer", _distinct
    )


def longest_repeat() -> Metric:
    return row_metric(
        "longest_repeat",
        "the longest run of words that occurs twice in an answer, as a share of its words",
        _longest,
        better="lower",
    )


def same_answer() -> Metric:
    return Metric(
        Facts("same_answer", "lower", "the share of rows that get the most frequent answer: near 1, it "
              "says the same to everything"),
        _same,
    )  # fmt: skip


def _empty(judged: Judged) -> float:
    return float(not words(judged.answer.text))


def _distinct(judged: Judged) -> float | None:
    said = words(judged.answer.text)
    pairs = list(itertools.pairwise(said))
    return len(set(pairs)) / len(pairs) if pairs else None


def _longest(judged: Judged) -> float | None:
    said = words(judged.answer.text)[:_MOST_WORDS]
    if not said:
        return None
    # Equal beginnings of two suffixes stand next to each other when the suffixes are sorted.
    suffixes = sorted(range(len(said)), key=lambda start: said[start:])
    longest = max((_common(said, a, b) for a, b in itertools.pairwise(suffixes)), default=0)
    return longest / len(said)


def _common(said: Sequence[str], first: int, second: int) -> int:
    length = 0
    while max(first, second) + length < len(said) and (
        said[first + length] == said[second + length]
    ):
        length += 1
    return length


def _same(judged: Sequence[Judged]) -> Table | None:
    """Parts: one column per answer that occurs twice or more, and one that counts rows."""
    if not judged:
        return None
    answers = [" ".join(words(each.answer.text)) for each in judged]
    often = [answer for answer, count in Counter(answers).most_common(_MOST_KEPT) if count > 1]
    places = {answer: place for place, answer in enumerate(often)}
    parts = np.zeros((len(answers), len(often) + 1))
    parts[:, -1] = 1
    for row, answer in enumerate(answers):
        if answer in places:
            parts[row, places[answer]] = 1
    ids = tuple(each.row.id for each in judged)
    return Table(ids, parts, _most, per_row=False, exchangeable=False)


def _most(sums: Numbers) -> float:
    """Answers that occur once are not kept apart: the most frequent has at least one row."""
    return float(max(1.0, *sums[:-1]) / sums[-1]) if len(sums) > 1 else float(1 / sums[-1])
