"""What every request on the toy must be answered, and a ledger that compares it with what is said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from foreword.errors import ForewordError
from foreword.serving.contract import Chunk, Finish, GenerateRequest, TokenLogprob
from foreword.serving.engine.engine import Event, Failure
from foreword.serving.engine.reuse.chains import BLOCK
from tests.reliability.marked import BARE, marker, spelling

_KEPT = 10
"""Wrongs that are described; all are counted."""


@dataclass
class Answered:
    """One of a request's answers so far."""

    tokens: int = 0
    text: str = ""
    finished: bool = False


@dataclass
class Expected:
    """A request, the token its prefix forces, and how it may end."""

    request: GenerateRequest
    token: int
    may_finish: bool = True
    """False once its prefix was taken back, or if it names none that exists."""
    excuses: set[str] = field(default_factory=set)
    """Codes it may fail with."""
    answers: list[Answered] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.answers = [Answered() for _ in range(self.request.n)]

    def end(self) -> tuple[int, str, Finish, int]:
        """Tokens said, text, why it stopped, tokens computed: of each of its answers."""
        request, said = self.request, spelling(self.token)
        if self.token in request.stop_ids:
            return 0, "", Finish.STOP, 1
        text = said * request.max_tokens
        places = [place for stop in request.stop if (place := text.find(stop)) >= 0]
        if places:
            stop, place = request.stop[0], places[0]
            tokens = -(-(place + len(stop)) // len(said))
            return tokens, text[:place], Finish.STOP, tokens
        return request.max_tokens, text, Finish.LENGTH, request.max_tokens


@dataclass
class Tally:
    """What went wrong, by kind, and what a run was made of."""

    wrongs: Counter[str] = field(default_factory=Counter)
    described: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)

    def wrong(self, kind: str, what: str) -> None:
        self.wrongs[kind] += 1
        if len(self.described) < _KEPT:
            self.described.append(f"{kind}: {what}")

    def add(self, other: Tally) -> None:
        self.wrongs += other.wrongs
        self.described += other.described
        self.counts += other.counts
        self.failures += other.failures


class Oracle:
    """Judges every event. Live requests are those whose end has not been said.

    `excused` says whether something that really happened explains why a request failed with a code,
    `mistaken` whether a tenant's beginning was taken for one that had come before.
    """

    def __init__(
        self,
        tally: Tally,
        excused: Callable[[Expected, str], bool],
        mistaken: Callable[[GenerateRequest, tuple[int, ...]], bool],
    ) -> None:
        self.tally, self._excused, self._mistaken = tally, excused, mistaken
        self.live: dict[str, Expected] = {}
        self._sent: Counter[tuple[object, ...]] = Counter()

    def expect(self, expected: Expected) -> None:
        """A request was taken in."""
        request = expected.request
        if request.id in self.live:
            self.tally.wrong("events after the end", f"{request.id} is taken twice at a time")
        self.live[request.id] = expected
        for end in range(BLOCK, len(request.prompt) + 1, BLOCK):
            self._sent[request.tenant, request.adapters, request.prompt[:end]] += 1

    def judge(self, event: Event, now: float) -> None:
        """Note what is wrong with an event."""
        expected = self.live.get(event.id)
        if expected is None:
            self.tally.wrong("events after the end", f"{event}")
        elif isinstance(event, Failure):
            del self.live[event.id]
            self._failed(expected, event.error, now)
        else:
            self._said(expected, event)

    def _failed(self, expected: Expected, error: ForewordError, now: float) -> None:
        request, code = expected.request, error.code
        self.tally.counts["failed"] += 1
        self.tally.failures[code] += 1
        if code == "serving.deadline":
            if request.deadline is None or now < request.deadline:
                self.tally.wrong("errors nobody caused", f"{request.id} expired early: {request}")
        elif code not in expected.excuses and not self._excused(expected, code):
            self.tally.wrong("errors nobody caused", f"{request}: {error!r}")

    def _said(self, expected: Expected, chunk: Chunk) -> None:
        request, tally = expected.request, self.tally
        if not expected.may_finish:
            tally.wrong("stale answers", f"{request.id} goes on with a prefix that was taken back")
        if chunk.adapters != request.adapters:
            tally.wrong("wrong digests", f"{request.id}: {chunk.adapters} for {request.adapters}")
        if not 0 <= chunk.index < request.n or expected.answers[chunk.index].finished:
            tally.wrong("events after the end", f"{request.id}: {chunk}")
            return
        answer = expected.answers[chunk.index]
        answer.tokens += len(chunk.tokens)
        answer.text += chunk.text
        tally.counts["tokens"] += len(chunk.tokens)
        for token in chunk.tokens:
            if token != expected.token:
                self._wrong_token(expected, token)
        if request.logprobs is not None:
            self._check_logprobs(expected, chunk.tokens, chunk.logprobs)
        if chunk.finish is not None:
            self._finished(expected, answer, chunk)

    def _wrong_token(self, expected: Expected, token: int) -> None:
        bare = marker(token) == BARE and expected.request.adapters.prefix is not None
        self.tally.wrong(
            "base-model fallbacks" if bare else "wrong prefixes",
            f"{expected.request.id} got {spelling(token)} instead of {spelling(expected.token)}",
        )

    def _check_logprobs(
        self, expected: Expected, tokens: tuple[int, ...], said: tuple[TokenLogprob, ...]
    ) -> None:
        certain = all(each.logprob > -1e-3 for each in said)
        if tuple(each.token for each in said) != tokens or not certain:
            self.tally.wrong("wrong log-probabilities", f"{expected.request.id}: {said}")

    def _finished(self, expected: Expected, answer: Answered, chunk: Chunk) -> None:
        request, usage = expected.request, chunk.usage
        answer.finished = True
        computed = usage.completion_tokens if usage else None
        found = (answer.tokens, answer.text, chunk.finish, computed)
        if found != expected.end():
            self.tally.wrong("lost or doubled chunks", f"{request}: {found} for {expected.end()}")
        if usage is not None:
            self._check_reuse(request, usage.prompt_tokens, usage.cached_tokens)
        if all(each.finished for each in expected.answers):
            del self.live[request.id]
            self.tally.counts["answered"] += 1

    def _check_reuse(self, request: GenerateRequest, tokens: int, cached: int) -> None:
        """What is reused belongs to an earlier request of this tenant with this prefix."""
        self.tally.counts["with a reused beginning"] += cached > 0
        beginning = request.prompt[: -(-cached // BLOCK) * BLOCK]
        # It is stored when it comes for the second time, so the third is the first to find it;
        # if its first was mistaken for a second, one less.
        sent = self._sent[request.tenant, request.adapters, beginning]
        whole = tokens == len(request.prompt)
        if whole and cached and sent == 2 and self._mistaken(request, beginning):
            self.tally.counts["reused, after its first sight was mistaken for a second"] += 1
        elif not whole or (cached and sent < 3):
            self.tally.wrong(
                "reuse across tenants or prefixes",
                f"{request.id}: {cached} of {tokens}, sent {sent} times by this tenant",
            )
