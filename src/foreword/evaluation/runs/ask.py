"""The seam to whatever generates text: all questions of a run go in, answers come out as they end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from foreword.evaluation.golden import GoldenRow
from foreword.evaluation.runs.answers import Answer
from foreword.evaluation.runs.decoding import Decoding
from foreword.evaluation.runs.variant import Variant


@dataclass(frozen=True)
class Ask:
    """One row put to one variant."""

    row: GoldenRow
    variant: Variant


Finished = Callable[[int, Answer], None]
"""Told the place of an ask in its list, and its answer; once for each, from one thread."""

Generate = Callable[[Sequence[Ask], Decoding, Finished], None]
"""Answers everything, in any order; raises rather than leave one out or answer with another prefix."""
