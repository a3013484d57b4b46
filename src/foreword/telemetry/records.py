"""What the core says about itself: frozen records, which know nothing of who listens.

No record holds a prompt, an answer, a key or a token. Times are seconds; `time` is Unix time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Span:
    """One step of a request: `resolve`, `authorise`, `fetch`, `verify`, `attach`, `prefill`, `decode`."""

    name: str
    start: float
    """Unix time."""
    end: float


@dataclass(frozen=True)
class Attached:
    """Which prefix a record is about. All fields empty: the bare model."""

    name: str = ""
    version: str = ""
    digest: str = ""
    length: int = 0
    arm: str = ""


@dataclass(frozen=True)
class RequestFinished:
    """The end of a request, however it ended. There is exactly one for each."""

    time: float
    """When it ended; `duration` seconds after it came."""
    id: str
    operation: Literal["chat", "completion"]
    tenant: str
    key_id: str
    attached: Attached
    base: str
    """Fingerprint of the base model."""
    status: int
    """HTTP status; 499 if the client went away."""
    code: str = ""
    """Of the error that ended it; empty if it was answered."""
    fallback: str = ""
    """Why another prefix than the one asked for was used."""
    stream: bool = False
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    first_token: float | None = None
    """Seconds to the first token."""
    duration: float = 0.0
    spans: tuple[Span, ...] = ()
    traceparent: str = ""
    """W3C trace context that came with the request."""
    cache_tier: Literal["", "device", "host", "disk", "fetch"] = ""
    """Where its prefix was when it was asked for; empty for the bare model, or if nobody knows."""


@dataclass(frozen=True)
class RequestRefused:
    """A request that was turned away before it had a route; it has no `RequestFinished`."""

    time: float
    reason: Literal[
        "key", "scope", "tenant", "expired", "quota", "overload", "malformed", "unknown"
    ]
    status: int
    code: str
    tenant: str = ""


@dataclass(frozen=True)
class PrefixLoaded:
    """An attempt to make a prefix resident."""

    time: float
    digest: str
    name: str
    source: Literal["host", "disk", "fetch"]
    code: str = ""
    """Of the failure; empty if it is resident now."""
    bytes: int = 0
    phases: Mapping[str, float] = field(default_factory=dict)
    """Seconds of `fetch` (bytes and trust), `room` (waiting for memory) and `attach` (tensors and
    probe); empty if it failed."""


@dataclass(frozen=True)
class PrefixEvicted:
    time: float
    digest: str
    reason: Literal["room", "forgotten", "operator"]


@dataclass(frozen=True)
class ReleaseSeen:
    """A new state of a name has taken effect in this process."""

    time: float
    name: str
    seq: int
    stable: str
    canary: str = ""
    share: float = 0.0
    delay: float = 0.0
    """Seconds from the journal entry to here."""


@dataclass(frozen=True)
class Gauges:
    """What holds now; sinks ask for it when they are asked. None: this process does not know."""

    running: int = 0
    waiting: int = 0
    kv_bytes: int = 0
    kv_budget: int = 0
    prefix_bytes: int = 0
    prefix_budget: int = 0
    host_bytes: int | None = None
    disk_bytes: int | None = None
    """Of copies of prefixes that wait in the host's memory and on disk."""
    resident: int | None = None
    hits: int | None = None
    misses: int | None = None
    """Requests that found their prefix here, and those that waited for it."""
    streams: int = 0
    releases: int = 0
    tenants: int = 0
    journal_age: float = 0.0
    """Seconds since the journal was last read."""
    running_prefixes: tuple[str, ...] = ()
    """What requests may write as `model` for the prefixes that are in use now."""
    waiting_prefixes: tuple[str, ...] = ()
    most_prefixes: int = 0
    """How many prefixes one step can serve."""


DIGEST_MISMATCH = "serving.digest_mismatch"
"""Code of a request that was ended because another digest was attached than its route says."""

Record = RequestFinished | RequestRefused | PrefixLoaded | PrefixEvicted | ReleaseSeen
