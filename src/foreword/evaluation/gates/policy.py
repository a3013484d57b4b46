"""The gate policy: what a candidate must show, as a YAML file (docs/gates.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from foreword.artifact import Digest, canonical
from foreword.config import load_settings

BASE, INCUMBENT, CANDIDATE = "base", "incumbent", "candidate"
"""Names of the variants a gate looks for."""

Small = Annotated[float, Field(gt=0, lt=0.5)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Against = Literal["incumbent", "base"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Rule(_Frozen):
    """What one metric must show on some rows. At least one of the limits is given."""

    metric: str
    set: str | None = None
    """Name of a golden set. With neither set nor tag: the sets that are for a specialty, each by itself,
    without their rows tagged `safety` or `off_task`."""
    tag: str | None = None
    """Only the rows with this tag, such as `safety` or `off_task`, in every set that has some."""
    least: Finite | None = None
    """The value is at least this."""
    most: Finite | None = None
    """The value is at most this."""
    margin: NotNegative | None = None
    """Worse than the incumbent by less than this, in the metric's own unit."""
    cohort_margin: NotNegative | None = None
    """The same for every cohort by itself."""
    cohorts: Literal["proven", "watched"] = "proven"
    """`watched`: a cohort stops the gate only if it is shown to be worse, not for want of rows."""
    against: Against = "incumbent"
    """With whom margins compare; without an incumbent it is the base."""

    @model_validator(mode="after")
    def _has_a_limit(self) -> Self:
        if (self.least, self.most, self.margin, self.cohort_margin) == (None,) * 4:
            raise ValueError("expected least, most, margin or cohort_margin")
        return self


class Compulsory(Rule):
    """A rule about rows that have to be there: without them the verdict is never pass."""

    @model_validator(mode="after")
    def _names_rows(self) -> Self:
        if self.set is None and self.tag is None:
            raise ValueError("expected the rows it is about: a tag or the name of a golden set")
        return self


class Learned(_Frozen):
    """What tells a prefix from none."""

    metric: str | None = None
    least: Finite = 0.0
    """The candidate's metric is better than the base's by more than this."""
    loss: NotNegative | None = None
    """Its held-out loss is at least so many nats per token below the frozen model's."""


class Gap(_Frozen):
    """How much better it may know its training rows than held-out ones."""

    loss: NotNegative
    """Held-out loss minus training loss, nats per token."""


class GatePolicy(_Frozen):
    """All of a policy file. Frozen; `digest` is what a verdict names."""

    specialty: str | None = None
    """Judge only prefixes for this; None: the specialty of the golden sets decides."""
    alpha: Small = 0.05
    """Most often a candidate passes that is worse than allowed by a whole margin, and most often one
    fails that is as good as the incumbent."""
    power: Annotated[float, Field(gt=0, lt=1)] = 0.8
    """How often a candidate as good as the incumbent should pass; a run too small for it is named."""
    smallest_n: Annotated[int, Field(ge=2)] = 30
    """Rows below which a rule is never decided."""
    simulations: Annotated[int, Field(ge=0, le=100_000)] = 1_000
    """Gates simulated on the very rows to state the error rates; 0 leaves them out."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    rules: tuple[Rule, ...] = ()
    compulsory: tuple[Compulsory, ...] = ()
    learned: Learned | None = None
    gap: Gap | None = None

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if not self.rules and not self.compulsory:
            raise ValueError("expected at least one rule; a gate that asks nothing passes anything")
        return self

    @property
    def digest(self) -> Digest:
        return Digest.of(canonical.encode(self.model_dump(mode="json")))

    @property
    def metrics(self) -> frozenset[str]:
        """Names of all metrics it asks for."""
        named = {rule.metric for rule in (*self.rules, *self.compulsory)}
        learned = self.learned.metric if self.learned else None
        return frozenset(named | ({learned} if learned else set()))


def load_policy(file: Path, overrides: tuple[str, ...] = ()) -> GatePolicy:
    """Read a policy file.

    Raises:
        ConfigError: an unknown key, with the nearest known one, or a value that cannot be used.
    """
    return load_settings(GatePolicy, file, overrides)
