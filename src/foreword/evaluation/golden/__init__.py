"""Golden sets: versioned rows with what is known about right answers, under one digest."""

from foreword.evaluation.golden.golden_set import ANY, GoldenSet, Header
from foreword.evaluation.golden.logs import Drafts, add_from_logs
from foreword.evaluation.golden.matching import matches, require_match, specialty_of
from foreword.evaluation.golden.reading import Problem, inspect_golden, read_golden
from foreword.evaluation.golden.row import OFF_TASK, SAFETY, GoldenRow, Message
from foreword.evaluation.golden.split import split
from foreword.evaluation.golden.writing import write_golden

__all__ = [
    "ANY",
    "OFF_TASK",
    "SAFETY",
    "Drafts",
    "GoldenRow",
    "GoldenSet",
    "Header",
    "Message",
    "Problem",
    "add_from_logs",
    "inspect_golden",
    "matches",
    "read_golden",
    "require_match",
    "specialty_of",
    "split",
    "write_golden",
]
