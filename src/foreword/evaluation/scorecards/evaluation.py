"""Evaluation: the answers of a run with all that was measured on them, in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from foreword.evaluation.checks import CheckFunction
from foreword.evaluation.metrics.metric import Facts, Judged, Measured, Metric
from foreword.evaluation.metrics.suite import judged_rows, measure
from foreword.evaluation.runs.replay import Replay


@dataclass(frozen=True)
class Evaluation:
    """What a scorecard shows and a gate decides on."""

    replay: Replay
    judged: Mapping[str, Sequence[Judged]]
    """By variant's name."""
    measured: Mapping[str, Mapping[str, Measured]]
    """By variant's name, then by metric's name."""

    @property
    def facts(self) -> tuple[Facts, ...]:
        """Of every metric that some variant has, in the order they were measured."""
        found = {m.facts.name: m.facts for each in self.measured.values() for m in each.values()}
        return tuple(found.values())


def evaluate(
    replay: Replay,
    metrics: Iterable[Metric],
    *,
    functions: Mapping[str, CheckFunction] | None = None,
    extra: Mapping[str, Sequence[Measured]] | None = None,
) -> Evaluation:
    """Run the checks and measure the metrics; `extra` adds, by variant, what was measured elsewhere.

    Raises:
        UsageError: a check needs a function that was not allowed (`check.not_allowed`).
    """
    chosen = tuple(metrics)
    judged: dict[str, list[Judged]] = {}
    measured: dict[str, dict[str, Measured]] = {}
    for variant in replay.variants:
        name = variant.name
        judged[name] = judged_rows(replay.golden.rows, replay.answers[name], functions)
        found = [*measure(chosen, judged[name]), *(extra or {}).get(name, ())]
        measured[name] = {each.facts.name: each for each in found}
    return Evaluation(replay, judged, measured)
