"""Re-testing: after another engine or base everything that is released is judged again, against itself."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from foreword.artifact import Artifact
from foreword.evaluation.gates.policy import GatePolicy
from foreword.evaluation.gates.retest import retest
from foreword.evaluation.gates.retested import FATES, Fate, Released, RetestReport, released
from foreword.evaluation.golden import GoldenRow, GoldenSet, Header
from foreword.evaluation.runs.decoding import Decoding
from foreword.evaluation.runs.store import AnswerStore
from foreword.prefix.base_model import BaseModel
from foreword.registry.entries import BaseDeclared, Published
from foreword.registry.entries import Released as ReleasedEntry
from tests.evaluation.arms import policy
from tests.registry.samples import BASE, Log, claim, facts
from tests.serving import prefix_samples
from tests.tiny import tiny_base

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
GREEDY = Decoding(max_new_tokens=3)
ENGINE = "foreword.evaluation.gates.retest.engine_name"
LENIENT = policy(rules=[{"metric": "empty", "margin": 1.5}])
"""What random answers can be held to: more than all of them cannot be lost."""
STRICT = policy(rules=[{"metric": "same_answer", "most": 0.0001}])
MANY = policy(rules=[{"metric": "empty", "margin": 0.5}], smallest_n=1_000)


def golden(specialty: str, count: int = 40) -> GoldenSet:
    made = [
        GoldenRow(f"r{i}", "all", specialty, "en", {"input": f"question {i}"}) for i in range(count)
    ]
    return GoldenSet(Header(f"acme/{specialty}", "1.0.0", specialty), tuple(made))


SETS = [golden("p1"), golden("p2")]


def versions(base: BaseModel, *numbers: int) -> dict[Released, Artifact]:
    made = [prefix_samples.artifact(base, number, probed=True) for number in numbers]
    return {
        Released(each.manifest.name, each.manifest.version, each.digest, "stable"): each
        for each in made
    }


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return tiny_base()


class Ground:
    def __init__(self, base: BaseModel, store: Path, patch: pytest.MonkeyPatch) -> None:
        self.base, self._store, self._patch = base, store, patch
        self.versions = versions(base, 1, 2)

    def run(self, rules: GatePolicy, engine: str, base: BaseModel | None = None) -> RetestReport:
        """As with this version of the engine."""
        self._patch.setattr(ENGINE, lambda: engine)
        with AnswerStore(self._store) as store:
            chosen = base or self.base
            return retest(self.versions, SETS, chosen, rules, GREEDY, store, NOW)

    def change_answers(self) -> None:
        """Everything that was stored is said otherwise, as by another engine."""
        for file in self._store.iterdir():
            head, *lines = file.read_text().splitlines()
            said = [{**json.loads(line), "text": "z z z z"} for line in lines]
            file.write_text("\n".join([head, *map(json.dumps, said), ""]))


@pytest.fixture
def ground(base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ground:
    return Ground(base, tmp_path / "answers", monkeypatch)


def fates(report: RetestReport) -> list[Fate]:
    return [each.fate for each in report.results]


def test_another_engine_with_the_same_answers_changes_nothing(ground: Ground) -> None:
    first = ground.run(LENIENT, "one")
    assert fates(first) == ["survives", "survives"]
    assert [each.changed for each in first.results] == [None, None], "nothing was known of before"
    again = ground.run(STRICT, "two")
    assert fates(again) == ["unchanged", "unchanged"]
    assert (again.results[0].answers, again.results[0].changed, again.exit_code) == (40, 0, 0)


@pytest.mark.parametrize(
    ("rules", "fate", "code"),
    [(LENIENT, "survives", 0), (STRICT, "fails", 10), (MANY, "unsure", 11)],
)
def test_other_answers_are_judged_against_those_of_before(
    ground: Ground, rules: GatePolicy, fate: Fate, code: int
) -> None:
    ground.run(LENIENT, "one")
    ground.change_answers()
    report = ground.run(rules, "two")
    assert (fates(report), report.exit_code) == ([fate, fate], code), report.to_markdown()
    first = report.results[0]
    assert first.changed == 40
    assert first.verdict is not None
    assert first.verdict.incumbent is not None
    assert f"| acme/p1 1.0.0 | stable | {fate} | 40 of 40 |" in report.to_markdown()


def test_an_upgrade_of_the_base_says_what_survives(ground: Ground) -> None:
    """Refused there, as everywhere; whether its numbers still mean something is tried all the same."""
    ground.run(LENIENT, "one")
    upgrade = tiny_base(seed=1)
    report = ground.run(LENIENT, "one", upgrade)
    assert fates(report) == ["transfers", "transfers"]
    assert "other weights or configuration" in report.results[0].reason
    assert report.exit_code == 10
    assert report.base == str(upgrade.ref.fingerprint)
    assert fates(ground.run(STRICT, "one", upgrade)) == ["retrain", "retrain"]
    another = ground.run(LENIENT, "one", tiny_base("gpt2"))
    assert fates(another) == ["retrain", "retrain"], "it has no place for their numbers"
    assert json.loads(report.to_json())["results"][0]["fate"] == "transfers"


def test_what_no_set_is_for_is_not_judged(ground: Ground) -> None:
    ground.versions |= versions(ground.base, 3)
    report = ground.run(LENIENT, "one")
    assert fates(report) == ["survives", "survives", "not_judged"]
    assert report.exit_code == 11
    assert set(fates(report)) <= set(FATES)


def test_everything_that_serves_is_found() -> None:
    one, two, other = facts("1.0.0"), facts("2.0.0"), facts("1.0.0", "globex/legal")
    log = Log(BaseDeclared(BASE))
    for each in (one, two, other):
        log.add(Published(each, (claim(),)))
    log.add(ReleasedEntry(one.name, one.digest, 1.0))
    log.add(ReleasedEntry(two.name, two.digest, 0.1))
    assert [(r.version, r.arm) for r in released(log.state)] == [
        ("1.0.0", "stable"),
        ("2.0.0", "canary"),
    ]
    assert released(log.state, "globex/") == ()
