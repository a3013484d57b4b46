"""The verdict: what a gate decided, rule by rule, and how often such a gate is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from foreword.artifact import Digest, canonical
from foreword.evaluation.scorecards.headline import Headline, RuleLine
from foreword.evaluation.scorecards.texts import figure, harmless
from foreword.signing.statement import Verdict as Outcome

SCHEMA = "foreword.verdict/1"

EXIT_CODES: Mapping[Outcome, int] = {"pass": 0, "fail": 10, "insufficient": 11}
"""What `foreword gate` returns."""

SAYS: Mapping[Outcome, str] = {
    "pass": "pass", "fail": "fail", "insufficient": "not enough evidence",
}  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """Who was judged."""

    name: str
    """Of a prefix; of a chain, its steps."""
    version: str
    digest: Digest | None
    """Of the artifact; of a chain, its key; None for what an endpoint answers without naming one."""


@dataclass(frozen=True)
class SetFacts:
    """A golden set as it was judged."""

    name: str
    version: str
    digest: Digest
    rows: int


@dataclass(frozen=True)
class RuleResult:
    """One limit on some rows."""

    rule: str
    """In a line, such as `task_completion at least 0.8`."""
    rows: str
    """The set and the slice."""
    outcome: Outcome
    required: bool
    """False for a watched cohort: only a fail counts."""
    reason: str
    value: float | None = None
    """The metric, or for a margin the difference (candidate minus the other, so that up is better)."""
    low: float | None = None
    """The value is above it with confidence 1 - alpha."""
    high: float | None = None
    """The value is below it with confidence 1 - alpha; a fail also stands after Holm's correction."""
    limit: float | None = None
    """`value` must be above this."""
    n: int = 0
    power: float | None = None
    """How often a candidate as good as the incumbent passes this rule with so many rows."""
    needed: int | None = None
    """Rows for the power the policy asks for."""


@dataclass(frozen=True)
class Rate:
    """A simulated rate with its 95 % interval (Wilson)."""

    rate: float
    low: float
    high: float
    simulations: int


@dataclass(frozen=True)
class ErrorRates:
    """The whole gate, simulated on these very rows (`calibrate.py` says how)."""

    false_pass: Rate | None
    """A candidate that is worse by exactly one margin, where that is missed most often, passed. None if
    no rule's value is high enough to lose its margin."""
    false_fail: Rate
    """Two arms that are the same (A/A): the gate failed."""
    undecided: Rate
    """A/A: not enough evidence."""


@dataclass(frozen=True)
class Verdict:
    """What a gate says; `attest.py` signs it."""

    outcome: Outcome
    subject: Subject
    incumbent: Subject | None
    """None if the base stood in its place."""
    results: tuple[RuleResult, ...]
    rates: ErrorRates | None
    """None if no rule compares, or the policy wants none."""
    alpha: float
    policy: Digest
    sets: tuple[SetFacts, ...]
    scorecards: tuple[Digest, ...]
    """Of the JSON of each set's scorecard, in the order of `sets`."""
    base: str
    """Fingerprint of the base, or an endpoint's address."""
    engine: str
    decided: str
    """UTC, as 2026-01-31T12:00:00Z."""

    @property
    def passed(self) -> bool:
        return self.outcome == "pass"

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.outcome]

    @property
    def digest(self) -> Digest:
        """Over the canonical JSON of all of it."""
        return Digest.of(canonical.encode(self.to_value()))

    @property
    def says(self) -> str:
        """One line."""
        counts = {o: sum(r.outcome == o for r in self.results) for o in EXIT_CODES}
        what = f"{self.subject.name} {self.subject.version}".strip()
        return (
            f"{what}: {SAYS[self.outcome]} ({counts['pass']} of {len(self.results)} rules passed, "
            f"{counts['fail']} failed, {counts['insufficient']} undecided)"
        )

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it is not pass: what failed first, then what was not decided."""
        order: tuple[Outcome, ...] = ("fail", "insufficient")
        return tuple(
            f"{each.rule}, {each.rows}: {each.reason}"
            for outcome in order
            for each in self.results
            if each.outcome == outcome and (each.required or outcome == "fail")
        )

    def to_value(self) -> dict[str, Any]:
        """A JSON value; numbers are rounded to 9 digits, so that machines agree on it."""
        return {"schema": SCHEMA, **_plain(self)}

    def to_json(self) -> str:
        return json.dumps(self.to_value(), sort_keys=True, indent=1, ensure_ascii=False) + "\n"

    def to_markdown(self) -> str:
        return "\n".join(_lines(self)) + "\n"

    def headline(self) -> Headline:
        """For the top of a scorecard."""
        rates = (_rates(self.rates),) if self.rates else ()
        rules = tuple(_rule_line(each) for each in self.results)
        return Headline(self.outcome, self.says, (*self.reasons[:12], *rates), rules)


def overall(results: Iterable[RuleResult]) -> Outcome:
    """Fail if any rule failed; pass if every required rule passed."""
    found = list(results)
    if any(each.outcome == "fail" for each in found):
        return "fail"
    required = [each.outcome for each in found if each.required]
    return "pass" if required and set(required) == {"pass"} else "insufficient"


def _plain(value: Any) -> Any:
    if isinstance(value, Digest):
        return str(value)
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return float(f"{value:.9g}") if isinstance(value, float) else value


def _lines(verdict: Verdict) -> Iterator[str]:
    yield f"# {SAYS[verdict.outcome].upper()}: {harmless(verdict.says)}"
    yield ""
    yield from (f"- {_cell(reason)}" for reason in verdict.reasons)
    if verdict.reasons:
        yield ""
    yield "| rule | rows | outcome | value | interval | limit | n | power | rows needed |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for each in verdict.results:
        yield f"| {' | '.join(_cells(each))} |"
    yield ""
    if verdict.rates:
        yield _rates(verdict.rates)
        yield ""
    for known in verdict.sets:
        yield f"- set {_cell(known.name)}@{known.version} `{known.digest}`, {known.rows} rows"
    yield f"- candidate `{verdict.subject.digest}`"
    other = verdict.incumbent
    yield f"- against `{other.digest}`" if other else "- against the base, as there is no incumbent"
    yield f"- policy `{verdict.policy}`"


def _rule_line(each: RuleResult) -> RuleLine:
    def number(value: float | None) -> str:
        return "" if value is None else figure(value)

    return RuleLine(
        rule=each.rule + ("" if each.required else " (watched)"),
        rows=each.rows,
        outcome=each.outcome,
        value=number(each.value),
        interval="" if each.low is None else f"{number(each.low)} to {number(each.high)}",
        limit=number(each.limit),
        n=str(each.n or ""),
        power="" if each.power is None else f"{each.power:.2f}",
    )


def _cells(each: RuleResult) -> list[str]:
    line = _rule_line(each)
    return [
        _cell(line.rule), _cell(line.rows), SAYS[each.outcome], line.value, line.interval, line.limit,
        line.n, line.power, str(each.needed or ""),
    ]  # fmt: skip


def _rates(rates: ErrorRates) -> str:
    def shown(rate: Rate | None) -> str:
        if rate is None:
            return "not known (no value is high enough to lose its margin)"
        return f"{100 * rate.rate:.1f} % [{100 * rate.low:.1f}, {100 * rate.high:.1f}]"

    return (
        f"Simulated on these rows {rates.false_fail.simulations:,} times: false pass "
        f"{shown(rates.false_pass)}, false fail {shown(rates.false_fail)}, undecided on equal arms "
        f"{shown(rates.undecided)}."
    )


def _cell(text: str) -> str:
    return harmless(text).replace("|", "\\|").replace("\n", " ")
