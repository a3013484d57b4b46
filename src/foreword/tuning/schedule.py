"""How many steps, at which learning rate: the numbers a recipe leaves open."""

from __future__ import annotations

import math
from dataclasses import dataclass

from foreword.errors import ConfigError
from foreword.tuning.recipe import Recipe, TrainSettings

DEFAULT_LR = {"direct": 3e-2, "mlp": 1e-3}
"""Peak learning rates by encoder, for AdamW. `direct` trains offsets in units of the layer's own
scale (`encoders.py`), so one rate serves keys and values of any size."""

DEFAULT_DECAY = {"direct": 0.0, "mlp": 0.0}
"""Weight decay by encoder. On `direct` it pulls the offsets to zero, that is to the start."""

_EPOCHS, _LEAST, _MOST = 3.0, 100, 2000


@dataclass(frozen=True)
class Schedule:
    """A recipe with nothing left open."""

    steps: int
    warmup: int
    peak_lr: float
    weight_decay: float
    shape: str
    eval_every: int

    def lr(self, step: int) -> float:
        """Learning rate of step 0..steps-1: a linear rise, then the chosen descent to zero."""
        rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        done = max(0.0, (step - self.warmup) / max(1, self.steps - self.warmup))
        fall = {
            "cosine": 0.5 * (1.0 + math.cos(math.pi * done)),
            "linear": 1.0 - done,
            "constant": 1.0,
        }[self.shape]
        return self.peak_lr * rise * fall


def make_schedule(recipe: Recipe, train_rows: int) -> Schedule:
    """Fill in what the recipe leaves to us. `train_rows` counts rows without the held-out ones."""
    train = recipe.train
    steps = _steps(train, train_rows)
    return Schedule(
        steps=steps,
        warmup=round(train.warmup * steps),
        peak_lr=train.lr or DEFAULT_LR[recipe.prefix.encoder],
        weight_decay=DEFAULT_DECAY[recipe.prefix.encoder]
        if train.weight_decay is None
        else train.weight_decay,
        shape=train.schedule,
        eval_every=train.eval_every or max(1, steps // 10),
    )


def _steps(train: TrainSettings, rows: int) -> int:
    if train.steps is not None and train.epochs is not None:
        raise ConfigError(
            "train.steps and train.epochs both say how long to train; give one of them",
            code="config.steps_and_epochs",
        )
    if train.steps is not None:
        return train.steps
    per_epoch = rows / train.batch_rows
    if train.epochs is not None:
        return max(1, math.ceil(train.epochs * per_epoch))
    return min(_MOST, max(_LEAST, math.ceil(_EPOCHS * per_epoch)))
