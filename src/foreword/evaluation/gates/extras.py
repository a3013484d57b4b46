"""What is measured beside the metrics of the answers: perplexity on neutral text, and what a judge says."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from foreword.evaluation.gates.judging import Extra, Field
from foreword.evaluation.metrics.judge import SCHEMA, judge, judge_by_likelihood
from foreword.evaluation.metrics.metric import Judged, Measured
from foreword.evaluation.metrics.perplexity import neutral_perplexity
from foreword.evaluation.runs.endpoint import Endpoint
from foreword.evaluation.runs.scoring import likelihoods, text_scorer
from foreword.evaluation.runs.variant import Variant

if TYPE_CHECKING:
    from foreword.prefix.base_model import BaseModel

NAMES = frozenset({"neutral_perplexity", "llm_judge", "llm_judge_likelihood"})
"""Metrics that come from here and not from the suite."""


def perplexities(who: Field, texts: Sequence[str]) -> Extra:
    """Perplexity on these texts of every variant in the engine, measured now; endpoints have none."""
    known: dict[str, Measured] = {}
    if who.base is not None:
        for variant in who.variants:
            prefix = who.prefixes.get(variant.digest) if variant.digest else None
            if variant.route == "engine":
                scorer = text_scorer(who.base, prefix.kv if prefix else None)
                known[variant.name] = neutral_perplexity(scorer, texts)

    def extra(variant: Variant, _judged: Sequence[Judged]) -> list[Measured]:
        return [known[variant.name]] if variant.name in known else []

    return extra


def judged_by_endpoint(endpoint: Endpoint) -> Extra:
    """The verdicts of a model at an endpoint, on every answer; the endpoint holds it to their form."""
    ask = partial(endpoint.complete, schema=SCHEMA)

    def extra(_variant: Variant, judged: Sequence[Judged]) -> list[Measured]:
        said = judge(judged, ask, endpoint.model or "the endpoint's model").measured
        return [said] if said else []

    return extra


def judged_by_base(base: BaseModel) -> Extra:
    """How likely the frozen base finds it that an answer is right."""

    def extra(_variant: Variant, judged: Sequence[Judged]) -> list[Measured]:
        said = judge_by_likelihood(judged, likelihoods(base), base.ref.id)
        return [said] if said else []

    return extra


def all_of(extras: Sequence[Extra]) -> Extra:
    """All of them, one after the other."""

    def extra(variant: Variant, judged: Sequence[Judged]) -> list[Measured]:
        return [found for each in extras for found in each(variant, judged)]

    return extra
