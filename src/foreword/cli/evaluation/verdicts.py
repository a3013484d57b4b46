"""A verdict on a prefix, or on a chain of them: judged, decided, signed if wanted, delivered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from foreword.cli.evaluation.options import Format, Measuring
from foreword.cli.evaluation.sides import Places, contestant, fetch, open_side, stable_of
from foreword.cli.output import errors
from foreword.errors import CompatibilityError, UsageError

if TYPE_CHECKING:
    from foreword.artifact import Artifact, Digest
    from foreword.evaluation.gates.chain_file import ChainFile
    from foreword.evaluation.gates.chains import Chain
    from foreword.evaluation.gates.judging import Contestant
    from foreword.evaluation.gates.policy import GatePolicy
    from foreword.evaluation.gates.verdict import Subject, Verdict
    from foreword.evaluation.golden import GoldenSet
    from foreword.evaluation.runs.decoding import Decoding
    from foreword.evaluation.scorecards.evaluation import Evaluation
    from foreword.evaluation.scorecards.scorecard import Scorecard

NONE, AUTO = "none", "auto"


@dataclass(frozen=True)
class Job:
    """What is the same for a prefix and a chain."""

    sets: Sequence[GoldenSet]
    policy: GatePolicy
    base: str | None
    decoding: Decoding
    measuring: Measuring
    places: Places
    answers: Path | None
    sign: str | None
    shown: Format
    out: Path | None


def gate_prefix(job: Job, candidate: str, incumbent: str, bare: str | None) -> int:
    """Judge one prefix beside what is released and the base; the exit code of the verdict."""
    from foreword.cli.evaluation.running import run
    from foreword.evaluation.gates.decide import decide
    from foreword.evaluation.gates.facts import facts_of
    from foreword.evaluation.gates.judging import require_matches
    from foreword.evaluation.gates.policy import BASE, CANDIDATE, INCUMBENT

    own = contestant(CANDIDATE, candidate, job.places)
    require_matches(job.sets, [own])
    other = _incumbent(own, incumbent, job.places)
    who = [own]
    if other is not None:
        who.insert(0, contestant(INCUMBENT, other, job.places))
    if bare is not None:
        who.insert(0, contestant(BASE, bare, job.places))
    done = run(who, job.sets, job.base, job.decoding, job.measuring, job.places, job.answers)
    artifact = own.artifact or _behind(done.evaluations[0], job)
    verdict = decide(
        done.evaluations,
        job.policy,
        _subject(candidate, artifact, done.evaluations, CANDIDATE),
        datetime.now(UTC),
        facts=facts_of(artifact.manifest, artifact.digest) if artifact else None,
        incumbent=_subject(other, who[-2].artifact, done.evaluations, INCUMBENT) if other else None,
        scorecards=_digests(done.scorecards),
    )
    if job.sign is not None:
        from foreword.cli.evaluation.recording import record

        record(verdict, _signable(artifact, candidate), candidate, job.sign, job.places)
    return _deliver(job, done.scorecards, verdict)


def gate_chain(job: Job, candidate: str, incumbent: str | None) -> int:
    """Judge a chain beside another one and the same steps without prefixes."""
    from foreword.evaluation.gates.decide import decide
    from foreword.evaluation.gates.policy import CANDIDATE, INCUMBENT
    from foreword.evaluation.gates.verdict import Subject
    from foreword.evaluation.scorecards.scorecard import build

    read = _chains(job, candidate, incumbent)
    evaluations = _answered(job, read)
    now = datetime.now(UTC)
    cards = [build(each, now) for each in evaluations]
    subjects = {
        name: Subject(read.files[name].name, "", chain.key) for name, chain in read.chains.items()
    }
    verdict = decide(
        evaluations, job.policy, subjects[CANDIDATE], now, incumbent=subjects.get(INCUMBENT),
        scorecards=_digests(cards),
    )  # fmt: skip
    if job.sign is not None:
        _sign_chain(job, verdict, read.chains[CANDIDATE], read.artifacts)
    return _deliver(job, cards, verdict)


@dataclass(frozen=True)
class _Chains:
    """The files, the chains they mean now, and every artifact they name."""

    files: dict[str, ChainFile]
    chains: dict[str, Chain]
    artifacts: dict[str, Artifact]


def _chains(job: Job, candidate: str, incumbent: str | None) -> _Chains:
    from foreword.evaluation.gates.chain_file import load_chain
    from foreword.evaluation.gates.policy import CANDIDATE, INCUMBENT

    files = {CANDIDATE: load_chain(Path(candidate))}
    if incumbent is not None:
        files[INCUMBENT] = load_chain(Path(incumbent))
    for golden in job.sets:
        _require_specialty(golden, files[CANDIDATE])
    texts = dict.fromkeys(text for file in files.values() for text in file.prefixes)
    artifacts = {text: open_side(text, job.places) for text in texts}
    digests = {text: artifact.digest for text, artifact in artifacts.items()}
    chains = {name: file.chain(name, digests) for name, file in files.items()}
    return _Chains(files, chains, artifacts)


def _answered(job: Job, read: _Chains) -> list[Evaluation]:
    from foreword.cli.evaluation.running import load, opened_store, progress_line
    from foreword.evaluation.checks import load_functions
    from foreword.evaluation.gates.chains import replay_chains
    from foreword.evaluation.gates.judging import required
    from foreword.evaluation.gates.policy import CANDIDATE
    from foreword.evaluation.metrics.suite import suite
    from foreword.evaluation.runs.embedded import embedded, engine_name
    from foreword.evaluation.scorecards.evaluation import evaluate
    from foreword.prefix.loading import load_prefix

    base = required(load(job.base) if job.base else None)
    prefixes = {each.digest: load_prefix(base, each) for each in read.artifacts.values()}
    everybody = [read.chains[CANDIDATE].bare(), *reversed(read.chains.values())]
    evaluations = []
    with opened_store(job.answers) as store, progress_line() as tell:
        for golden in job.sets:
            functions = load_functions(golden.functions(), job.measuring.allowed)
            said = replay_chains(
                everybody, golden, embedded(base, prefixes), job.decoding,
                base=str(base.ref.fingerprint), engine=engine_name(), store=store, progress=tell,
            )  # fmt: skip
            evaluations.append(evaluate(said, suite(), functions=functions))
    return evaluations


def _incumbent(own: Contestant, said: str, places: Places) -> str | None:
    if said == NONE:
        return None
    if said != AUTO:
        return said
    if own.artifact is None:  # what an endpoint replaces is not known from here
        return None
    found = stable_of(own.artifact.manifest.name, own.artifact.digest, places)
    name = own.artifact.manifest.name
    errors.print(
        f"compared with {found}, which is released as {name}" if found
        else f"nothing else is released as {name}; compared with the base",
        markup=False, soft_wrap=True,
    )  # fmt: skip
    return found


def _behind(evaluation: Evaluation, job: Job) -> Artifact | None:
    """The artifact an endpoint said it attached, if a verdict about it is to be signed."""
    digest = evaluation.replay.variants[-1].digest
    return fetch(str(digest), job.places) if digest and job.sign else None


def _subject(
    side: str, artifact: Artifact | None, evaluations: Sequence[Evaluation], variant: str
) -> Subject:
    from foreword.evaluation.gates.verdict import Subject

    if artifact is not None:
        return Subject(artifact.manifest.name, artifact.manifest.version, artifact.digest)
    (found,) = (v for v in evaluations[0].replay.variants if v.name == variant)
    return Subject(side, "", found.digest)


def _signable(artifact: Artifact | None, candidate: str) -> Artifact:
    if artifact is None:
        raise UsageError(
            f"{candidate} does not say which version it attaches, so no verdict about one can be signed",
            code="gate.subject",
        )
    return artifact


def _sign_chain(job: Job, verdict: Verdict, chain: Chain, artifacts: dict[str, Artifact]) -> None:
    from foreword.cli.evaluation.recording import put
    from foreword.evaluation.gates.attest import attest_chain
    from foreword.signing.keys import load_key

    envelopes = attest_chain(
        verdict, chain, artifacts.values(), load_key(str(job.sign)), datetime.now(UTC)
    )
    for text, artifact in artifacts.items():
        if artifact.digest in envelopes:
            put(envelopes[artifact.digest], artifact, text, job.places)


def _require_specialty(golden: GoldenSet, chain: ChainFile) -> None:
    from foreword.evaluation.golden import matches

    if not matches(golden.header, chain.specialty):
        raise CompatibilityError(
            f"the golden set {golden.label} is for {golden.header.specialty!r}, the chain {chain.name} is "
            f"for {chain.specialty!r}; name a set that fits",
            code="golden.specialty",
        )


def _digests(cards: Sequence[Scorecard]) -> list[Digest]:
    from foreword.artifact import Digest
    from foreword.evaluation.scorecards.stored import to_json

    return [Digest.of(to_json(card).encode()) for card in cards]


def _deliver(job: Job, cards: Sequence[Scorecard], verdict: Verdict) -> int:
    from foreword.cli.evaluation.delivering import deliver

    deliver(cards, job.shown, job.out, verdict)
    return verdict.exit_code
