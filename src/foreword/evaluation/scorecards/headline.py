"""The line on top of a scorecard: a gate's verdict, or without a gate what the figures come to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from foreword.evaluation.scorecards.scorecard import Comparison, Scorecard
from foreword.evaluation.scorecards.texts import figure

Outcome = Literal["pass", "fail", "insufficient", "none"]

_TELLING = (
    "task_completion", "check_score", "accuracy", "field_f1", "bleu", "rouge_l_13a", "token_f1",
    "exact_match", "groundedness",
)  # fmt: skip


WORDS: Mapping[Outcome, str] = {
    "pass": "Pass", "fail": "Fail", "insufficient": "Not enough evidence", "none": "No gate",
}  # fmt: skip


@dataclass(frozen=True)
class RuleLine:
    """One rule of a gate as a reader sees it."""

    rule: str
    rows: str
    """The set and the slice."""
    outcome: Outcome
    value: str = ""
    interval: str = ""
    limit: str = ""
    n: str = ""
    power: str = ""


@dataclass(frozen=True)
class Headline:
    outcome: Outcome
    """`none`: no gate was asked."""
    says: str
    reasons: tuple[str, ...] = ()
    rules: tuple[RuleLine, ...] = ()


def headline_of(card: Scorecard) -> Headline:
    """What the first pair's most telling metric says; it is no verdict, as no gate was asked."""
    for candidate, against in card.pairs[:1]:
        for metric in _TELLING:
            found = card.comparison(candidate, against, metric)
            if found is not None:
                return Headline("none", _says(found, card), ("No gate was asked for a verdict.",))
    return Headline("none", f"{card.rows} rows, nothing to compare with.")


def _says(found: Comparison, card: Scorecard) -> str:
    facts = next(facts for facts in card.metrics if facts.name == found.metric)
    known = found.low > 0 or found.high < 0
    better = (found.difference > 0) == (facts.better == "higher")
    word = ("better than" if better else "worse than") if known else "not told apart from"
    return (
        f"{found.candidate} is {word} {found.against} in {found.metric}: "
        f"{figure(found.difference, signed=True)} "
        f"[{figure(found.low, signed=True)}, {figure(found.high, signed=True)}] over {found.n} rows"
    )
