"""Who may run: a waiting request becomes a running one when its prefix and its rows can be had.

What an admitted job holds (a pin, rows) is taken in one go and given back in one place, `release`,
whatever ends the job.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from foreword.errors import PrefixUnavailable, UsageError
from foreword.prefix.base_model import BaseModel
from foreword.serving.contract import GenerateRequest
from foreword.serving.engine.checks import check_request
from foreword.serving.engine.choice.constrain import Grammars
from foreword.serving.engine.job import Answer, Job
from foreword.serving.engine.model.rows import Row, RowPool, Snapshot
from foreword.serving.engine.residency.device import Resident
from foreword.serving.engine.residency.held import Prefixes
from foreword.serving.engine.reuse.prompts import PromptCache
from foreword.serving.engine.text.detokenize import Detokenizer, Spelling
from foreword.serving.engine.waiting.queue import FairQueue, Limits

_AHEAD = 8
"""Requests of a full engine whose prefixes are loaded before there is a row for them."""


class Refused(NamedTuple):
    job: Job
    error: Exception
    """A `ForewordError`, or whatever broke while it was let in."""


class Admission:
    """The waiting line and what a request must have before it runs."""

    def __init__(
        self,
        base: BaseModel,
        store: Prefixes | None,
        pool: RowPool,
        prompts: PromptCache[Snapshot],
        limits: Limits,
        share_from: int,
    ) -> None:
        self.queue: FairQueue[Job] = FairQueue(limits)
        self._base = base
        self._store = store
        self._pool = pool
        self._prompts = prompts
        self._share_from = share_from
        self._vocabulary = base.model.get_input_embeddings().weight.shape[0]
        self._spelling = Spelling(base.tokenizer) if base.tokenizer is not None else None
        self._ends = end_tokens(base)
        self._grammars = None
        if base.tokenizer is not None:
            logits = base.model.get_output_embeddings().weight.shape[0]
            self._grammars = Grammars(base.tokenizer, logits, sorted(self._ends))

    def wait(self, request: GenerateRequest, now: float) -> None:
        """Let a request wait, unless no engine on this base could ever answer it.

        Raises:
            UsageError, PrefixUnavailable: it could not.
            Overloaded, DeadlineExceeded: it cannot wait here now.
        """
        if request.adapters.prefix is not None and self._store is None:
            raise PrefixUnavailable(
                f"prefix {request.adapters.prefix.short} was asked for, but this engine was given no "
                "store of prefixes",
                code="prefix.no_store",
            )
        ends = frozenset(request.stop_ids) | (frozenset() if request.ignore_eos else self._ends)
        job = Job(request, ends)
        self._check(job)
        self.prepare(request)
        job.arrived = now
        self.queue.put(job, now)

    def prepare(self, request: GenerateRequest) -> None:
        """Compile a constraint ahead, on any thread: a new one may take seconds.

        Raises:
            UsageError: it cannot be followed.
        """
        if request.constraint is not None:
            self._required_grammars().compile(request.constraint, request.tenant)

    def forget_tenant(self, tenant: str) -> None:
        """Let go what was computed for a tenant's prompts and constraints."""
        self._prompts.drop_tenant(tenant)
        if self._grammars is not None:
            self._grammars.drop_tenant(tenant)

    def admit(self, now: float, free: int) -> Iterator[Job | Refused]:
        """Jobs that start now on at most `free` rows, and those that turn out impossible."""
        ahead = _AHEAD
        for job in self.queue.candidates(now):
            if free <= 0:
                if ahead == 0:
                    break
                ahead -= 1
            try:
                # Also where no row is free: what is next should not wait for its prefix then.
                resident = self._resident(job, now)
                if free <= 0 or (resident is None and job.request.adapters.prefix is not None):
                    continue
                if job.request.n > free or not self._enter(job, resident):
                    self.queue.no_room(job.id, now)
                    continue
            except Exception as error:
                self.queue.cancel(job.id)
                yield Refused(job, error)
                continue
            self.queue.take(job.id, now)
            job.admitted = now
            free -= job.request.n
            yield job

    def release(self, job: Job, *, clear: bool = False) -> None:
        """Give back all that an admitted job holds.

        `clear` its rows if it did not come to its end: what it left there may not be finite.
        """
        for answer in job.answers:
            if clear and answer.row.index >= 0:
                answer.row.clear()
            self.leave(answer)
        if job.resident is not None and self._store is not None:
            self._store.unpin(job.resident)
            job.resident = None

    def leave(self, answer: Answer) -> None:
        """Give back an answer's row, once."""
        if answer.row.index >= 0:
            self._pool.release(answer.row)

    def _resident(self, job: Job, now: float) -> Resident | None:
        """The prefix the job names, if it is here; None while it is being loaded."""
        digest = job.request.adapters.prefix
        if digest is None or self._store is None:
            return None
        return self._store.want(digest, now)

    def _enter(self, job: Job, resident: Resident | None) -> bool:
        """Give a job its prefix and its rows; False if there is no room for the rows now."""
        job.resident = resident
        job.shared = resident is not None and resident.length >= self._share_from
        rows: list[Row] | None = None
        entered = False
        try:
            self._check(job)
            rows = self._pool.reserve(job.columns, job.request.n)
            if rows is None:
                return False
            job.answers = [self._answer(job, i, row) for i, row in enumerate(rows)]
            if resident is not None and self._store is not None:
                self._store.pin(resident)
            entered = True
        finally:
            if not entered:
                for row in rows or ():
                    self._pool.release(row)
                job.answers, job.resident = [], None
        self._fill(job)
        return True

    def _fill(self, job: Job) -> None:
        """Copy in what need not be computed: the prefix, and a beginning that came before."""
        row, request = job.answers[0].row, job.request
        if job.resident is not None and not job.shared:
            row.write_prefix(job.resident.kv)
        tokens, saved = self._prompts.lookup(request.tenant, request.adapters, request.prompt)
        if saved is not None:
            row.restore(job.first_column, saved, tokens)
            job.computed = job.cached = tokens

    def _answer(self, job: Job, index: int, row: Row) -> Answer:
        detokenizer = Detokenizer(self._spelling) if self._spelling is not None else None
        constraint = job.request.constraint
        matcher = None
        if constraint is not None:
            grammar = self._required_grammars().compile(constraint, job.tenant)
            matcher = grammar.matcher()
        return Answer(job.request, index, row, detokenizer, matcher)

    def _check(self, job: Job) -> None:
        length = job.resident.length if job.resident is not None else 0
        check_request(
            job.request, vocab=self._vocabulary, context=self._base.context, prefix_length=length
        )
        if not self._pool.ever_fits(job.columns, job.request.n):
            raise UsageError(
                f"{job.request.n} answers of {job.columns} tokens need more memory for keys and "
                f"values than the engine has ({self._pool.ledger.budget:,} bytes); lower max_tokens or n",
                code="request.too_large",
            )

    def _required_grammars(self) -> Grammars:
        if self._grammars is None:
            raise UsageError(
                f"base {self._base.ref.id} has no tokenizer, so an answer cannot be held to a schema or "
                "a pattern",
                code="request.constraint",
            )
        return self._grammars


def end_tokens(base: BaseModel) -> frozenset[int]:
    """The tokens with which this model ends a text, by its generation settings and tokenizer."""
    settings = getattr(base.model, "generation_config", None)
    ends = [getattr(settings, "eos_token_id", None), getattr(base.tokenizer, "eos_token_id", None)]
    flat = [token for end in ends for token in (end if isinstance(end, list) else [end])]
    return frozenset(token for token in flat if token is not None)
