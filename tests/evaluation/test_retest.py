"""Re-testing: after another engine or base everything that is released is judged again, against itself."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from foreword.artifact import Artifact
from foreword.evaluation.gates import retest as module
from foreword.evaluation.gates.retest import retest
from foreword.evaluation.gates.retested import Released, RetestReport, released
from foreword.evaluation.golden import GoldenRow, GoldenSet, Header
from foreword.evaluation.runs.decoding import Decoding
from foreword.evaluation.runs.store import AnswerStore
from foreword.prefix.base_model import BaseModel
from foreword.registry.entries import Published, Released as ReleasedEntry
from tests.evaluation.arms import policy
from tests.registry.samples import BASE, Log, claim, facts
from tests.serving import prefix_samples
from tests.tiny import tiny, tiny_base

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
GREEDY = Decoding(max_new_tokens=3)
SAME = policy(rules=[{"metric": "length", "margin": 0.5}, {"metric": "distinct_2", "least": 0.0}])
"""What random answers can be held to: length is about the same as it was."""


def golden(specialty: str, count: int = 40) -> GoldenSet:
    made = [
        GoldenRow(f"r{i}", "all", specialty, "en", {"input": f"question {i}"}) for i in range(count)
    ]
    return GoldenSet(Header(f"acme/{specialty}", "1.0.0", specialty), tuple(made))


def versions(base: BaseModel, *numbers: int) -> dict[Released, Artifact]:
    made = [prefix_samples.artifact(base, number, probed=True) for number in numbers]
    return {
        Released(each.manifest.name, each.manifest.version, each.digest, "stable"): each
        for each in made
    }
