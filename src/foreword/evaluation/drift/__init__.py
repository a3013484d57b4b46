"""Drift: is a version still asked, and does it still answer, as it was when it was released?

    now = datetime.now(UTC)
    rows = read_observations(log, digest=str(digest)).observations    # JSONL, as `golden add-from-logs` reads
    freeze_reference(directory, digest, rows, NGRAMS, now)            # once, at the release
    ...
    reference = load_reference(directory, digest)
    report = look(reference, rows_of_today, NGRAMS, now, budget=Budget(per_day=0.1, prefixes=200))
    report.outcome        # "drifted", "quiet" or "insufficient"
    report.to_json()      # every measure with its p-value, level and number of rows
    record(report, registry, by)    # a `drifted` entry with reference and snapshot, if it is an alarm

`hidden_states(base)` is an encoder that uses the frozen base, a `SentenceEncoder` another; the reference
remembers which it was. `discoveries([report.p, ...])` decides about many reports at once instead of a budget.
`compare_feedback(Feedback.of(stable_rows), Feedback.of(canary_rows))` compares what people said of two arms.
"""

from foreword.evaluation.drift.false_alarms import Budget, discoveries
from foreword.evaluation.drift.feedback import Feedback, compare_feedback
from foreword.evaluation.drift.hidden import hidden_states
from foreword.evaluation.drift.look import DriftReport, Finding, look
from foreword.evaluation.drift.observations import Observation, observation, read_observations
from foreword.evaluation.drift.recording import record
from foreword.evaluation.drift.reference import Reference, freeze_reference, load_reference
from foreword.evaluation.drift.window import NGRAMS, Encoder, Window

__all__ = [
    "NGRAMS",
    "Budget",
    "DriftReport",
    "Encoder",
    "Feedback",
    "Finding",
    "Observation",
    "Reference",
    "Window",
    "compare_feedback",
    "discoveries",
    "freeze_reference",
    "hidden_states",
    "load_reference",
    "look",
    "observation",
    "read_observations",
    "record",
]
