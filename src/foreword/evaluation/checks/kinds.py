"""All kinds of checks: read one from a row, make it ready, run the checks of a row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from foreword.artifact.fields import Fields, refuse
from foreword.evaluation.checks import functions as own
from foreword.evaluation.checks.check import Check, Checker, Outcome, Subject
from foreword.evaluation.checks.functions import CheckFunction
from foreword.evaluation.checks.numbers import numeric
from foreword.evaluation.checks.refusals import refusal
from foreword.evaluation.checks.structured import json_schema
from foreword.evaluation.checks.texts import contains, exact, not_contains, regex

PYTHON = "python"
_NONE: Mapping[str, CheckFunction] = {}

_KINDS: Mapping[str, Callable[[Fields], Checker]] = {
    "exact": exact,
    "contains": contains,
    "not_contains": not_contains,
    "regex": regex,
    "numeric": numeric,
    "json_schema": json_schema,
    "refusal": refusal,
}
KINDS = (*_KINDS, PYTHON)


def parse_check(value: Any, path: str = "check") -> Check:
    """Read one check of a row.

    Raises:
        ArtifactError: an unknown kind or option, or one that cannot be used; the message says where.
    """
    fields = Fields(value, path)
    kind = fields.choice("kind", KINDS)
    check = Check(kind, fields.rest())
    prepare(check)
    return check


def prepare(check: Check, functions: Mapping[str, CheckFunction] = _NONE) -> Checker:
    """The function that runs a check; `functions` has those that `python` checks name."""
    options = Fields(dict(check.options), "check")
    if check.kind == PYTHON:
        checker = own.python(options, functions)
    elif check.kind in _KINDS:
        checker = _KINDS[check.kind](options)
    else:
        refuse("check.kind", "golden.check", f"expected one of {', '.join(KINDS)}")
    options.done()
    return checker


def run_checks(
    checks: Iterable[Check], subject: Subject, functions: Mapping[str, CheckFunction] = _NONE
) -> tuple[Outcome, ...]:
    """One outcome for each check, in order."""
    return tuple(prepare(check, functions)(subject) for check in checks)
