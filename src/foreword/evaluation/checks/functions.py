"""The check `python`: a function of one's own, loaded only if whoever runs the evaluation says so.

A golden set is data. A function it names is code, so a name in a set loads nothing by itself: it must
also be in the list of allowed names (`--allow-check`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from foreword.artifact.fields import Fields, refuse
from foreword.errors import UsageError
from foreword.evaluation.checks.check import Checker, Outcome, Subject

GROUP = "foreword.checks"
"""Entry points of this group can be named by their name alone."""

_NAME = re.compile(r"[A-Za-z_][\w.-]{0,127}(:[A-Za-z_]\w{0,127})?")

CheckFunction = Callable[[Mapping[str, Any], str], Any]
"""`(row, answer)` gives True, False, or a score from 0 to 1, or `(score, detail)`."""


def python(options: Fields, functions: Mapping[str, CheckFunction]) -> Checker:
    """`function`: `module:function`, or the name of an entry point of the group `foreword.checks`."""
    name = function_name(options)

    def check(subject: Subject) -> Outcome:
        function = functions.get(name)
        if function is None:
            raise _not_allowed(name)
        try:
            return _outcome(function(subject.row, subject.answer))
        except Exception as e:  # whatever it raises, it is this function that must be mended
            raise UsageError(
                f"the check function {name} failed on row {subject.row.get('id')!r} "
                f"({type(e).__name__}: {str(e)[:200]}); mend it or leave the check out",
                code="check.function_failed",
            ) from e

    return check


def function_name(options: Fields) -> str:
    """The name of the function of a check, which looks like one."""
    name = options.text("function")
    if not _NAME.fullmatch(name):
        refuse("check.function", "golden.check", f"expected module:function, got {name[:80]!r}")
    return name


def load_functions(names: Collection[str], allowed: Collection[str]) -> dict[str, CheckFunction]:
    """The functions of a set's checks, each of which must be allowed by name.

    Raises:
        UsageError: one is not allowed (`check.not_allowed`) or is not there (`check.function`).
    """
    for name in sorted(names):
        if name not in allowed:
            raise _not_allowed(name)
    return {name: _load(name) for name in sorted(names)}


def _load(name: str) -> CheckFunction:
    module, _, attribute = name.partition(":")
    try:
        if attribute:
            found: Any = getattr(import_module(module), attribute)
        else:
            found = entry_points(group=GROUP)[name].load()
    except (ImportError, AttributeError, KeyError) as e:
        raise UsageError(
            f"there is no check function {name} ({type(e).__name__}: {e}); name it module:function "
            f"or as an entry point of the group {GROUP}",
            code="check.function",
        ) from e
    if not callable(found):
        raise UsageError(f"{name} is not a function", code="check.function")
    return found  # type: ignore[no-any-return]


def _outcome(said: Any) -> Outcome:
    score, detail = said if isinstance(said, tuple) else (said, "")
    value = float(score)
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"expected a score from 0 to 1, got {value:g}")
    return Outcome(value, str(detail)[:500])


def _not_allowed(name: str) -> UsageError:
    return UsageError(
        f"the golden set asks for the function {name}, which runs code of your environment; allow it "
        f"with --allow-check {name} if you trust the set",
        code="check.not_allowed",
    )
