"""The scorecard as one HTML file that opens offline: no script, nothing loaded, every text escaped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

from foreword.errors import UsageError
from foreword.evaluation.metrics.metric import Facts
from foreword.evaluation.metrics.suite import NOT_COMPUTED
from foreword.evaluation.scorecards.headline import WORDS, Headline, headline_of
from foreword.evaluation.scorecards.scorecard import FEW, Cell, Comparison, Scorecard
from foreword.evaluation.scorecards.slices import Slice
from foreword.evaluation.scorecards.texts import figure, harmless


@dataclass(frozen=True)
class Tile:
    """One field of the heat map."""

    text: str
    title: str
    side: str
    """`good`, `bad` or `even`: which way the candidate went."""
    strength: int
    """0 to 100: the difference beside the largest of its metric."""
    stands: bool
    """It stands after Holm's correction."""
    few: bool
    """Of so few rows that it says little."""


@dataclass(frozen=True)
class HeatMap:
    candidate: str
    against: str
    metrics: tuple[str, ...]
    rows: tuple[tuple[Slice, int, tuple[Tile | None, ...]], ...]
    """Slice, its number of rows, and a tile for each metric."""
    equal: tuple[str, ...]
    """Metrics that are the same everywhere; they have no column."""


def to_html(card: Scorecard, headline: Headline | None = None) -> str:
    """The page: verdict, values, heat maps, wins and losses, latency, what each metric is.

    Raises:
        UsageError: jinja2 is not installed (`evaluation.extra`).
    """
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as e:
        raise UsageError(
            "the HTML scorecard needs the package `jinja2`; install foreword[eval]",
            code="evaluation.extra",
        ) from e
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.filters |= {"harmless": harmless, "figure": figure}
    template = environment.from_string(
        files("foreword.evaluation.scorecards").joinpath("scorecard.html.j2").read_text("utf-8")
    )
    longest = max((latency.p95 for latency in card.latencies), default=0.0) or 1.0
    return template.render(
        card=card,
        headline=headline or headline_of(card),
        maps=[heat_map(card, *pair) for pair in card.pairs],
        bars=[
            (each, 100 * each.p50 / longest, 100 * each.p95 / longest) for each in card.latencies
        ],
        not_computed=NOT_COMPUTED,
        words=WORDS,
        few=FEW,
    )


def heat_map(card: Scorecard, candidate: str, against: str) -> HeatMap:
    """Differences of one pair, a row for each slice, a column for each metric that has a direction."""
    found = {
        (each.slice, each.metric): each
        for each in card.comparisons
        if (each.candidate, each.against) == (candidate, against)
    }
    largest: dict[str, float] = {}
    for (_, metric), each in found.items():
        largest[metric] = max(largest.get(metric, 0.0), abs(each.difference))
    directed = [f for f in card.metrics if f.better != "neither" and f.name in largest]
    shown = [facts for facts in directed if largest[facts.name]]
    values = {(cell.variant, cell.slice, cell.metric): cell for cell in card.cells}
    alpha = 1 - card.sampling.confidence
    rows = []
    for part in card.slices:
        cells = [(facts, found.get((part, facts.name))) for facts in shown]
        if any(each for _, each in cells):
            tiles = tuple(
                _tile(facts, each, values, largest[facts.name], alpha) if each else None
                for facts, each in cells
            )
            rows.append((part, max(each.n for _, each in cells if each), tiles))
    return HeatMap(
        candidate,
        against,
        tuple(facts.name for facts in shown),
        tuple(rows),
        tuple(facts.name for facts in directed if not largest[facts.name]),
    )


def _tile(
    facts: Facts,
    each: Comparison,
    values: Mapping[tuple[str, Slice, str], Cell],
    largest: float,
    alpha: float,
) -> Tile:
    gained = each.difference if facts.better == "higher" else -each.difference
    side = "even" if not gained else "good" if gained > 0 else "bad"
    interval = f"{figure(each.low, signed=True)} to {figure(each.high, signed=True)}"
    both = " against ".join(
        figure(values[name, each.slice, each.metric].value)
        for name in (each.candidate, each.against)
    )
    return Tile(
        figure(each.difference, signed=True),
        f"{facts.name}: {both}, difference {interval}, p {each.p:.3f}, by Holm {each.p_adjusted:.3f}, "
        f"n {each.n}",
        side,
        round(100 * abs(gained) / largest),
        each.p_adjusted <= alpha,
        each.n < FEW,
    )
