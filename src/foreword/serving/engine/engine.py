"""The embedded engine: one frozen decoder, many requests, each with a prefix of its own or none.

    submit ─▶ waiting ─▶ admitted: prefix pinned, rows reserved ─▶ prompt in pieces ─▶ decoding ─▶ done
                 │                                                                          │
                 └── refused, expired, cancelled ◀──────────────────────────────────────────┘

`step` runs once through this and gives what there is to say. One thread owns an engine; nothing in a
step waits for a disk or a network. A request gets the prefix it names or an error: it is admitted
only with the resident prefix of that digest, which stays pinned until its last token.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foreword.artifact import Digest
from foreword.errors import (
    Cancelled,
    ConfigError,
    DeadlineExceeded,
    EngineFailed,
    ForewordError,
    UsageError,
)  # fmt: skip
from foreword.prefix.base_model import BaseModel
from foreword.serving.contract import (
    AdapterSet,
    Capacity,
    Chunk,
    GenerateRequest,
    ResidentPrefix,
    TokenLogprob,
)  # fmt: skip
from foreword.serving.engine.admission import Admission, Refused
from foreword.serving.engine.choice.sampling import choose
from foreword.serving.engine.job import Answer, Job
from foreword.serving.engine.model.attention import Piece
from foreword.serving.engine.model.rows import RowPool, Snapshot
from foreword.serving.engine.model.runner import ModelRunner
from foreword.serving.engine.residency.held import Prefixes
from foreword.serving.engine.reuse.prompts import PromptCache
from foreword.serving.engine.waiting.ledger import Ledger
from foreword.serving.engine.waiting.queue import Limits

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineSettings:
    """Limits of one engine."""

    most_running: int = 64
    """Answers that are decoded in one step."""
    kv_bytes: int = 2 << 30
    """Memory for the keys and values of running requests."""
    prompt_cache_bytes: int = 256 << 20
    """Memory for beginnings of prompts that came before; 0 turns reuse off."""
    prompt_tokens: int = 256
    """Prompt tokens run beside the decoding rows in one step: more delay those rows, fewer the first
    token of a new request."""
    share_from: int = 512
    """Prefixes of at least this many virtual tokens are not copied into the rows that use them."""
    lean: bool = True
    """Families we have written out run that way; False: every model runs its own modules."""
    pack: bool = True
    """On a CPU in float32, keep a second copy of the linear weights, laid out for its products."""
    compiled: bool = True
    """On a CPU in float32, run what lies between the products as compiled kernels."""
    queue: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if min(self.most_running, self.kv_bytes, self.prompt_tokens, self.share_from) < 1:
            raise ConfigError(f"engine limits must be at least 1, got {self}", code="config.engine")


@dataclass(frozen=True)
class Failure:
    """The end of a request that was not answered to its end."""

    id: str
    error: ForewordError


Event = Chunk | Failure


class _Turn(NamedTuple):
    """What a step does for one answer."""

    job: Job
    answer: Answer
    piece: Piece


class _Draw(NamedTuple):
    """An answer that goes on, and the row of a step's logits that says how."""

    job: Job
    answer: Answer
    row: int


class Engine:
    """Continuous batching over one decoder.

    Raises:
        UnsupportedModel: the base is not a decoder, or a step of the engine does not give the logits
            of the model's own forward pass.
    """

    def __init__(
        self,
        base: BaseModel,
        store: Prefixes | None = None,
        settings: EngineSettings | None = None,
    ) -> None:
        self.settings = settings or EngineSettings()
        self._store = store
        self._runner = ModelRunner(
            base,
            lean=self.settings.lean,
            pack=self.settings.pack,
            compiled=self.settings.compiled,
        )
        self._pool = RowPool(
            self._runner.layers, base.dtype, base.device, Ledger(self.settings.kv_bytes),
            self.settings.most_running,
        )  # fmt: skip
        self._prompts: PromptCache[Snapshot] = PromptCache(
            base.ref.fingerprint, self.settings.prompt_cache_bytes
        )
        self._admission = Admission(
            base, store, self._pool, self._prompts, self.settings.queue, self.settings.share_from
        )
        self._jobs: dict[str, Job] = {}
        """Running, in the order of admission."""
        self._events: list[Event] = []

    @property
    def busy(self) -> bool:
        """Whether anything waits, runs, or is still to be said."""
        return bool(self._jobs or len(self._admission.queue) or self._events)

    @property
    def loading(self) -> bool:
        """Whether a prefix is on its way, also one that no request waits for."""
        return self._store is not None and self._store.loading

    def knows(self, request_id: str) -> bool:
        """Whether this request waits or runs."""
        return request_id in self._jobs or request_id in self._admission.queue

    def warm_up(self, seconds: float) -> None:
        """Have ready what steps of any size need, as far as `seconds` go: before the first request."""
        self._runner.warm_up(self.settings.most_running + self.settings.prompt_tokens, seconds)

    def submit(self, request: GenerateRequest, now: float) -> None:
        """Let a request wait for its turn; its chunks come out of later steps.

        Raises:
            UsageError: it cannot be answered on this base, or its id is in use.
            PrefixUnavailable: it names a prefix and the engine has no store.
            Overloaded, DeadlineExceeded: it cannot wait here now.
        """
        if request.id in self._jobs or any(event.id == request.id for event in self._events):
            raise UsageError(
                f"a request {request.id[:80]!r} is running, or its end is not said yet; give every "
                "request an id of its own",
                code="request.id_in_use",
            )
        if request.n > self.settings.most_running:
            raise UsageError(
                f"n: expected at most {self.settings.most_running}, the answers this engine runs at "
                f"once, got {request.n}",
                code="request.n",
            )
        self._admission.wait(request, now)

    def prepare(self, request: GenerateRequest) -> None:
        """What `submit` would do at length, ahead of it and on any thread: compile a constraint.

        Raises:
            UsageError: the constraint cannot be followed.
        """
        self._admission.prepare(request)

    def cancel(self, request_id: str) -> None:
        """Give up a request: nothing of it runs in the next step."""
        job = self._jobs.get(request_id) or self._admission.queue.cancel(request_id)
        if job is not None:
            self._fail(job, Cancelled(f"request {request_id[:80]!r} was given up"))

    def step(self, now: float) -> list[Event]:
        """One pass: let in what fits, run one batch, and give what there is to say."""
        self._expire(now)
        self._admit(now)
        if turns := self._plan():
            self._go_on(*self._run(turns))
        events, self._events = self._events, []
        return events

    def capacity(self) -> Capacity:
        return Capacity(
            running=self._rows_in_use(),
            waiting=len(self._admission.queue),
            slots=self.settings.most_running,
            kv_bytes=self._pool.ledger.used,
            kv_budget=self.settings.kv_bytes,
            prefix_bytes=self._store.nbytes if self._store is not None else 0,
            prefix_budget=self._store.budget if self._store is not None else 0,
        )

    def prefetch(self, digests: Iterable[Digest], now: float) -> None:
        """Begin to load prefixes ahead of any request; a failure is counted, not raised."""
        if self._store is not None:
            self._store.prefetch(digests, now)

    def residents(self) -> list[ResidentPrefix]:
        """Prefixes that a request would find loaded."""
        return self._store.residents() if self._store is not None else []

    def forget(self, prefix: AdapterSet, now: float) -> None:
        """Drop what was computed with a prefix and every copy of it, such as when it is revoked.

        Running requests keep it to their end; later ones fetch it, and ask for trust, anew.
        """
        self._prompts.drop(prefix)
        if self._store is not None and prefix.prefix is not None:
            self._store.forget(prefix.prefix, now)

    def forget_tenant(self, tenant: str) -> None:
        """Drop what was computed for a tenant, such as when it is switched off.

        Its running requests go on: who wants them to end cancels them first.
        """
        self._admission.forget_tenant(tenant)

    def close(self) -> None:
        """Fail what is left and free the memory of prefixes."""
        for job in (*self._jobs.values(), *self._admission.queue.clear()):
            self._fail(job, Cancelled("the engine was closed"))
        if self._store is not None:
            self._store.close()

    def check_integrity(self) -> None:
        """Add up every byte, row and pin again.

        Raises:
            EngineFailed: something does not hold.
        """
        self._pool.check_integrity()
        self._pool.ledger.check_integrity()
        self._prompts.check_integrity()
        self._admission.queue.check_integrity()
        held = [id(answer.row) for job in self._jobs.values() for answer in job.open]
        rows = [id(row) for arena in self._pool.arenas.values() for row in arena.rows]
        if sorted(held) != sorted(rows):
            raise EngineFailed(
                f"{len(rows)} rows are in use, running answers hold {len(held)}",
                code="engine.integrity",
            )
        if self._store is not None:
            self._store.check_integrity()

    # The parts of a step.

    def _expire(self, now: float) -> None:
        late = [
            job for job in self._jobs.values() if job.deadline is not None and job.deadline <= now
        ]
        for job in (*late, *self._admission.queue.expire(now)):
            self._fail(job, DeadlineExceeded(f"request {job.id[:80]!r} had no time left"))

    def _admit(self, now: float) -> None:
        if self._store is not None:
            self._store.collect(now)
        free = self.settings.most_running - self._rows_in_use()
        for outcome in self._admission.admit(now, free):
            if isinstance(outcome, Refused):
                self._fail(outcome.job, _broken(outcome.job, outcome.error))
            else:
                self._jobs[outcome.id] = outcome

    def _plan(self) -> list[_Turn]:
        """Every decoding answer, and prompts in the order of admission as far as the budget goes."""
        turns, budget = [], self.settings.prompt_tokens
        for job in self._jobs.values():
            if not job.prefilling:
                turns += [_Turn(job, answer, job.decode_piece(answer)) for answer in job.open]
            elif budget > 0:
                piece = job.prompt_piece(budget)
                budget -= len(piece.tokens)
                turns.append(_Turn(job, job.answers[0], piece))
        return turns

    def _run(self, turns: list[_Turn]) -> tuple[list[_Draw], Tensor]:
        """Run a step; gives the answers that go on and the logits `[turn, vocabulary]`."""
        try:
            logits = self._runner.run([turn.piece for turn in turns])
        except Exception as error:
            _log.warning("a step of %d answers failed: %r", len(turns), error)
            turns, logits = self._run_apart(turns)
        return self._drawn(turns, logits), logits

    def _run_apart(self, turns: Sequence[_Turn]) -> tuple[list[_Turn], Tensor]:
        """After a step failed: each answer alone, so that only what is broken fails.

        Running tokens again is safe: their keys and values are written to the same places.
        """
        rows: list[tuple[_Turn, Tensor]] = []
        for turn in turns:
            if turn.job.id not in self._jobs:
                continue  # another answer of the same request failed
            try:
                rows.append((turn, self._runner.run([turn.piece])[0]))
            except Exception as error:
                self._fail(turn.job, _broken(turn.job, error))
        rows = [(turn, logits) for turn, logits in rows if turn.job.id in self._jobs]
        stacked = torch.stack([logits for _, logits in rows]) if rows else torch.empty(0, 0)
        return [turn for turn, _ in rows], stacked

    def _drawn(self, turns: Sequence[_Turn], logits: Tensor) -> list[_Draw]:
        """Note what was computed; of a prompt only its last piece gives a token to each answer."""
        draws: list[_Draw] = []
        for row, turn in enumerate(turns):
            job = turn.job
            if not job.prefilling:
                draws.append(_Draw(job, turn.answer, row))
                continue
            if not bool(logits[row].max().isfinite()):
                self._spoil(job)
                continue
            job.computed += len(turn.piece.tokens)
            if job.prefilling:
                continue
            try:
                self._share_prompt(job)
                draws += [_Draw(job, answer, row) for answer in job.answers]
            except Exception as error:
                self._fail(job, _broken(job, error))
        return draws

    def _share_prompt(self, job: Job) -> None:
        """Give the computed prompt to the request's other answers, and to later requests."""
        request, first = job.request, job.answers[0].row
        for answer in job.answers[1:]:
            answer.row.copy_from(first, job.first_column + job.computed)
        try:
            self._prompts.store(
                job.tenant, request.adapters, request.prompt,
                lambda tokens: first.snapshot(job.first_column, tokens), self._pool.token_bytes,
            )  # fmt: skip
        except (MemoryError, RuntimeError) as error:
            _log.warning("a prompt's beginning was not kept for later: %r", error)

    def _go_on(self, draws: Sequence[_Draw], logits: Tensor) -> None:
        """Choose every answer's next token and say it."""
        draws, masks = self._masks(draws)
        if not draws:
            return
        rows = [draw.row for draw in draws]
        mine = logits if rows == list(range(logits.shape[0])) else logits[rows]
        try:
            chosen = choose(mine, [draw.answer.sampler for draw in draws], masks)
        except Exception as error:
            self._go_on_apart(draws, logits, error)
            return
        for i, (draw, token) in enumerate(zip(draws, chosen.tokens, strict=True)):
            if draw.job.id not in self._jobs:
                continue
            if i in chosen.broken:
                self._spoil(draw.job)
                continue
            try:
                self._accept(draw, token, chosen.logprobs.get(i))
            except Exception as error:
                self._fail(draw.job, _broken(draw.job, error))

    def _go_on_apart(self, draws: Sequence[_Draw], logits: Tensor, error: Exception) -> None:
        """After sampling failed: each answer alone, so that only what is broken fails."""
        if len(draws) == 1:
            self._fail(draws[0].job, _broken(draws[0].job, error))
            return
        _log.warning("sampling for %d answers failed: %r", len(draws), error)
        for draw in draws:
            if draw.job.id in self._jobs:  # else another answer of the same request failed
                self._go_on([draw], logits)

    def _masks(self, draws: Sequence[_Draw]) -> tuple[list[_Draw], dict[int, NDArray[np.bool_]]]:
        """The draws whose constraint can go on, and which tokens it allows, by their place."""
        going: list[_Draw] = []
        masks: dict[int, NDArray[np.bool_]] = {}
        for draw in draws:
            if draw.job.id not in self._jobs:
                continue  # another answer of the same request failed
            try:
                if draw.answer.matcher is not None:
                    masks[len(going)] = draw.answer.matcher.mask()
                going.append(draw)
            except Exception as error:
                self._fail(draw.job, _broken(draw.job, error))
        return going, masks

    def _accept(self, draw: _Draw, token: int, logprob: TokenLogprob | None) -> None:
        job, answer = draw.job, draw.answer
        said = answer.accept(token, job.ends)
        self._admission.queue.charge(job.tenant, 1)
        self._events.append(job.chunk(answer, said, logprob))
        if said.finish is not None:
            self._admission.leave(answer)
        if not job.open:
            del self._jobs[job.id]
            self._admission.release(job)

    def _fail(self, job: Job, error: ForewordError) -> None:
        self._jobs.pop(job.id, None)
        self._admission.release(job, clear=True)
        self._events.append(Failure(job.id, error))

    def _spoil(self, job: Job) -> None:
        """Fail a job whose numbers are none, in the step that made them: later its rows may have
        moved, and left them where another request's are."""
        self._fail(job, _no_token(job))
        job.answers[0].row.arena.wipe_free()

    def _rows_in_use(self) -> int:
        return sum(arena.used for arena in self._pool.arenas.values())


def _broken(job: Job, error: Exception) -> ForewordError:
    if isinstance(error, ForewordError):
        return error
    _log.error("request %r broke", job.id, exc_info=error)
    return EngineFailed(
        f"request {job.id[:80]!r} broke in the engine ({type(error).__name__}); the engine goes on, the "
        "log has the details"
    )


def _no_token(job: Job) -> ForewordError:
    return EngineFailed(
        f"request {job.id[:80]!r}: the model's logits are not finite, or its constraint leaves no token",
        code="engine.no_token",
    )
