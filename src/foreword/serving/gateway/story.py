"""What is known of a request while it goes on; at its end, the one record that tells it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from foreword.serving.contract import Beginning, Chunk, Usage
from foreword.serving.gateway.access.principal import Principal
from foreword.serving.gateway.routing.route import Route
from foreword.serving.wire.answers import add_up
from foreword.telemetry.records import Attached, RequestFinished, RequestRefused, Span

Operation = Literal["chat", "completion"]
Reason = Literal["key", "scope", "tenant", "expired", "quota", "overload", "malformed", "unknown"]
_REASONS: tuple[tuple[str, Reason], ...] = (
    # The beginning of a code, the longer ones first.
    ("auth.scope", "scope"),
    ("auth.expired", "expired"),
    ("auth.tenant", "tenant"),
    ("auth", "key"),
    ("quota", "quota"),
    ("serving", "overload"),
    ("model", "unknown"),
)


@dataclass
class Story:
    """One request. Times are Unix seconds; durations come from a steady clock."""

    id: str
    operation: Operation
    principal: Principal
    traceparent: str = ""
    stream: bool = False
    n: int = 1
    """Answers to each prompt."""
    route: Route | None = None
    usages: dict[int, Usage] = field(default_factory=dict)
    """Of each answer that has come to its end."""
    said: int = 0
    """Tokens of all answers so far."""
    prompt_tokens: int = 0
    first_token: float | None = None
    beginning: Beginning | None = None
    """What the backend says came before its first chunk."""
    spans: list[Span] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    came: float = field(default_factory=time.time)

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Time a step, also one that fails."""
        start = self.now()
        try:
            yield
        finally:
            self.spans.append(Span(name, start, self.now()))

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Time what the backend does up to the first chunk: its own steps, then `prefill`."""
        asked = self.now()
        try:
            yield
        finally:
            now, told = self.now(), self.beginning or Beginning()
            steps = [(p.name, p.start, p.end) for p in told.phases]
            for name, start, end in (*steps, ("prefill", told.admitted, now - asked)):
                # Its clock is another one: nothing ends after now.
                self.spans.append(Span(name, min(asked + start, now), min(asked + end, now)))

    def hear(self, answer: int, chunk: Chunk) -> None:
        """Count a chunk of one answer."""
        if self.first_token is None:
            self.first_token = time.monotonic() - self.began
            self.beginning = chunk.beginning
        self.said += len(chunk.tokens)
        if chunk.usage is not None:
            self.usages[answer] = chunk.usage

    def usage(self) -> Usage:
        """Of the answers that have come to their ends."""
        prompts: dict[int, list[Usage]] = {}
        for answer, usage in sorted(self.usages.items()):
            prompts.setdefault(answer // self.n, []).append(usage)
        return add_up(prompts.values())

    def now(self) -> float:
        """Unix time, on the steady clock since the request came."""
        return self.came + time.monotonic() - self.began

    @property
    def tokens(self) -> int:
        """What it took so far, for its quota; nothing before the first token."""
        return 0 if self.first_token is None else self.prompt_tokens + self.said

    def end(self, status: int, code: str, base: str) -> RequestFinished | RequestRefused:
        """The record of its end: `RequestRefused` if it never had a route."""
        if self.route is None:
            return refused(self.now(), status, code, self.principal.tenant)
        return RequestFinished(
            time=self.now(),
            id=self.id,
            operation=self.operation,
            tenant=self.principal.tenant,
            key_id=self.principal.key_id,
            attached=_attached(self.route),
            base=base,
            status=status,
            code=code,
            fallback=self.route.fallback.reason if self.route.fallback else "",
            stream=self.stream,
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.usage().cached_tokens,
            completion_tokens=self.said,
            first_token=self.first_token,
            duration=time.monotonic() - self.began,
            spans=tuple(self.spans),
            traceparent=self.traceparent,
            cache_tier=self.beginning.tier if self.beginning else "",
        )


def refused(when: float, status: int, code: str, tenant: str = "") -> RequestRefused:
    """The record of a request that had no route; its reason follows from the error's code."""
    other: Reason = "malformed"
    reason = next((reason for start, reason in _REASONS if code.startswith(start)), other)
    return RequestRefused(when, reason, status, code, tenant)


def _attached(route: Route) -> Attached:
    prefix = route.prefix
    if prefix is None:
        return Attached()
    return Attached(
        prefix.name, prefix.version, str(prefix.digest), prefix.length, route.arm or "pinned"
    )
