"""The recipe: every setting of a training run, with the defaults that make a first run work."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from foreword.artifact import Site

PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataSettings(_Frozen):
    """Which rows, which columns, which prompt."""

    input: str = "input"
    """Column that goes in; `{input}` in the template."""
    target: str = "target"
    """Column the model should answer with."""
    template: str | None = None
    """Text with `{column}` placeholders, or `chat` for the model's own chat template. The default
    is `{input}` and a line break."""
    limit: PositiveInt | None = None
    """Use only the first so many good rows."""
    eval_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of rows held out, chosen by `seed`."""
    eval_path: str | None = None
    """A file of held-out rows, instead of a share."""
    bad_rows: Literal["refuse", "skip"] = "refuse"


class PrefixSettings(_Frozen):
    """What is trained and where it starts."""

    length: PositiveInt = 16
    """Virtual tokens, m."""
    init: Literal["text", "random", "zero", "artifact"] = "text"
    init_text: str | None = None
    """Text to start from; the default is a sample of the training targets."""
    init_artifact: str | None = None
    """Directory of the artifact to start from."""
    encoder: Literal["direct", "mlp"] = "direct"
    """`direct`: the keys and values themselves; `mlp`: through a two-layer MLP, dropped at export."""
    hidden: PositiveInt = 512
    """Width of the MLP."""
    sites: tuple[Site, ...] | None = None
    """Attention sites to use; the default is all the model has."""
    layers: tuple[int, ...] | None = None
    """Layers to use, by index from 0; the default is all."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Stored type of keys and values."""


class TrainSettings(_Frozen):
    """How it is trained."""

    steps: PositiveInt | None = None
    epochs: PositiveFloat | None = None
    """Passes over the rows, if `steps` is not given. With neither: 3 epochs, 100 to 2,000 steps."""
    lr: PositiveFloat | None = None
    """Peak learning rate; the default depends on what is trained (see `tuning/schedule.py`)."""
    batch_rows: PositiveInt = 8
    """Rows per optimizer step."""
    batch_tokens: PositiveInt = 4096
    """Most tokens per forward pass. A step with more is split; its gradient is the same."""
    warmup: Fraction = 0.06
    """Share of the steps over which the learning rate rises."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Pull towards the start, as AdamW does it; the default depends on what is trained."""
    clip: PositiveFloat = 1.0
    """Largest gradient norm."""
    eval_every: PositiveInt | None = None
    """Steps between held-out evaluations; the default is a tenth of the run."""
    patience: PositiveInt | None = None
    """Stop after so many evaluations without a better held-out loss; the default is never."""
    checkpoint_every: PositiveInt = 25
    """Steps between checkpoints."""
    gradient_checkpointing: bool = False
    """Run layers again in the backward pass instead of keeping their activations."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto`: bfloat16 on accelerators that have it, float32 elsewhere."""


class Recipe(_Frozen):
    """One training run. Unknown keys are an error."""

    name: str = "prefix"
    version: str = "0.1.0"
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    data: DataSettings = DataSettings()
    prefix: PrefixSettings = PrefixSettings()
    train: TrainSettings = TrainSettings()
