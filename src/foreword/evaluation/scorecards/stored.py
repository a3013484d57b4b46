"""The scorecard as JSON, for CI and for later comparisons; this file is its only reader and writer."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Literal, cast

from foreword.artifact import Digest, PromptFormat
from foreword.artifact.fields import Fields
from foreword.errors import ArtifactError, DataError, UsageError
from foreword.evaluation.checks.structured import no_constant, unique
from foreword.evaluation.golden.golden_set import parse_header
from foreword.evaluation.metrics.calibration import Calibration
from foreword.evaluation.metrics.metric import Better, Facts
from foreword.evaluation.runs.decoding import Decoding
from foreword.evaluation.runs.variant import Variant
from foreword.evaluation.scorecards.examples import Example, Examples
from foreword.evaluation.scorecards.pairing import Sampling
from foreword.evaluation.scorecards.scorecard import Cell, Comparison, Latency, Scorecard
from foreword.evaluation.scorecards.slices import Slice

SCHEMA = "foreword.scorecard/1"

_MOST = 1_000_000
_LARGE = 1e308
_BETTER = ("higher", "lower", "neither")
_TIME = "%Y-%m-%dT%H:%M:%SZ"


def to_json(card: Scorecard) -> str:
    """One JSON object with sorted keys; equal scorecards give equal texts."""
    value = {
        "schema": SCHEMA,
        "golden": card.golden.to_json(),
        "set_digest": str(card.set_digest),
        "rows": card.rows,
        "variants": [{"name": v.name, **v.to_json()} for v in card.variants],
        "decoding": card.decoding.to_json(),
        "engine": card.engine,
        "created": card.created.astimezone(UTC).strftime(_TIME),
        "sampling": vars(card.sampling),
        "metrics": [vars(facts) for facts in card.metrics],
        "cells": [{**vars(cell), "slice": vars(cell.slice)} for cell in card.cells],
        "comparisons": [{**vars(each), "slice": vars(each.slice)} for each in card.comparisons],
        "latencies": [vars(latency) for latency in card.latencies],
        "examples": [_pair(examples) for examples in card.examples],
        "calibrations": [{**vars(c), "labels": str(c.labels)} for c in card.calibrations],
    }
    return json.dumps(value, sort_keys=True, indent=1, allow_nan=False) + "\n"


def from_json(text: str) -> Scorecard:
    """Read what `to_json` writes.

    Raises:
        DataError: it is something else (`scorecard.format`); the message names the field.
    """
    try:
        value = json.loads(text, object_pairs_hook=unique, parse_constant=no_constant)
        return _card(Fields(value, "scorecard"))
    except (ArtifactError, UsageError, ValueError, RecursionError) as e:
        raise DataError(
            f"{str(e)[:300]}; expected a scorecard written by this version of Foreword",
            code="scorecard.format",
        ) from e


def _card(fields: Fields) -> Scorecard:
    fields.choice("schema", (SCHEMA,))
    card = Scorecard(
        golden=parse_header(fields.object("golden").rest()),
        set_digest=Digest.parse(fields.text("set_digest")),
        rows=fields.integer("rows", 0, _MOST),
        variants=tuple(_variant(f) for f in fields.objects("variants", _MOST)),
        decoding=_decoding(fields.object("decoding")),
        engine=fields.text("engine"),
        created=datetime.strptime(fields.text("created"), _TIME).replace(tzinfo=UTC),
        sampling=_sampling(fields.object("sampling")),
        metrics=tuple(_facts(f) for f in fields.objects("metrics", _MOST)),
        cells=tuple(_cell(f) for f in fields.objects("cells", _MOST)),
        comparisons=tuple(_comparison(f) for f in fields.objects("comparisons", _MOST)),
        latencies=tuple(_latency(f) for f in fields.objects("latencies", _MOST)),
        examples=tuple(_examples(f) for f in fields.objects("examples", _MOST)),
        calibrations=tuple(_calibration(f) for f in fields.objects("calibrations", _MOST)),
    )
    fields.done()
    return card


def _variant(fields: Fields) -> Variant:
    variant = Variant(
        fields.text("name"),
        None if fields.is_null("digest") else Digest.parse(fields.text("digest")),
        fields.text("route"),
        fields.text("base"),
        None if fields.is_null("prompt") else _prompt(fields.object("prompt")),
    )
    fields.done()
    return variant


def _prompt(fields: Fields) -> PromptFormat:
    kind = cast(Literal["template", "chat"], fields.choice("kind", ("template", "chat")))
    prompt = PromptFormat(kind, fields.text("template"))
    fields.done()
    return prompt


def _decoding(fields: Fields) -> Decoding:
    decoding = Decoding(
        fields.integer("max_new_tokens", 1, _MOST),
        fields.number("temperature", 0, 10),
        fields.integer("seed", 0, 2**53),
    )
    fields.done()
    return decoding


def _sampling(fields: Fields) -> Sampling:
    sampling = Sampling(
        fields.integer("resamples", 1, _MOST),
        fields.number("confidence", 0, 1),
        fields.integer("seed", 0, 2**53),
    )
    fields.done()
    return sampling


def _facts(fields: Fields) -> Facts:
    facts = Facts(
        fields.text("name"),
        cast(Better, fields.choice("better", _BETTER)),
        fields.text("about"),
        fields.integer("version", 1, _MOST),
        fields.boolean("proxy"),
        fields.text("unit"),
    )
    fields.done()
    return facts


def _slice(fields: Fields) -> Slice:
    part = Slice(*(fields.text(name) for name in ("cohort", "specialty", "language", "tag")))
    fields.done()
    return part


def _cell(fields: Fields) -> Cell:
    cell = Cell(
        fields.text("variant"),
        _slice(fields.object("slice")),
        fields.text("metric"),
        _any(fields, "value"),
        _any(fields, "low"),
        _any(fields, "high"),
        fields.integer("n", 0, _MOST),
    )
    fields.done()
    return cell


def _comparison(fields: Fields) -> Comparison:
    comparison = Comparison(
        fields.text("candidate"),
        fields.text("against"),
        _slice(fields.object("slice")),
        fields.text("metric"),
        _any(fields, "difference"),
        _any(fields, "low"),
        _any(fields, "high"),
        fields.number("p", 0, 1),
        fields.number("p_adjusted", 0, 1),
        fields.integer("n", 0, _MOST),
    )
    fields.done()
    return comparison


def _latency(fields: Fields) -> Latency:
    latency = Latency(
        fields.text("variant"),
        fields.number("p50", 0, _LARGE),
        fields.number("p95", 0, _LARGE),
        fields.integer("n", 0, _MOST),
    )
    fields.done()
    return latency


def _pair(examples: Examples) -> dict[str, Any]:
    sides = {"wins": examples.wins, "losses": examples.losses}
    return {**vars(examples), **{k: [vars(each) for each in rows] for k, rows in sides.items()}}


def _examples(fields: Fields) -> Examples:
    examples = Examples(
        fields.text("candidate"),
        fields.text("against"),
        fields.text("metric"),
        tuple(_example(f) for f in fields.objects("wins", _MOST)),
        tuple(_example(f) for f in fields.objects("losses", _MOST)),
    )
    fields.done()
    return examples


def _example(fields: Fields) -> Example:
    example = Example(
        fields.text("row"),
        fields.text("cohort"),
        fields.text("input"),
        fields.texts("references", _MOST),
        fields.text("candidate"),
        fields.text("against"),
        _any(fields, "change"),
    )
    fields.done()
    return example


def _calibration(fields: Fields) -> Calibration:
    calibration = Calibration(
        fields.text("metric"),
        fields.integer("version", 1, _MOST),
        _any(fields, "threshold"),
        fields.number("agreement", 0, 1),
        fields.number("kappa", -1, 1),
        fields.integer("n", 0, _MOST),
        Digest.parse(fields.text("labels")),
    )
    fields.done()
    return calibration


def _any(fields: Fields, name: str) -> float:
    return fields.number(name, -_LARGE, _LARGE)
