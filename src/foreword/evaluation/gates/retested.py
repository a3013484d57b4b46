"""What became of the released prefixes after a change of base, engine or library."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from foreword.artifact import Digest
from foreword.evaluation.gates.verdict import EXIT_CODES, Verdict
from foreword.evaluation.scorecards.texts import harmless
from foreword.registry.releases import Arm
from foreword.registry.state import State

Fate = Literal["unchanged", "survives", "unsure", "fails", "transfers", "retrain", "not_judged"]
FATES: tuple[Fate, ...] = get_args(Fate)

MEANING: Mapping[Fate, str] = {
    "unchanged": "every answer is the one it gave before",
    "survives": "it answers otherwise, or nothing is known of before, and it passes the gate",
    "unsure": "the same, but the rows do not tell whether it got worse",
    "fails": "it is shown to be worse than the policy allows",
    "transfers": "it is refused on this base, but tried on it all the same it would pass: train it again, "
    "starting from what it is (prefix.init: artifact)",
    "retrain": "it is refused on this base and would not pass on it: train it again",
    "not_judged": "no golden set was given for its specialty",
}


@dataclass(frozen=True)
class Released:
    """A version that serves now."""

    name: str
    version: str
    digest: Digest
    arm: Arm


@dataclass(frozen=True)
class Retested:
    """One of them, judged again."""

    released: Released
    fate: Fate
    reason: str = ""
    answers: int = 0
    """Rows it answered."""
    changed: int | None = None
    """Of those, how many it answered otherwise before; None if nothing is known of before."""
    verdict: Verdict | None = None


@dataclass(frozen=True)
class RetestReport:
    """All of them."""

    base: str
    """Fingerprint of the base they were judged on."""
    engine: str
    policy: Digest
    results: tuple[Retested, ...]

    def count(self, fate: Fate) -> int:
        return sum(each.fate == fate for each in self.results)

    @property
    def exit_code(self) -> int:
        """As of a gate: fail if one fails or has to be trained again, else undecided if one is."""
        fates = {each.fate for each in self.results}
        if fates & {"fails", "transfers", "retrain"}:
            return EXIT_CODES["fail"]
        return EXIT_CODES["insufficient" if fates & {"unsure", "not_judged"} else "pass"]

    def to_json(self) -> str:
        value = {
            "schema": "foreword.retest/1",
            "base": self.base,
            "engine": self.engine,
            "policy": str(self.policy),
            "results": [_value(each) for each in self.results],
        }
        return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False) + "\n"

    def to_markdown(self) -> str:
        return "\n".join(_lines(self)) + "\n"


def released(state: State, prefix: str = "") -> tuple[Released, ...]:
    """Everything that is stable or canary now under names that begin with `prefix`."""
    return tuple(
        Released(known.name, state.versions[digest].version, digest, arm)
        for known in state.page(prefix, "", len(state.names) or 1)
        if known.release is not None
        for arm, digest in _arms(known.release.stable, known.release.canary)
    )


def _arms(stable: Digest, canary: Digest | None) -> Iterator[tuple[Arm, Digest]]:
    yield "stable", stable
    if canary is not None:
        yield "canary", canary


def _value(each: Retested) -> dict[str, Any]:
    return {
        "name": each.released.name,
        "version": each.released.version,
        "digest": str(each.released.digest),
        "arm": each.released.arm,
        "fate": each.fate,
        "reason": each.reason,
        "answers": each.answers,
        "changed": each.changed,
        "verdict": each.verdict.to_value() if each.verdict else None,
    }


def _lines(report: RetestReport) -> Iterator[str]:
    said = ", ".join(f"{report.count(fate)} {_word(fate)}" for fate in FATES if report.count(fate))
    yield f"# {len(report.results)} released: {said or 'none'}"
    yield ""
    yield "| version | arm | fate | changed answers | reason |"
    yield "|---|---|---|---|---|"
    for each in report.results:
        known = each.released
        changed = "" if each.changed is None else f"{each.changed} of {each.answers}"
        reason = harmless(each.reason).replace("|", "\\|")
        yield f"| {known.name} {known.version} | {known.arm} | {_word(each.fate)} | {changed} | {reason} |"
    yield ""
    for fate in FATES:
        if report.count(fate):
            yield f"- {_word(fate)}: {MEANING[fate]}"
    yield f"- base `{report.base}`, {harmless(report.engine)}, policy `{report.policy}`"


def _word(fate: Fate) -> str:
    return fate.replace("_", " ")
