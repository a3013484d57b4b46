"""Gates: what passes, what fails, what is not known, how often that is wrong, and who may say so."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foreword.artifact import Digest
from foreword.errors import CompatibilityError, ConfigError, TrustError, UsageError
from foreword.evaluation.gates.attest import KIND, attest, body_of
from foreword.evaluation.gates.decide import decide
from foreword.evaluation.gates.facts import ArtifactFacts, facts_of
from foreword.evaluation.gates.plan import plan
from foreword.evaluation.gates.policy import GatePolicy, load_policy
from foreword.evaluation.gates.verdict import RuleResult, Subject, Verdict
from foreword.evaluation.golden import GoldenSet, Header
from foreword.evaluation.statistics.error_rates import Pair, margin_gate
from foreword.signing.verify import verify
from tests.artifact.samples import sample
from tests.evaluation.arms import CANDIDATE, HEADER, arms, policy, rows
from tests.signing.made import key, signed
from tests.signing.made import policy as trust

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
SUBJECT = Subject("acme/support", "2.0.0", CANDIDATE)
FACTS = ArtifactFacts("acme/support", "2.0.0", CANDIDATE, "support", 1.0, 2.0, 0.8)
COMPLETE = {"metric": "task_completion"}
MARGIN = {**COMPLETE, "margin": 0.05}
COHORTS = {**COMPLETE, "cohort_margin": 0.1}


def judged(settings: dict[str, Any], shares: Any, of: Any, **more: Any) -> Verdict:
    given = {"facts": FACTS, **more}
    return decide([arms(shares, of)], policy(**settings), SUBJECT, NOW, **given)


EQUAL = {"base": 0.3, "incumbent": 0.9, "candidate": 0.9}
LOST = {**EQUAL, "candidate": {"a": 0.9, "b": 0.7, "c": 0.9}}
CASES: list[tuple[str, str, dict[str, Any], Any, Any]] = [
    ("equal arms pass with enough rows", "pass", {"rules": [MARGIN]}, EQUAL, rows(900)),
    ("three rows tell nothing", "insufficient", {"rules": [MARGIN]}, EQUAL, rows(3)),
    ("three perfect rows tell nothing", "insufficient", {"rules": [{**MARGIN, "least": 0.5}]},
     {"base": 0.0, "incumbent": 1.0, "candidate": 1.0}, rows(3)),
    ("three worthless rows tell nothing", "insufficient", {"rules": [MARGIN]},
     {"base": 1.0, "incumbent": 1.0, "candidate": 0.0}, rows(3)),
    ("ten points lost", "fail", {"rules": [MARGIN]}, {**EQUAL, "candidate": 0.7}, rows(600)),
    ("twenty lost in one cohort only", "fail", {"rules": [COHORTS]}, LOST, rows(720, "abc")),
    ("the same loss is not seen over all rows", "insufficient",
     {"rules": [{**COMPLETE, "margin": 0.1}]}, LOST, rows(240, "abc")),
    ("few rows in a cohort that has to be proven", "insufficient", {"rules": [COHORTS]}, EQUAL,
     rows(600) + rows(9, "z", start=600)),
    ("few rows in a cohort that is watched", "pass",
     {"rules": [MARGIN, {**COHORTS, "cohorts": "watched"}]}, EQUAL, rows(900) + rows(9, "z", start=900)),
    ("a watched cohort that lost", "fail", {"rules": [{**COHORTS, "margin": 0.2, "cohorts": "watched"}]},
     LOST, rows(720, "abc")),
    ("below the floor", "fail", {"rules": [{**COMPLETE, "least": 0.95}]}, EQUAL, rows(600)),
    ("compulsory rows that are not there", "insufficient",
     {"rules": [MARGIN], "compulsory": [{**MARGIN, "tag": "safety"}]}, EQUAL, rows(600)),
    ("safety lost, the task did not", "fail",
     {"rules": [MARGIN], "compulsory": [{**MARGIN, "tag": "safety"}]},
     {**EQUAL, "candidate": {"safety": 0.5, "": 0.9}}, rows(600) + rows(300, tags=("safety",), start=600)),
    ("it learned", "pass",
     {"rules": [MARGIN], "learned": {"metric": "task_completion", "least": 0.3, "loss": 0.5}},
     EQUAL, rows(900)),
    ("it did not learn", "fail", {"rules": [MARGIN], "learned": {"loss": 1.5}}, EQUAL, rows(600)),
    ("it knows its training rows too well", "fail", {"rules": [MARGIN], "gap": {"loss": 0.1}}, EQUAL,
     rows(600)),
    ("without an incumbent the base is one", "pass", {"rules": [MARGIN]},
     {"base": 0.3, "candidate": 0.9}, rows(100)),
    ("nobody to compare with", "insufficient", {"rules": [MARGIN]}, {"candidate": 0.9}, rows(600)),
    ("a metric no row has", "insufficient", {"rules": [{"metric": "accuracy", "least": 0.1}]}, EQUAL,
     rows(90)),
]  # fmt: skip


@pytest.mark.parametrize(("title", "outcome", "settings", "shares", "of"), CASES)
def test_verdicts(title: str, outcome: str, settings: Any, shares: Any, of: Any) -> None:
    verdict = judged(settings, shares, of)
    assert verdict.outcome == outcome, verdict.to_markdown()
    assert verdict.exit_code == {"pass": 0, "fail": 10, "insufficient": 11}[outcome]
    assert (outcome == "pass") == (not verdict.reasons)


def test_what_the_training_record_does_not_say_is_not_known() -> None:
    silent = replace(FACTS, training_loss=None)
    settings = {"rules": [{**COMPLETE, "least": 0.1}], "gap": {"loss": 9.0}}
    assert judged(settings, EQUAL, rows(90), facts=silent).outcome == "insufficient"
    strange = replace(sample().manifest, training={"metrics": {"held_out_loss": "low"}})
    assert facts_of(strange, CANDIDATE).held_out_loss is None


def test_a_set_for_something_else_is_refused() -> None:
    other = arms(EQUAL, rows(90), header=replace(HEADER, specialty="legal"))
    with pytest.raises(CompatibilityError, match="is for 'legal'"):
        decide([other], policy(rules=[MARGIN]), SUBJECT, NOW, facts=FACTS)
    for_all = arms(EQUAL, rows(90), header=Header("acme/safety", "1.0.0", "any"))
    with pytest.raises(CompatibilityError, match="the policy is for 'legal'"):
        decide([for_all], policy(rules=[MARGIN], specialty="legal"), SUBJECT, NOW, facts=FACTS)
    # Rules without a set or tag are about the specialty, so a set for all alone decides nothing.
    assert (
        decide([for_all], policy(rules=[MARGIN]), SUBJECT, NOW, facts=FACTS).outcome
        == "insufficient"
    )
    named = policy(rules=[{**COMPLETE, "least": 0.5, "set": "acme/safety"}])
    assert decide([for_all], named, SUBJECT, NOW, facts=FACTS).passed


def test_lower_is_better_where_it_is() -> None:
    settings = {
        "rules": [{"metric": "same_answer", "most": 0.5}, {"metric": "empty", "margin": 0.05}]
    }
    metrics = ("same_answer", "empty")
    varied = arms({"base": 0.1, "candidate": 0.2}, rows(200), metrics=metrics)
    assert decide([varied], policy(**settings), SUBJECT, NOW).passed
    stuck = arms({"base": 0.1, "candidate": 1.0}, rows(200), metrics=metrics)
    verdict = decide([stuck], policy(**settings), SUBJECT, NOW)
    assert verdict.outcome == "fail"
    (failed,) = [each for each in verdict.results if each.outcome == "fail"]
    assert (failed.value, failed.limit) == (1.0, 0.5)


def test_errors_stay_within_what_is_stated() -> None:
    """Whole gates on fresh rows: equal arms do not fail, a loss of the margin hardly ever passes."""
    asked = policy(rules=[{"metric": "exact_match", "margin": 0.15, "cohort_margin": 0.25}])
    share = {"a": 0.9, "b": 0.9}
    of = [replace(row, checks=()) for row in rows(160, "ab")]
    found: dict[str, Counter[str]] = {"equal": Counter(), "lost": Counter()}
    for name, candidate in (("equal", share), ("lost", {**share, "b": 0.65})):
        for seed in range(12):
            evaluation = arms({"incumbent": share, "candidate": candidate}, of, seed)
            found[name][decide([evaluation], asked, SUBJECT, NOW).outcome] += 1
    assert found["equal"]["fail"] == 0
    assert found["lost"]["pass"] <= 1
    assert found["equal"]["pass"] > 6, "it can also pass"


def test_a_whole_gate_decides_as_the_one_whose_error_rates_are_published() -> None:
    """`bench/error_rates.py` counts `margin_gate`, which leaves out all but the decision."""
    asked = policy(rules=[{"metric": "exact_match", "cohort_margin": 0.1}])
    of = [replace(row, checks=()) for row in rows(300, "ab")]
    seen = set()
    for seed in range(24):
        loss = (0.0, 0.1, 0.25)[seed % 3]
        shares = {"incumbent": 0.97, "candidate": {"a": 0.97, "b": 0.97 - loss}}
        evaluation = arms(shares, of, seed)
        values = {
            name: evaluation.measured[name]["exact_match"].table.row_values() for name in shares
        }
        cohort = np.array([row.cohort for row in of])
        pairs = {
            each: Pair(values["candidate"][cohort == each], values["incumbent"][cohort == each])
            for each in "ab"
        }
        outcome = margin_gate(0.1)(pairs)
        assert decide([evaluation], asked, SUBJECT, NOW).outcome == outcome
        seen.add(outcome)
    assert seen == {"pass", "fail", "insufficient"}


def test_the_verdict_states_its_error_rates() -> None:
    asked = policy(rules=[{**COMPLETE, "margin": 0.1, "cohort_margin": 0.2}], simulations=300)
    evaluation = arms(EQUAL, rows(240, "abc"))
    verdict = decide([evaluation], asked, SUBJECT, NOW)
    rates = verdict.rates
    assert rates is not None
    assert rates.false_pass is not None
    assert 0 < rates.false_pass.rate <= 0.05 + 0.035  # the simulation's own 3 sigma
    assert rates.false_fail.rate <= 0.05
    assert rates.false_fail.low <= rates.false_fail.rate <= rates.false_fail.high
    assert decide([evaluation], asked, SUBJECT, NOW) == verdict, "nothing in it is drawn anew"
    assert "false pass" in verdict.to_markdown()
    small = decide([arms(EQUAL, rows(31))], policy(rules=[MARGIN], simulations=100), SUBJECT, NOW)
    assert small.rates is not None
    assert small.rates.undecided.rate > 0.9


def test_power_is_told_before_and_after() -> None:
    asked = policy(rules=[MARGIN], compulsory=[{**COMPLETE, "tag": "safety", "margin": 0.05}])
    golden = GoldenSet(HEADER, (*rows(100), *rows(3, tags=("safety",), start=100)))
    first, second = plan(asked, [golden])
    assert (first.n, second.n, second.power) == (100, 3, 0.0)
    assert (
        0 < first.power < 0.8 < plan(asked, [GoldenSet(HEADER, tuple(rows(first.needed)))])[0].power
    )
    verdict = decide([arms(EQUAL, rows(100))], policy(rules=[MARGIN]), SUBJECT, NOW)
    (result,) = verdict.results
    assert result.power is not None
    assert result.needed is not None
    assert 0 < result.power < 0.8
    assert result.needed > 100


BAD: dict[str, tuple[str, str]] = {
    "a key in a rule": ("rules:\n- metric: empty\n  mosst: 0.1\n", "did you mean 'rules.most'"),
    "a key": ("alfa: 0.1\nrules:\n- metric: empty\n  most: 0.1\n", "did you mean 'alpha'"),
    "a rule without a limit": ("rules:\n- metric: empty\n", "expected least, most, margin"),
    "no rules": ("alpha: 0.1\n", "at least one rule"),
    "compulsory without rows": ("compulsory:\n- metric: empty\n  most: 0.1\n", "a tag or the name"),
    "an alpha": ("alpha: 0.7\nrules:\n- metric: empty\n  most: 0.1\n", "less than 0.5"),
}


@pytest.mark.parametrize("title", BAD)
def test_a_bad_policy_is_refused(title: str, tmp_path: Path) -> None:
    text, hint = BAD[title]
    (tmp_path / "gate.yaml").write_text(text)
    with pytest.raises(ConfigError, match=hint):
        load_policy(tmp_path / "gate.yaml")


def test_a_policy_is_known_by_what_it_says(tmp_path: Path) -> None:
    file = tmp_path / "gate.yaml"
    file.write_text("rules:\n- {metric: empty, most: 0.10}\n")
    first = load_policy(file)
    file.write_text("# a comment\nalpha: 0.05\nrules:\n- most: 0.1\n  metric: empty\n")
    assert load_policy(file).digest == first.digest
    assert first.digest != GatePolicy(rules=first.rules, alpha=0.01).digest
    assert first.metrics == {"empty"}


ARTIFACT = sample()
JUDGE = key("judge")


def verdict_on(outcome: str, digest: Digest = ARTIFACT.digest) -> Verdict:
    shares = {**EQUAL, "candidate": {"pass": 0.9, "fail": 0.5, "insufficient": 0.85}[outcome]}
    of = rows(900 if outcome != "insufficient" else 40)
    return replace(judged({"rules": [MARGIN]}, shares, of), subject=replace(SUBJECT, digest=digest))


@pytest.mark.parametrize("outcome", ["pass", "fail", "insufficient"])
def test_only_a_signed_pass_lets_an_artifact_through(outcome: str) -> None:
    asked = trust(key("ana"), JUDGE, require=(KIND,))
    verdict = verdict_on(outcome)
    word = attest(verdict, ARTIFACT, JUDGE, NOW).to_bytes()
    envelopes = [signed(ARTIFACT, key("ana")), word]
    given = (ARTIFACT.manifest_bytes, ARTIFACT.tensor_bytes)
    with pytest.raises(TrustError):
        verify(*given, envelopes[:1], asked, NOW)
    if outcome != "pass":
        with pytest.raises(TrustError, match=outcome):
            verify(*given, envelopes, asked, NOW)
        return
    (found,) = verify(*given, envelopes, asked, NOW).attestations
    body = found.finding.body
    assert body["policy"] == str(verdict.policy)
    assert body["sets"][0]["digest"] == str(verdict.sets[0].digest)
    assert body["verdict"] == str(verdict.digest)
    assert (body["rules"], body["rules_left_out"]) == (1, 0)
    # A later word of the same key takes it back.
    later = attest(verdict_on("fail"), ARTIFACT, JUDGE, NOW + timedelta(seconds=1)).to_bytes()
    with pytest.raises(TrustError):
        verify(*given, [*envelopes, later], asked, NOW + timedelta(seconds=2))


def test_a_verdict_is_about_one_artifact() -> None:
    with pytest.raises(UsageError, match="judge it again"):
        attest(verdict_on("pass", Digest.of(b"another")), ARTIFACT, JUDGE, NOW)


def test_a_long_verdict_fits_its_envelope_and_says_what_failed() -> None:
    verdict = verdict_on("pass")
    good = RuleResult(
        "a rule " * 8, "some rows", "pass", True, "fine", 0.5, 0.4, 0.6, 0.3, 100, 0.9, 50
    )
    bad = replace(good, outcome="fail", reason="broken")
    long = replace(verdict, outcome="fail", results=(*[good] * 500, bad))
    body = body_of(long)
    assert body["results"][0]["reason"] == "broken"
    assert body["rules"] == 501 == len(body["results"]) + body["rules_left_out"]
    assert len(attest(long, ARTIFACT, JUDGE, NOW).to_bytes()) < 64 << 10


def test_a_verdict_as_json_and_markdown() -> None:
    verdict = verdict_on("fail")
    value = json.loads(verdict.to_json())
    assert (value["schema"], value["outcome"]) == ("foreword.verdict/1", "fail")
    assert value["results"][0]["n"] == 900
    text = verdict.to_markdown()
    assert text.startswith("# FAIL: acme/support 2.0.0: fail (0 of 1 rules passed, 1 failed")
    headline = verdict.headline()
    assert (headline.outcome, headline.reasons[0]) == ("fail", verdict.reasons[0])
    hidden = replace(verdict.results[0], rows="a|b\n\u202e")
    text = replace(verdict, results=(hidden,)).to_markdown()
    assert "a\\|b [U+202E]" in text
