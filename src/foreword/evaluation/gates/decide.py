"""From questions to a verdict. Pure: the same measurements, policy and facts give the same verdict.

A candidate passes if every required rule passes, each shown at level alpha; so a whole pass is wrong with
probability alpha at most, however many rules there are (intersection-union, Berger 1982). It fails if one
rule is shown to be broken, after Holm's correction for all of them; so it wrongly fails with probability
alpha at most. Everything between is not enough evidence, which is an answer and no pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np

from foreword.artifact import Digest
from foreword.errors import CompatibilityError
from foreword.evaluation.gates.calibrate import error_rates
from foreword.evaluation.gates.facts import ArtifactFacts
from foreword.evaluation.gates.policy import INCUMBENT, GatePolicy
from foreword.evaluation.gates.questions import Question, Unasked, questions
from foreword.evaluation.gates.verdict import RuleResult, SetFacts, Subject, Verdict, overall
from foreword.evaluation.golden import matches
from foreword.evaluation.runs.replay import Replay
from foreword.evaluation.scorecards.evaluation import Evaluation
from foreword.evaluation.scorecards.pairing import Sampling, difference, value_interval
from foreword.evaluation.statistics.distributions import normal_quantile, normal_tail
from foreword.evaluation.statistics.noninferiority import (
    Evidence,
    above,
    as_family,
    from_interval,
)
from foreword.evaluation.statistics.power import power_of, rows_needed, variance_of_pilot

_WIDE = 1_000.0
"""Bounds of corpus metrics that have none: only asked for where no row differs at all."""


def decide(
    evaluations: Sequence[Evaluation],
    policy: GatePolicy,
    subject: Subject,
    now: datetime,
    *,
    facts: ArtifactFacts | None = None,
    incumbent: Subject | None = None,
    scorecards: Sequence[Digest] = (),
) -> Verdict:
    """Judge the variant `candidate` of every evaluation by a policy.

    `facts` are those of its artifact; a chain or an endpoint has none, and rules about them are not
    decided then. The incumbent is the variant `incumbent` where there is one, else `base`.

    Raises:
        CompatibilityError: a set is for another specialty than the candidate (`golden.specialty`), or
            the candidate is for another than the policy (`gate.specialty`).
    """
    _require_specialty(evaluations, policy, facts)
    asked = list(questions(policy, evaluations))
    own = [each for each in asked if isinstance(each, Question)]
    results = [
        *_answers(own, policy),
        *(_undecided(each) for each in asked if isinstance(each, Unasked)),
        *_of_facts(policy, facts),
    ]
    replays = [each.replay for each in evaluations]
    return Verdict(
        outcome=overall(results),
        subject=subject,
        incumbent=_incumbent(replays, incumbent),
        results=tuple(results),
        rates=error_rates(own, policy, [[row.id for row in r.golden.rows] for r in replays]),
        alpha=policy.alpha,
        policy=policy.digest,
        sets=tuple(_set_facts(replay) for replay in replays),
        scorecards=tuple(scorecards),
        base=replays[0].variants[-1].base,
        engine=replays[0].engine,
        decided=now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


def _require_specialty(
    evaluations: Sequence[Evaluation], policy: GatePolicy, facts: ArtifactFacts | None
) -> None:
    if facts is None:
        return
    for each in evaluations:
        header = each.replay.golden.header
        if not matches(header, facts.specialty):
            raise CompatibilityError(
                f"the golden set {header.name}@{header.version} is for {header.specialty!r}, but "
                f"{facts.name}@{facts.version} is for {facts.specialty!r}; name a set that fits",
                code="golden.specialty",
            )
    if policy.specialty not in (None, facts.specialty):
        raise CompatibilityError(
            f"the policy is for {policy.specialty!r}, but {facts.name}@{facts.version} is for "
            f"{facts.specialty!r}; name the policy that fits",
            code="gate.specialty",
        )


def _answers(own: Sequence[Question], policy: GatePolicy) -> Iterator[RuleResult]:
    family = as_family({str(place): evidence(q, policy) for place, q in enumerate(own)})
    for place, question in enumerate(own):
        yield _result(question, family[str(place)], policy)


def evidence(question: Question, policy: GatePolicy) -> Evidence:
    """What the rows say, as a one-sided test at the policy's alpha."""
    mine, theirs, alpha = question.mine, question.theirs, policy.alpha
    if mine.per_row and (theirs is None or theirs.per_row):
        values = paired_values(question)
        found = above(values, question.threshold, alpha=alpha, bounds=question.bounds)
    else:
        sampling = Sampling(confidence=1 - 2 * alpha, seed=policy.seed)
        interval = (
            value_interval(mine, sampling) if theirs is None else difference(mine, theirs, sampling)
        )
        found = from_interval(
            interval, question.threshold, alpha=alpha, fewest=policy.smallest_n,
            bounds=question.bounds or (-_WIDE, _WIDE),
        )  # fmt: skip
    if found.n >= policy.smallest_n:
        return found
    return replace(found, outcome="insufficient", p_below=1.0, p_above=1.0)


def paired_values(question: Question) -> np.ndarray:
    """One number for each row both have: the value, or mine minus theirs."""
    if question.theirs is None:
        return question.mine.row_values()
    known = set(question.theirs.ids)
    common = [each for each in question.mine.ids if each in known]
    return question.mine.only(common).row_values() - question.theirs.only(common).row_values()


def _result(question: Question, found: Evidence, policy: GatePolicy) -> RuleResult:
    power, needed = _power(question, found, policy)
    if question.turned and question.theirs is None:
        found = _turned_back(found)
    return RuleResult(
        rule=question.rule,
        rows=question.rows.label,
        outcome=found.outcome,
        required=not question.rows.watched,
        reason=_reason(question, found, policy, needed),
        value=_finite(found.estimate),
        low=_finite(found.low),
        high=_finite(found.high),
        limit=found.threshold,
        n=found.n,
        power=power,
        needed=needed,
    )


def _turned_back(found: Evidence) -> Evidence:
    """For people: a value that has to be at most something, with its own sign."""
    return replace(
        found,
        estimate=-found.estimate,
        low=-found.high,
        high=-found.low,
        threshold=-found.threshold,
    )


def _power(
    question: Question, found: Evidence, policy: GatePolicy
) -> tuple[float | None, int | None]:
    """Power and rows needed if the arms are equal, or where no equality is meant, if it is as measured."""
    gap = -found.threshold if question.equal else found.estimate - found.threshold
    if found.n < 2 or not gap > 0:
        return None, None
    wide = question.bounds
    if wide is None or not question.mine.per_row:
        error = (found.high - found.low) / (2 * normal_quantile(1 - policy.alpha))
        if not 0 < error < math.inf:
            return None, None
        z = normal_quantile(1 - policy.alpha)
        rows = found.n * ((z + normal_quantile(policy.power)) * error / gap) ** 2
        return normal_tail(z - gap / error), max(policy.smallest_n, math.ceil(rows))
    reach = (wide[1] - wide[0]) / (1 if question.theirs is None else 2)
    variance = variance_of_pilot(paired_values(question))
    power = power_of(found.n, variance, gap, alpha=policy.alpha, reach=reach)
    needed = rows_needed(variance, gap, alpha=policy.alpha, power=policy.power, reach=reach)
    return power, max(policy.smallest_n, needed)


def _reason(question: Question, found: Evidence, policy: GatePolicy, needed: int | None) -> str:
    most = question.turned and question.theirs is None
    if found.n < policy.smallest_n:
        return f"{found.n} rows, the policy decides nothing on less than {policy.smallest_n}"
    interval = f"it is {found.estimate:.4g}, {found.low:.4g} to {found.high:.4g}"
    if found.outcome == "pass":
        return f"{'below' if most else 'above'} {found.threshold:g}: {interval}"
    if found.outcome == "fail":
        return (
            f"{'above' if most else 'below'} {found.threshold:g}, for all rules asked: {interval}"
        )
    more = f"; about {needed:,} rows would tell" if needed and needed > found.n else ""
    return f"not shown to be on either side of {found.threshold:g}: {interval}{more}"


def _undecided(each: Unasked) -> RuleResult:
    return RuleResult(each.rule, each.rows, "insufficient", True, each.reason)


def _of_facts(policy: GatePolicy, facts: ArtifactFacts | None) -> Iterator[RuleResult]:
    """Rules about the training record: a number of the artifact, no sample of ours."""
    learned = policy.learned.loss if policy.learned else None
    if learned is not None:
        gained = _minus(facts.frozen_loss, facts.held_out_loss) if facts else None
        yield _fact("held-out loss below the base's by", gained, learned, above=True)
    if policy.gap is not None:
        gap = _minus(facts.held_out_loss, facts.training_loss) if facts else None
        yield _fact(
            "held-out loss above the training loss by at most", gap, policy.gap.loss, above=False
        )


def _fact(words: str, value: float | None, limit: float, *, above: bool) -> RuleResult:
    rule = f"{words} {limit:g} nats per token"
    if value is None:
        reason = "the artifact does not say it; train it with this version of Foreword"
        return RuleResult(rule, "training record", "insufficient", True, reason, limit=limit)
    good = value >= limit if above else value <= limit
    reason = f"it is {value:.4g}"
    return RuleResult(
        rule, "training record", "pass" if good else "fail", True, reason, value=value, limit=limit
    )


def _minus(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first - second


def _incumbent(replays: Sequence[Replay], said: Subject | None) -> Subject | None:
    """Who answered as the incumbent, under the name it was given if it was."""
    for each in replays:
        for variant in each.variants:
            if variant.name == INCUMBENT:
                return said or Subject(INCUMBENT, "", variant.digest)
    return None


def _set_facts(replay: Replay) -> SetFacts:
    header = replay.golden.header
    return SetFacts(header.name, header.version, replay.golden.digest, len(replay.golden.rows))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
