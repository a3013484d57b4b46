"""The check `numeric`: the answer gives a number."""

from __future__ import annotations

import re

from foreword.artifact.fields import Fields
from foreword.evaluation.checks.check import PASSED, Checker, Outcome, Subject

_LARGEST = 1e300
_NUMBER = re.compile(r"(?<![\w.,])[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?")
"""1, -2.5, 12,000 and 1e6, not the digits inside of a word or a version."""


def numeric(options: Fields) -> Checker:
    """A number within `tolerance` (absolute) or `relative` of `value`, at `where`.

    `where`: `last` (the default: answers end with the result), `first`, or `only` (there is no
    other number in the answer).
    """
    value = options.number("value", -_LARGEST, _LARGEST)
    absolute = options.number("tolerance", 0, _LARGEST) if options.has("tolerance") else 0.0
    relative = options.number("relative", 0, 1) if options.has("relative") else 0.0
    where = options.choice("where", ("last", "first", "only")) if options.has("where") else "last"
    room = max(absolute, relative * abs(value))

    def check(subject: Subject) -> Outcome:
        found = numbers_in(subject.answer)
        if not found:
            return Outcome(0.0, f"expected {value:g}, found no number")
        if where == "only" and len(found) > 1:
            return Outcome(0.0, f"expected one number, found {len(found)}")
        said = found[0] if where == "first" else found[-1]
        if abs(said - value) <= room:
            return PASSED
        return Outcome(0.0, f"expected {value:g} within {room:g}, got {said:g}")

    return check


def numbers_in(text: str) -> list[float]:
    """The numbers of a text in order; a comma separates thousands, a point decimals."""
    return [float(match.replace(",", "")) for match in _NUMBER.findall(text)]
