"""Checks that compare texts: exact, contains, not_contains, regex."""

from __future__ import annotations

import re

from foreword.artifact.fields import Fields, refuse
from foreword.evaluation.checks.check import PASSED, Checker, Outcome, Subject, shown

_MOST_VALUES = 64
_MOST_MATCHED = 20_000
"""Characters of an answer that a pattern is tried on: `re` has no time limit of its own."""


def exact(options: Fields) -> Checker:
    """`values`, or the row's references: the answer is one of them, but for space around it."""
    values = options.texts("values", _MOST_VALUES) if options.has("values") else ()
    fold = _flag(options, "ignore_case")

    def check(subject: Subject) -> Outcome:
        allowed = values or subject.references
        said = _folded(subject.answer.strip(), fold)
        if said in {_folded(value.strip(), fold) for value in allowed}:
            return PASSED
        expected = " or ".join(shown(value) for value in allowed[:3]) or "a reference"
        return Outcome(0.0, f"expected {expected}, got {shown(subject.answer)}")

    return check


def contains(options: Fields) -> Checker:
    """The share of `values` that occur in the answer; with `any`, one is enough."""
    values = _values(options)
    fold, enough = _flag(options, "ignore_case"), _flag(options, "any")

    def check(subject: Subject) -> Outcome:
        said = _folded(subject.answer, fold)
        missing = [value for value in values if _folded(value, fold) not in said]
        if not missing or (enough and len(missing) < len(values)):
            return PASSED
        score = 0.0 if enough else 1 - len(missing) / len(values)
        return Outcome(score, f"missing {', '.join(shown(value) for value in missing[:5])}")

    return check


def not_contains(options: Fields) -> Checker:
    """None of `values` occurs in the answer."""
    values, fold = _values(options), _flag(options, "ignore_case")

    def check(subject: Subject) -> Outcome:
        said = _folded(subject.answer, fold)
        found = [value for value in values if _folded(value, fold) in said]
        if not found:
            return PASSED
        return Outcome(0.0, f"contains {', '.join(shown(value) for value in found[:5])}")

    return check


def regex(options: Fields) -> Checker:
    """`pattern` (of Python's `re`) is found in the answer; with `full`, it is all of the answer."""
    text = options.text("pattern")
    full = _flag(options, "full")
    try:
        pattern = re.compile(text)
    except (re.error, OverflowError, RecursionError) as e:
        refuse("check.pattern", "golden.check", f"not a regular expression ({e})")
    match = pattern.fullmatch if full else pattern.search

    def check(subject: Subject) -> Outcome:
        said = subject.answer.strip()
        if len(said) > _MOST_MATCHED:
            return Outcome(0.0, f"longer than {_MOST_MATCHED} characters, not matched")
        return PASSED if match(said) else Outcome(0.0, f"{shown(text)} does not match")

    return check


def _values(options: Fields) -> tuple[str, ...]:
    values = options.texts("values", _MOST_VALUES)
    if not values or not all(values):
        refuse("check.values", "golden.check", "expected at least one text, none of them empty")
    return values


def _flag(options: Fields, name: str) -> bool:
    return options.has(name) and options.boolean(name)


def _folded(text: str, fold: bool) -> str:
    return text.casefold() if fold else text
