"""`train`: a frozen model and examples become a prefix. Read from top to bottom."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils import clip_grad_norm_

from foreword.artifact import Artifact, Digest
from foreword.errors import StorageError, TrainingError
from foreword.prefix.base_model import BaseModel
from foreword.prefix.kv import DTYPES, PrefixKV
from foreword.prefix.prompts import chosen_format
from foreword.prefix.selfcheck import require_attachment
from foreword.tuning import export
from foreword.tuning.checkpoints import RunIdentity, RunState, load_checkpoint, save_checkpoint
from foreword.tuning.checks import Outcome, judge, require_gradients
from foreword.tuning.data import Dataset
from foreword.tuning.encoders import Encoder, build_encoder
from foreword.tuning.gates import lean_gates
from foreword.tuning.memory import checkpointed, precision
from foreword.tuning.objective import forward_backward, mean_loss
from foreword.tuning.recipe import Recipe
from foreword.tuning.runlog import RunLog
from foreword.tuning.schedule import Schedule, make_schedule
from foreword.tuning.starts import make_start
from foreword.tuning.tokens import TokenRow, micro_batches, row_order, tokenize

LOG_FILE = "training.jsonl"
_DIVERGED = 2.0
"""A run is stopped when its loss is this many times the larger of its first and the frozen one."""
_WINDOW = 10
_BETAS = (0.9, 0.95)
"""Of Adam. Its usual 0.999 averages squared gradients over a thousand steps; a run has some hundred,
and the large gradients of the first would slow down all the others."""


@dataclass(frozen=True)
class Progress:
    """What a run reports after each step."""

    step: int
    steps: int
    loss: float
    """Mean loss per target token of this step's rows."""
    held_out: float | None
    """Held-out loss, on the steps that evaluate."""
    frozen: float
    """Held-out loss of the frozen model."""
    tokens_per_second: float
    seconds_left: float
    resumed_from: int
    """Steps that an earlier session had already done."""


@dataclass(frozen=True)
class TrainedPrefix:
    """The result of a run: the prefix, its artifact, and what was measured."""

    prefix: PrefixKV
    artifact: Artifact
    directory: Path
    """Where the artifact lies, with `report.html` and `training.jsonl` beside it."""
    outcome: Outcome
    samples: tuple[export.Sample, ...]


def train(
    recipe: Recipe,
    base: BaseModel,
    dataset: Dataset,
    out: Path,
    *,
    progress: Callable[[Progress], None] = lambda _: None,
) -> TrainedPrefix:
    """Train a prefix and write its artifact to `out`.

    While it runs, its state lies in `out` + `.partial`; the same call goes on from there, and ends
    bit for bit as if it had never been stopped (on one machine, with as many threads).

    Raises:
        UsageError: settings or data cannot be used, or `out.partial` holds another run.
        UnsupportedModel: the base cannot carry a prefix.
        TrainingError: the loss diverged, or the result would be useless; nothing is written then.
        StorageError: `out` exists already, or the disk is full.
    """
    require_free(out)
    require_attachment(base)
    prompt = chosen_format(recipe.data.template, base.tokenizer)
    run = _Run(
        recipe,
        base,
        train_rows=tokenize(base, dataset.train, prompt, recipe.prefix.length),
        held_out_rows=tokenize(base, dataset.held_out, prompt, recipe.prefix.length),
        data=dataset.digest,
        workplace=out.with_name(out.name + ".partial"),
    )
    with lean_gates(base), checkpointed(base, recipe.train.gradient_checkpointing):
        run.to_the_end(progress)
    prefix = run.best_prefix().to(dtype=DTYPES[recipe.prefix.dtype])
    outcome = judge(
        base,
        run.encoder,
        prefix,
        run.held_out_rows,
        run.frozen,
        recipe.train.batch_tokens,
        trained_on=run.train_rows[: len(run.held_out_rows)],
    )
    result = export.write(recipe, base, dataset, prompt, prefix, outcome, run.summary(), out)
    shutil.rmtree(run.workplace, ignore_errors=True)
    return TrainedPrefix(prefix, result.artifact, out, outcome, result.samples)


def require_free(out: Path) -> None:
    """Refuse an output directory that exists, before any time is spent."""
    if out.exists():
        raise StorageError(
            f"{out} exists already; choose another --out, or move it away", code="storage.exists"
        )


class _Run:
    """One training run: what is fixed, and the state that a checkpoint keeps."""

    def __init__(
        self,
        recipe: Recipe,
        base: BaseModel,
        train_rows: Sequence[TokenRow],
        held_out_rows: Sequence[TokenRow],
        data: Digest,
        workplace: Path,
    ) -> None:
        self.recipe, self.base, self.workplace = recipe, base, workplace
        self.train_rows, self.held_out_rows = train_rows, held_out_rows
        self.schedule: Schedule = make_schedule(recipe, len(train_rows))
        self.identity = RunIdentity(recipe.model_dump_json(), str(data), str(base.ref.fingerprint))
        torch.manual_seed(recipe.seed)
        start = make_start(base, recipe.prefix, train_rows, recipe.seed)
        self.encoder: Encoder = build_encoder(recipe.prefix, start.prefix, start.scale)
        self.optimizer = torch.optim.AdamW(
            self.encoder.parameters(),
            lr=self.schedule.peak_lr,
            betas=_BETAS,
            weight_decay=self.schedule.weight_decay,
        )
        self.frozen = self._held_out(None)
        self.state = load_checkpoint(workplace, self.identity) or self._first_state()
        self._restore(self.state)
        self.resumed_from = self.state.step
        self.log = RunLog(workplace / LOG_FILE, keep_through=self.state.step)
        self._recent: list[float] = []
        self._first = 0.0
        self._began = time.monotonic() - self.state.seconds

    def to_the_end(self, progress: Callable[[Progress], None]) -> None:
        """Train, evaluate, checkpoint, until the steps or the patience are used up."""
        while self.state.step < self.schedule.steps and not self._out_of_patience():
            loss, norm, tokens = self._step(self.state.step)
            self.state.step += 1
            self.state.tokens += tokens
            last = self.state.step == self.schedule.steps
            held_out = None
            if last or self.state.step % self.schedule.eval_every == 0:
                held_out = self._evaluate()
            self._record(loss, norm, tokens, held_out)
            if last or self.state.step % self.recipe.train.checkpoint_every == 0:
                self._save()
            progress(self._progress(loss, held_out))

    def best_prefix(self) -> PrefixKV:
        """The parameters with the lowest held-out loss, as plain keys and values."""
        self.encoder.load_state_dict(self.state.best)
        with torch.no_grad():
            return self.encoder().detach()

    def summary(self) -> export.RunSummary:
        return export.RunSummary(
            steps=self.state.step,
            best_step=self.state.best_step,
            peak_lr=self.schedule.peak_lr,
            seconds=self._elapsed(),
            tokens=self.state.tokens,
            log=self.log.path,
        )

    def _step(self, step: int) -> tuple[float, float, int]:
        """One optimizer step; returns mean loss, gradient norm and tokens seen."""
        settings = self.recipe.train
        chosen = row_order(len(self.train_rows), settings.batch_rows, self.recipe.seed, step)
        rows = [self.train_rows[i] for i in chosen]
        targets = sum(len(row.target) for row in rows)
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.lr(step)
        self.optimizer.zero_grad()
        total = 0.0
        for part in micro_batches(rows, settings.batch_tokens):
            with precision(self.base, settings):
                prefix = self.encoder()
                if step == 0:
                    prefix.retain_grad()
                total += forward_backward(self.base, prefix, part, 1.0 / targets)
        norm = float(clip_grad_norm_(self.encoder.parameters(), settings.clip))
        self._stop_if_diverging(step, total / targets, norm)
        if step == 0:
            require_gradients(self.base, prefix)
        self.optimizer.step()
        return total / targets, norm, sum(map(len, rows))

    def _stop_if_diverging(self, step: int, loss: float, norm: float) -> None:
        self._recent = [*self._recent, loss][-_WINDOW:]
        mean = sum(self._recent) / len(self._recent)
        bad = not math.isfinite(loss) or not math.isfinite(norm)
        lost = len(self._recent) == _WINDOW and mean > _DIVERGED * max(self.frozen, self._first)
        if step == 0:
            self._first = loss
        if bad or lost:
            raise TrainingError(
                f"stopped at step {step}: loss {loss:.3g}, gradient norm {norm:.3g}, where the "
                f"frozen model has {self.frozen:.3g}; the last good state (best step "
                f"{self.state.best_step}) is kept in {self.workplace}; lower train.lr "
                f"({self.schedule.peak_lr:g}) and choose another --out",
                code="training.diverged",
            )

    def _evaluate(self) -> float:
        with torch.no_grad():
            loss = self._held_out(self.encoder())
        if loss < self.state.best_loss:
            self.state.best_loss, self.state.best_step = loss, self.state.step
            self.state.best = _copy(self.encoder)
            self.state.stale = 0
        else:
            self.state.stale += 1
        return loss

    def _held_out(self, prefix: PrefixKV | None) -> float:
        settings = self.recipe.train
        with precision(self.base, settings):
            return mean_loss(self.base, prefix, self.held_out_rows, settings.batch_tokens)

    def _out_of_patience(self) -> bool:
        patience = self.recipe.train.patience
        return patience is not None and self.state.stale >= patience

    def _record(self, loss: float, norm: float, tokens: int, held_out: float | None) -> None:
        entry: dict[str, Any] = {
            "step": self.state.step,
            "loss": loss,
            "lr": self.schedule.lr(self.state.step - 1),
            "grad_norm": norm,
            "tokens": tokens,
            "seconds": round(self._elapsed(), 3),
        }
        self.log.write(entry if held_out is None else {**entry, "held_out": held_out})

    def _progress(self, loss: float, held_out: float | None) -> Progress:
        done, seconds = self.state.step, self._elapsed()
        return Progress(
            step=done,
            steps=self.schedule.steps,
            loss=loss,
            held_out=held_out,
            frozen=self.frozen,
            tokens_per_second=self.state.tokens / seconds if seconds else 0.0,
            seconds_left=seconds / done * (self.schedule.steps - done),
            resumed_from=self.resumed_from,
        )

    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def _first_state(self) -> RunState:
        return RunState(
            step=0,
            best_step=0,
            best_loss=math.inf,
            stale=0,
            seconds=0.0,
            tokens=0,
            parameters={},
            best=_copy(self.encoder),
            optimizer=self.optimizer.state_dict(),
            random=torch.get_rng_state(),
        )

    def _restore(self, state: RunState) -> None:
        if state.parameters:
            self.encoder.load_state_dict(state.parameters)
            self.optimizer.load_state_dict(state.optimizer)
            torch.set_rng_state(state.random)

    def _save(self) -> None:
        self.state.parameters = _copy(self.encoder)
        self.state.optimizer = self.optimizer.state_dict()
        self.state.random = torch.get_rng_state()
        self.state.seconds = self._elapsed()
        save_checkpoint(self.workplace, self.identity, self.state)


def _copy(encoder: Encoder) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in encoder.state_dict().items()}
