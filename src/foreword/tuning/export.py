"""What a finished run leaves behind: an artifact, a report and the log, written together."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from foreword.artifact import Artifact, PromptFormat, pack, write_artifact
from foreword.prefix.base_model import BaseModel
from foreword.prefix.kv import PrefixKV, dtype_name
from foreword.prefix.loading import LoadedPrefix
from foreword.prefix.probe import make_probes
from foreword.serving.generation import GenerationRequest, generate
from foreword.tuning.checks import Outcome
from foreword.tuning.data import Dataset, Example
from foreword.tuning.recipe import Recipe
from foreword.tuning.report import ReportSample, RunReport, render_report
from foreword.tuning.runlog import read_log
from foreword.tuning.tokens import tokenize

_SAMPLES, _SAMPLE_TOKENS = 6, 96
_PROBES, _PROBE_TOKENS = 4, 24
_PACKAGES = ("foreword", "torch", "transformers", "safetensors", "tokenizers")

Sample = ReportSample


@dataclass(frozen=True)
class RunSummary:
    """What a run was, in numbers."""

    steps: int
    best_step: int
    """The step whose parameters were kept."""
    peak_lr: float
    seconds: float
    tokens: int
    log: Path


@dataclass(frozen=True)
class Written:
    """An artifact on disk and the samples in its report."""

    artifact: Artifact
    samples: tuple[Sample, ...]


def write(
    recipe: Recipe,
    base: BaseModel,
    dataset: Dataset,
    prompt: PromptFormat,
    prefix: PrefixKV,
    outcome: Outcome,
    summary: RunSummary,
    out: Path,
) -> Written:
    """Pack, answer a few held-out inputs with and without the prefix, and write it all to `out`."""
    artifact = _pack(recipe, base, dataset, prompt, prefix, outcome, summary)
    loaded = LoadedPrefix(recipe.name, recipe.version, artifact.digest, prefix, prompt)
    samples = _samples(base, loaded, dataset.held_out)
    report = _report(recipe, base, dataset, artifact, outcome, summary, samples)
    companions = {
        "report.html": render_report(report).encode(),
        "training.jsonl": summary.log.read_bytes(),
    }
    write_artifact(artifact, out, companions=companions)
    return Written(artifact, samples)


def _pack(
    recipe: Recipe,
    base: BaseModel,
    dataset: Dataset,
    prompt: PromptFormat,
    prefix: PrefixKV,
    outcome: Outcome,
    summary: RunSummary,
) -> Artifact:
    rows = tokenize(base, dataset.held_out[:_PROBES], prompt, prefix.length)
    probes = make_probes(base, prefix, [row.prompt[-_PROBE_TOKENS:] for row in rows])
    return pack(
        name=recipe.name,
        version=recipe.version,
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        base=base.ref,
        geometry=prefix.geometry,
        length=prefix.length,
        dtype=dtype_name(prefix.dtype),
        prompt=prompt,
        training=_record(recipe, dataset, outcome, summary),
        probes=probes,
        tensors=prefix.to_bytes(),
    )


def _record(
    recipe: Recipe, dataset: Dataset, outcome: Outcome, summary: RunSummary
) -> dict[str, Any]:
    """The training record: enough to tell what was trained on what, by which code."""
    return {
        "data": {
            "digest": str(dataset.digest),
            "train_rows": len(dataset.train),
            "held_out_rows": len(dataset.held_out),
            "skipped_rows": len(dataset.bad_rows),
        },
        "seed": recipe.seed,
        "settings": recipe.model_dump(mode="json"),
        "run": {
            "steps": summary.steps,
            "best_step": summary.best_step,
            "peak_lr": summary.peak_lr,
            "seconds": round(summary.seconds, 1),
            "tokens": summary.tokens,
        },
        "metrics": {
            "held_out_loss": outcome.held_out,
            "training_loss": outcome.trained,
            "frozen_loss": outcome.frozen,
            "divergence": outcome.divergence,
            "export_parity": outcome.parity,
            "attention_share": {
                str(site): [round(share, 4) for share in layers.values()]
                for site, layers in outcome.attention.items()
            },
        },
        "software": {"python": platform.python_version(), **{p: version(p) for p in _PACKAGES}},
    }


def _samples(
    base: BaseModel, prefix: LoadedPrefix, examples: Sequence[Example]
) -> tuple[Sample, ...]:
    """Held-out inputs answered by the frozen model and by the prefix, in one mixed batch."""
    chosen = examples[:_SAMPLES]
    requests = [
        GenerationRequest(example.columns, who, prefix.prompt)
        for example in chosen
        for who in (None, prefix)
    ]
    room = _SAMPLE_TOKENS
    if base.context is not None:
        rows = tokenize(base, chosen, prefix.prompt, prefix.kv.length)
        room = min(room, base.context - prefix.kv.length - max(len(row.prompt) for row in rows))
    answers = [c.text for c in generate(base, requests, max_new_tokens=room)]
    return tuple(
        Sample(example.prompt, example.target, before, after)
        for example, before, after in zip(chosen, answers[::2], answers[1::2], strict=True)
    )


def _report(
    recipe: Recipe,
    base: BaseModel,
    dataset: Dataset,
    artifact: Artifact,
    outcome: Outcome,
    summary: RunSummary,
    samples: tuple[Sample, ...],
) -> RunReport:
    entries = read_log(summary.log)
    manifest = artifact.manifest
    return RunReport(
        title=f"{recipe.name} {recipe.version}",
        verdict=f"Held-out loss {outcome.held_out:.3f}, the frozen model has {outcome.frozen:.3f}.",
        warnings=outcome.warnings,
        facts={
            "digest": str(artifact.digest),
            "base": f"{base.ref.id} ({base.ref.fingerprint})",
            "virtual tokens": str(manifest.length),
            "size": f"{manifest.tensors.size:,} bytes",
            "rows": f"{len(dataset.train)} training, {len(dataset.held_out)} held out, "
            f"{len(dataset.bad_rows)} left out, {dataset.duplicates} duplicates",
            "data digest": str(dataset.digest),
            "steps": f"{summary.steps}, the best was {summary.best_step}",
            "time": f"{summary.seconds:.0f} s, {summary.tokens / summary.seconds:.0f} tokens/s",
            "divergence from the frozen model": f"{outcome.divergence:.3f} nats per token",
            "software": ", ".join(f"{k} {v}" for k, v in manifest.training["software"].items()),
        },
        settings=dict(_flat(recipe.model_dump(mode="json"))),
        loss=_curve(entries, "loss"),
        held_out=_curve(entries, "held_out"),
        frozen=outcome.frozen,
        lr=_curve(entries, "lr"),
        grad_norm=_curve(entries, "grad_norm"),
        attention={str(site): list(layers.values()) for site, layers in outcome.attention.items()},
        samples=samples,
    )


def _curve(entries: Sequence[dict[str, Any]], key: str) -> list[tuple[float, float]]:
    return [(float(e["step"]), float(e[key])) for e in entries if key in e]


def _flat(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", "default" if value is None else str(value)
