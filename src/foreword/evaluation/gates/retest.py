"""Judge everything that is released again: after another base, engine or library, nothing is known any more.

Each version is compared with itself: what it answered before lies in the answer store under the engine and
the base of then. A version whose base has other weights is refused by `load_prefix`, and stays refused; it is
tried here all the same, to know whether its numbers still mean something on the new base.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from foreword.artifact import Artifact, Digest, canonical
from foreword.errors import CompatibilityError
from foreword.evaluation.checks import load_functions
from foreword.evaluation.gates.decide import decide
from foreword.evaluation.gates.facts import facts_of
from foreword.evaluation.gates.policy import BASE, CANDIDATE, INCUMBENT, GatePolicy
from foreword.evaluation.gates.retested import Fate, Released, Retested, RetestReport
from foreword.evaluation.gates.verdict import Subject, Verdict
from foreword.evaluation.golden import ANY, GoldenSet, matches, specialty_of
from foreword.evaluation.metrics.suite import suite
from foreword.evaluation.runs.answers import Answer
from foreword.evaluation.runs.decoding import Decoding
from foreword.evaluation.runs.embedded import embedded, engine_name
from foreword.evaluation.runs.replay import Progress, Replay, key_of, replay
from foreword.evaluation.runs.store import AnswerStore
from foreword.evaluation.runs.variant import Variant
from foreword.evaluation.scorecards.evaluation import Evaluation, evaluate

if TYPE_CHECKING:
    from foreword.prefix.base_model import BaseModel
    from foreword.prefix.loading import LoadedPrefix

_FATES: Mapping[str, Fate] = {"pass": "survives", "fail": "fails", "insufficient": "unsure"}


@dataclass(frozen=True)
class _Loaded:
    """A released version on the new base, or why it is refused there."""

    released: Released
    artifact: Artifact
    prefix: LoadedPrefix | None
    refused: str = ""
    """Empty if it fits."""


def retest(
    versions: Mapping[Released, Artifact],
    sets: Sequence[GoldenSet],
    base: BaseModel,
    policy: GatePolicy,
    decoding: Decoding,
    store: AnswerStore,
    now: datetime,
    *,
    allowed: Sequence[str] = (),
    progress: Progress = lambda done, total: None,
) -> RetestReport:
    """Judge each version by the sets of its specialty, all versions of a set in one pass.

    Raises:
        UsageError: a check's function was not allowed or is not there.
        ServingError, PromptTooLong: an answer did not come; what was answered before is in `store`.
    """
    run = _Run([_load(base, r, a) for r, a in versions.items()], base, policy, decoding, store)
    for number, golden in enumerate(sets):

        def tell(done: int, total: int, number: int = number) -> None:
            progress(number * total + done, len(sets) * total)

        run.ask(golden, allowed, tell)
    return RetestReport(
        str(base.ref.fingerprint),
        engine_name(),
        policy.digest,
        tuple(run.result(each, now) for each in run.loaded),
    )


class _Run:
    def __init__(
        self,
        loaded: Sequence[_Loaded],
        base: BaseModel,
        policy: GatePolicy,
        decoding: Decoding,
        store: AnswerStore,
    ) -> None:
        self.loaded, self._base, self._policy = loaded, base, policy
        self._decoding, self._store = decoding, store
        self._keys = store.keys()
        self._found: dict[Digest, list[Evaluation]] = {}

    def ask(self, golden: GoldenSet, allowed: Sequence[str], progress: Progress) -> None:
        """Let everybody a set is for answer it, and measure each beside the base and itself before."""
        own = [each for each in self.loaded if each.prefix and _is_for(golden, each)]
        if not own:
            return
        functions = load_functions(golden.functions(), allowed)
        fingerprint = str(self._base.ref.fingerprint)
        bare = {
            each.prefix.prompt: Variant(
                f"base {number}", None, "engine", fingerprint, each.prefix.prompt
            )
            for number, each in enumerate(own)
            if each.prefix
        }
        variants = {
            each.released.digest: Variant(str(each.released.digest), each.released.digest, "engine",
                                          fingerprint)
            for each in own
        }  # fmt: skip
        prefixes = {each.released.digest: each.prefix for each in own if each.prefix}
        answers = replay(
            [*variants.values(), *bare.values()], golden, embedded(self._base, prefixes),
            self._decoding, engine=engine_name(), store=self._store, progress=progress,
        )  # fmt: skip
        for digest, variant in variants.items():
            beside = bare[prefixes[digest].prompt]
            part = self._three(answers, variant, beside)
            measured = evaluate(part, suite(), functions=functions)
            self._found.setdefault(digest, []).append(measured)

    def result(self, each: _Loaded, now: datetime) -> Retested:
        if each.prefix is None:
            return Retested(each.released, "retrain", each.refused)
        own = self._found.get(each.released.digest, [])
        if all(known.replay.golden.header.specialty == ANY for known in own):
            return Retested(each.released, "not_judged", each.refused)
        answers, changed = _changed(own)
        if changed == 0 and not each.refused:
            return Retested(each.released, "unchanged", "", answers, changed)
        verdict = self._verdict(each, own, now)
        fate, reason = _fate(each, verdict)
        return Retested(each.released, fate, reason, answers, changed, verdict)

    def _verdict(self, each: _Loaded, own: Sequence[Evaluation], now: datetime) -> Verdict:
        known = each.released
        subject = Subject(known.name, known.version, known.digest)
        facts = facts_of(each.artifact.manifest, known.digest)
        return decide(own, self._policy, subject, now, facts=facts, incumbent=subject)

    def _three(self, answers: Replay, variant: Variant, bare: Variant) -> Replay:
        """Base, the version as it was where that is known, and as it is now."""
        now = answers.answers[variant.name]
        before = self._before(variant, answers.golden)
        variants = [replace(bare, name=BASE), replace(variant, name=CANDIDATE)]
        said = {BASE: answers.answers[bare.name], CANDIDATE: now}
        if before:
            variants.insert(1, replace(variant, name=INCUMBENT, base=before[0]))
            said[INCUMBENT] = before[1]
        return replace(answers, variants=tuple(variants), answers=said)

    def _before(
        self, variant: Variant, golden: GoldenSet
    ) -> tuple[str, Mapping[str, Answer]] | None:
        """The newest whole set of answers under another engine or base, and that base."""
        key = key_of(variant, golden.digest, self._decoding, engine_name())
        for other in self._keys:
            if _but(other) == _but(key) and canonical.encode(other) != canonical.encode(key):
                answers = self._store.answers(other)
                if all(row.id in answers for row in golden.rows):
                    return str(other["base"]), answers
        return None


def _load(base: BaseModel, released: Released, artifact: Artifact) -> _Loaded:
    from foreword.prefix.loading import load_prefix

    try:
        return _Loaded(released, artifact, load_prefix(base, artifact))
    except CompatibilityError as e:
        return _Loaded(released, artifact, _on_trial(base, artifact), str(e))


def _on_trial(base: BaseModel, artifact: Artifact) -> LoadedPrefix | None:
    """The numbers on a base they were not made for; None if they have no place there. Never for serving."""
    from foreword.prefix.kv import PrefixKV
    from foreword.prefix.loading import LoadedPrefix

    manifest = artifact.manifest
    room = base.context is None or manifest.length < base.context
    if not base.geometry.covers(manifest.geometry) or not room:
        return None
    kv = PrefixKV.from_artifact(artifact).to(device=base.device)
    return LoadedPrefix(manifest.name, manifest.version, artifact.digest, kv, manifest.prompt)


def _is_for(golden: GoldenSet, each: _Loaded) -> bool:
    return matches(golden.header, specialty_of(each.artifact.manifest))


def _but(key: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in key.items() if name not in ("engine", "base")}


def _changed(own: Sequence[Evaluation]) -> tuple[int, int | None]:
    """Rows with an answer now and, if every set was answered before, those with another text."""
    rows = sum(len(each.replay.golden.rows) for each in own)
    if not all(INCUMBENT in each.replay.answers for each in own):
        return rows, None
    return rows, sum(_texts(each.replay) for each in own)


def _texts(answers: Replay) -> int:
    before, now = answers.answers[INCUMBENT], answers.answers[CANDIDATE]
    return sum(before[row.id].text != now[row.id].text for row in answers.golden.rows)


def _fate(each: _Loaded, verdict: Verdict) -> tuple[Fate, str]:
    reasons: Iterator[str] = iter(verdict.reasons)
    first = next(reasons, verdict.says)
    if each.refused:
        return ("transfers" if verdict.passed else "retrain"), f"{each.refused}; tried: {first}"
    return _FATES[verdict.outcome], "" if verdict.passed else first
