"""Checks: pure functions from a row and an answer to a score."""

from foreword.evaluation.checks.check import Check, Outcome, Subject
from foreword.evaluation.checks.functions import CheckFunction, load_functions
from foreword.evaluation.checks.kinds import KINDS, parse_check, run_checks

__all__ = [
    "KINDS",
    "Check",
    "CheckFunction",
    "Outcome",
    "Subject",
    "load_functions",
    "parse_check",
    "run_checks",
]
