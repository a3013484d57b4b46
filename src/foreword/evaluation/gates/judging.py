"""Judge some contestants by some golden sets: from who answers to what was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from foreword.artifact import Artifact, Digest
from foreword.errors import UsageError
from foreword.evaluation.checks import CheckFunction, load_functions
from foreword.evaluation.golden import GoldenSet, require_match
from foreword.evaluation.metrics.metric import Judged, Measured, Metric
from foreword.evaluation.metrics.suite import judged_rows, suite
from foreword.evaluation.runs.answers import Answer
from foreword.evaluation.runs.ask import Ask, Finished, Generate
from foreword.evaluation.runs.decoding import Decoding
from foreword.evaluation.runs.embedded import embedded, engine_name
from foreword.evaluation.runs.endpoint import Endpoint
from foreword.evaluation.runs.replay import Progress, Replay, replay
from foreword.evaluation.runs.store import AnswerStore
from foreword.evaluation.runs.variant import Variant
from foreword.evaluation.scorecards.evaluation import Evaluation, evaluate

if TYPE_CHECKING:
    from foreword.prefix.base_model import BaseModel
    from foreword.prefix.loading import LoadedPrefix

Extra = Callable[[Variant, Sequence[Judged]], Sequence[Measured]]
"""Something more to measure on one variant and its answers, such as what a judge says (`extras.py`)."""


@dataclass(frozen=True)
class Contestant:
    """Somebody who answers: a prefix in the engine, the bare model, or a model at an endpoint."""

    name: str
    artifact: Artifact | None = None
    """None: the bare model, or an endpoint."""
    endpoint: Endpoint | None = None
    model: str = ""
    """What the endpoint calls it."""


@dataclass(frozen=True)
class Field:
    """Who answers, and what it takes to let them."""

    variants: tuple[Variant, ...]
    generate: Generate
    engine: str
    base: BaseModel | None = None
    prefixes: Mapping[Digest, LoadedPrefix] = field(default_factory=dict)
    """What is loaded in the engine; endpoints have their own."""


def field_of(contestants: Sequence[Contestant], base: BaseModel | None, probe: GoldenSet) -> Field:
    """Load the prefixes and ask every endpoint once which prefix it attaches, with a row of `probe`.

    From then on an answer with another prefix ends the run: a release in between is no evidence for
    either version.

    Raises:
        CompatibilityError: a prefix does not fit the base.
        UsageError: somebody needs a base and there is none (`evaluation.base`).
        ServingError: an endpoint does not answer.
    """
    here = [each for each in contestants if each.endpoint is None]
    prefixes = _loaded(here, base) if here else {}
    generators: dict[str, Generate] = {}
    if here:
        generators |= dict.fromkeys(
            [each.name for each in here], embedded(required(base), prefixes)
        )
    for each in contestants:
        if each.endpoint is not None:
            generators[each.name] = each.endpoint.generate
    variants = tuple(_variant(each, contestants, base, probe) for each in contestants)
    return Field(variants, routed(generators), _engine_name(contestants), base, prefixes)


def routed(generators: Mapping[str, Generate]) -> Generate:
    """One function that lets each variant's own generator answer, by the variant's name."""

    def run(asks: Sequence[Ask], decoding: Decoding, finished: Finished) -> None:
        groups: dict[Generate, list[int]] = {}
        for place, ask in enumerate(asks):
            groups.setdefault(generators[ask.variant.name], []).append(place)
        for generate, places in groups.items():
            _run_group(generate, places, asks, decoding, finished)

    return run


def require_matches(sets: Sequence[GoldenSet], contestants: Sequence[Contestant]) -> None:
    """Every set is for what every prefix is for.

    Raises:
        CompatibilityError: one is not (`golden.specialty`).
    """
    for golden in sets:
        for each in contestants:
            if each.artifact is not None:
                require_match(golden.header, each.artifact.manifest)


def judge_sets(
    sets: Sequence[GoldenSet],
    who: Field,
    decoding: Decoding,
    *,
    metrics: Sequence[Metric] | None = None,
    allowed: Sequence[str] = (),
    store: AnswerStore | None = None,
    progress: Progress = lambda done, total: None,
    extra: Extra | None = None,
) -> list[Evaluation]:
    """Let everybody answer every set, and measure; one evaluation for each set.

    Raises:
        UsageError: a check's function was not allowed or is not there.
        ServingError, PromptTooLong: an answer did not come; what was answered before is in `store`.
    """
    chosen = suite() if metrics is None else metrics
    functions = [load_functions(golden.functions(), allowed) for golden in sets]
    totals = [len(golden.rows) * len(who.variants) for golden in sets]
    found = []
    for number, (golden, known) in enumerate(zip(sets, functions, strict=True)):
        before, total = sum(totals[:number]), sum(totals)

        def tell(done: int, _total: int, before: int = before, total: int = total) -> None:
            progress(before + done, total)

        answers = replay(
            who.variants, golden, who.generate, decoding,
            engine=who.engine, store=store, progress=tell,
        )  # fmt: skip
        more = _more(answers, known, extra) if extra else None
        found.append(evaluate(answers, chosen, functions=known, extra=more))
    return found


def _more(
    answers: Replay, functions: Mapping[str, CheckFunction], extra: Extra
) -> dict[str, Sequence[Measured]]:
    rows = answers.golden.rows
    return {
        variant.name: extra(variant, judged_rows(rows, answers.answers[variant.name], functions))
        for variant in answers.variants
    }


def _loaded(here: Sequence[Contestant], base: BaseModel | None) -> dict[Digest, LoadedPrefix]:
    from foreword.prefix.loading import load_prefix

    loaded = required(base)
    artifacts = {each.artifact.digest: each.artifact for each in here if each.artifact}
    return {digest: load_prefix(loaded, artifact) for digest, artifact in artifacts.items()}


def _variant(
    each: Contestant, all_: Sequence[Contestant], base: BaseModel | None, probe: GoldenSet
) -> Variant:
    if each.endpoint is not None:
        digest = _attached(each.endpoint, each.model, probe)
        return Variant(each.name, digest, each.model, each.endpoint.url)
    fingerprint = str(required(base).ref.fingerprint)
    if each.artifact is not None:
        return Variant(each.name, each.artifact.digest, "engine", fingerprint)
    # The bare model is asked as the prefix beside it is; of several, as the last one.
    beside = [other.artifact.manifest.prompt for other in all_ if other.artifact]
    return Variant(each.name, None, "engine", fingerprint, beside[-1] if beside else None)


def _attached(endpoint: Endpoint, model: str, probe: GoldenSet) -> Digest | None:
    """The digest an endpoint names in an answer; None if it names none."""
    answers: list[Answer] = []
    ask = Ask(probe.rows[0], Variant("probe", None, model, endpoint.url))
    endpoint.generate([ask], Decoding(max_new_tokens=1), lambda _, said: answers.append(said))
    return answers[0].digest


def _engine_name(contestants: Sequence[Contestant]) -> str:
    urls = dict.fromkeys(each.endpoint.url for each in contestants if each.endpoint)
    here = any(each.endpoint is None for each in contestants)
    return "; ".join([*([engine_name()] if here else []), *urls])


def required(base: BaseModel | None) -> BaseModel:
    """
    Raises:
        UsageError: there is none (`evaluation.base`).
    """
    if base is None:
        raise UsageError("name the base model with --base", code="evaluation.base")
    return base


def _run_group(
    generate: Generate,
    places: Sequence[int],
    asks: Sequence[Ask],
    decoding: Decoding,
    finished: Finished,
) -> None:
    def done(at: int, answer: Answer) -> None:
        finished(places[at], answer)

    generate([asks[place] for place in places], decoding, done)
