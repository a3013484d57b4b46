"""What a backend is asked and what it answers. Every engine and the gateway speak these words.

A request is pinned to one set of adapters, named by digest, from its first to its last token, and
every chunk says which one was attached.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, Protocol

from foreword.artifact import Digest


@dataclass(frozen=True)
class AdapterSet:
    """What is attached to the base for one request. Caches are keyed by it and the tenant."""

    prefix: Digest | None = None


BARE = AdapterSet()


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. The defaults are greedy; `top_k` 0 means all."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    """The same seed gives the same tokens, whatever else is in the batch; None: drawn anew."""


@dataclass(frozen=True)
class Constraint:
    """A language every answer must belong to."""

    kind: Literal["json_schema", "regex"]
    text: str


@dataclass(frozen=True)
class GenerateRequest:
    id: str
    prompt: tuple[int, ...]
    tenant: str = "default"
    adapters: AdapterSet = BARE
    max_tokens: int = 128
    sampling: Sampling = field(default_factory=Sampling)
    stop: tuple[str, ...] = ()
    """Texts that end an answer and are not part of it."""
    stop_ids: tuple[int, ...] = ()
    """Tokens that end an answer, besides the model's own."""
    ignore_eos: bool = False
    """Go on past the model's own end of text, up to `max_tokens`: for measurements."""
    n: int = 1
    logprobs: int | None = None
    """How many alternatives to report beside each chosen token; None: no log-probabilities."""
    constraint: Constraint | None = None
    deadline: float | None = None
    """When the answer is worthless, on the clock of `time.monotonic()`."""
    priority: int = 0
    """Of one tenant's waiting requests, higher goes first; it takes nothing from other tenants."""


class Finish(StrEnum):
    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True)
class TokenLogprob:
    """Natural logarithms, of the model's own distribution before any penalty or temperature."""

    token: int
    logprob: float
    alternatives: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Usage:
    prompt_tokens: int
    cached_tokens: int
    """Prompt tokens whose keys and values were reused."""
    completion_tokens: int


@dataclass(frozen=True)
class Phase:
    """Something a request waited for. Seconds since the engine was asked."""

    name: str
    start: float
    end: float


@dataclass(frozen=True)
class Beginning:
    """What came before the first token of a request."""

    tier: Literal["", "device", "host", "disk", "fetch"] = ""
    """Where its prefix was when it came; empty for the bare model, or if nobody knows."""
    admitted: float = 0.0
    """Seconds from its arrival until it ran."""
    phases: tuple[Phase, ...] = ()
    """`fetch`, `verify` and `attach`, as far as it waited for them."""


@dataclass(frozen=True)
class Chunk:
    """The next piece of one of a request's `n` answers; the last has `finish` and `usage`."""

    id: str
    index: int
    text: str
    tokens: tuple[int, ...]
    adapters: AdapterSet
    logprobs: tuple[TokenLogprob, ...] = ()
    finish: Finish | None = None
    usage: Usage | None = None
    beginning: Beginning | None = None
    """With the first chunk of a request."""


@dataclass(frozen=True)
class Capacity:
    running: int
    waiting: int
    slots: int
    kv_bytes: int
    kv_budget: int
    prefix_bytes: int
    prefix_budget: int


@dataclass(frozen=True)
class Health:
    state: Literal["ready", "draining", "wedged", "failed"]
    last_step: float | None
    """`time.monotonic()` of the last finished step; an idle engine still beats."""
    detail: str = ""


@dataclass(frozen=True)
class ResidentPrefix:
    """A prefix that a request would find loaded."""

    digest: Digest
    nbytes: int
    """Of keys and values."""
    pins: int
    """Running requests that use it."""


class PrefixHost(Protocol):
    """Where prefixes are resident. Every method may be called from any thread and waits 0.1 s at most."""

    def prefetch(self, digests: Sequence[Digest]) -> None:
        """Begin to load these ahead of any request: a hint, whose failure is counted and not raised."""
        ...

    def forget(self, digests: Sequence[Digest]) -> None:
        """Drop every copy of these, such as when they are revoked; running requests keep theirs.

        Raises:
            ServingError: it could not be passed on; ask again.
        """
        ...

    def forget_tenant(self, tenant: str) -> None:
        """Drop what was computed for a tenant's prompts, such as when it is switched off.

        Its running requests are not ended: `Backend.cancel` them first.

        Raises:
            ServingError: it could not be passed on; ask again.
        """
        ...

    def residents(self) -> tuple[ResidentPrefix, ...]:
        """What is resident, as of a moment ago."""
        ...


class Backend(Protocol):
    """Whatever generates tokens.

    `generate` raises a `ServingError` instead of a wrong answer: a prefix that cannot be had is an
    error, never the bare model.
    """

    def generate(self, request: GenerateRequest) -> AsyncIterator[Chunk]: ...

    def cancel(self, request_id: str) -> None:
        """Give up a request; its stream ends with `Cancelled`. Unknown ids are ignored."""
        ...

    def capacity(self) -> Capacity: ...

    def health(self) -> Health: ...
