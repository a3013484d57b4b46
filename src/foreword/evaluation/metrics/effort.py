"""What an answer took: words, tokens, seconds."""

from __future__ import annotations

from foreword.evaluation.metrics.metric import Judged, Metric, row_metric
from foreword.evaluation.metrics.words import words


def length() -> Metric:
    return row_metric(
        "length", "words of an answer", lambda judged: float(len(words(judged.answer.text))),
        better="neither", unit="words",
    )  # fmt: skip


def tokens() -> Metric:
    return row_metric(
        "tokens", "tokens of an answer, as the engine counts them", _tokens,
        better="neither", unit="tokens",
    )  # fmt: skip


def latency() -> Metric:
    return row_metric(
        "latency",
        "seconds of an answer: of an endpoint the whole request, of the engine from the first token to "
        "the last in the batch it shared",
        lambda judged: judged.answer.seconds,
        better="lower", unit="seconds",
    )  # fmt: skip


def _tokens(judged: Judged) -> float | None:
    return None if judged.answer.tokens is None else float(judged.answer.tokens)
