"""A request on its way through the engine, and its answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from foreword.serving.contract import (
    Beginning,
    Chunk,
    Finish,
    GenerateRequest,
    TokenLogprob,
    Usage,
)  # fmt: skip
from foreword.serving.engine.choice.constrain import Matcher
from foreword.serving.engine.choice.sampling import RowSampler
from foreword.serving.engine.model.attention import Piece
from foreword.serving.engine.model.rows import Row
from foreword.serving.engine.residency.device import Resident
from foreword.serving.engine.text.detokenize import Detokenizer
from foreword.serving.engine.text.stops import StopScanner


class Said(NamedTuple):
    """What one token adds to an answer."""

    text: str
    tokens: tuple[int, ...]
    finish: Finish | None


class Answer:
    """One of a request's `n` answers."""

    def __init__(
        self,
        request: GenerateRequest,
        index: int,
        row: Row,
        detokenizer: Detokenizer | None,
        matcher: Matcher | None,
    ) -> None:
        self.index = index
        self.row = row
        self.sampler = RowSampler(request, index)
        self.matcher = matcher
        self.tokens: list[int] = []
        """Chosen so far, with the one that ends the answer."""
        self.finish: Finish | None = None
        self._detokenizer = detokenizer
        self._stops = StopScanner(request.stop)
        self._most = request.max_tokens

    def accept(self, token: int, ends: frozenset[int]) -> Said:
        """Go on with `token`; a token in `ends` finishes the answer and is not part of it."""
        self.tokens.append(token)
        self.sampler.accept(token)
        if token in ends:
            return self._finish(Finish.STOP, (), "")
        text = self._detokenizer.push(token) if self._detokenizer else ""
        scanned = self._stops.push(text)
        if scanned.hit:
            self.finish = Finish.STOP
            return Said(scanned.text, (token,), Finish.STOP)
        if self.matcher is not None:
            self.matcher.accept(token)
            if self.matcher.finished:
                return self._finish(Finish.STOP, (token,), scanned.text)
        if len(self.tokens) == self._most:
            return self._finish(Finish.LENGTH, (token,), scanned.text)
        return Said(scanned.text, (token,), None)

    def _finish(self, finish: Finish, tokens: tuple[int, ...], text: str) -> Said:
        """The text that waited for a character or a stop string to be completed comes out."""
        waiting = self._stops.push(self._detokenizer.flush() if self._detokenizer else "")
        if waiting.hit:
            finish, rest = Finish.STOP, ""
        else:
            last = self._stops.flush()
            finish, rest = (Finish.STOP if last.hit else finish), last.text
        self.finish = finish
        return Said(text + waiting.text + rest, tokens, finish)


class Job:
    """A request, from its arrival to the end of its last answer. Waits in the queue as itself."""

    def __init__(self, request: GenerateRequest, ends: frozenset[int]) -> None:
        self.request = request
        self.ends = ends
        self.resident: Resident | None = None
        self.shared = False
        """Its prefix is attended where it lies instead of being copied into its rows."""
        self.answers: list[Answer] = []
        self.computed = 0
        """Prompt tokens whose keys and values are in the first answer's row."""
        self.cached = 0
        self.arrived = self.admitted = 0.0
        """On the engine's clock."""
        self._said = False

    @property
    def id(self) -> str:
        return self.request.id

    @property
    def tenant(self) -> str:
        return self.request.tenant

    @property
    def priority(self) -> int:
        return self.request.priority

    @property
    def deadline(self) -> float | None:
        return self.request.deadline

    @property
    def cost(self) -> int:
        return len(self.request.prompt)

    @property
    def first_column(self) -> int:
        """Where in its rows the prompt begins."""
        return self.resident.length if self.resident is not None and not self.shared else 0

    @property
    def columns(self) -> int:
        """Columns each of its rows needs."""
        return self.first_column + len(self.request.prompt) + self.request.max_tokens

    @property
    def prefilling(self) -> bool:
        return self.computed < len(self.request.prompt)

    @property
    def open(self) -> list[Answer]:
        """Answers that go on."""
        return [answer for answer in self.answers if answer.finish is None]

    def prompt_piece(self, most: int) -> Piece:
        """The next at most `most` prompt tokens."""
        tokens = self.request.prompt[self.computed : self.computed + most]
        return self._piece(self.answers[0], tokens, self.computed)

    def decode_piece(self, answer: Answer) -> Piece:
        """The token chosen last, whose keys and values are not there yet."""
        return self._piece(
            answer, answer.tokens[-1:], len(self.request.prompt) + len(answer.tokens) - 1
        )

    def _piece(self, answer: Answer, tokens: Sequence[int], place: int) -> Piece:
        kv = self.resident.kv if self.resident is not None else None
        return Piece(answer.row, tokens, self.first_column + place, kv, self.shared)

    def chunk(self, answer: Answer, said: Said, logprob: TokenLogprob | None) -> Chunk:
        usage = None
        if said.finish is not None:
            usage = Usage(len(self.request.prompt), self.cached, len(answer.tokens))
        beginning, self._said = None if self._said else self._beginning(), True
        return Chunk(
            id=self.id, index=answer.index, text=said.text, tokens=said.tokens,
            adapters=self.request.adapters, logprobs=(logprob,) if logprob and said.tokens else (),
            finish=said.finish, usage=usage, beginning=beginning,
        )  # fmt: skip

    def _beginning(self) -> Beginning:
        waited = self.admitted - self.arrived
        if self.resident is None:
            return Beginning(admitted=waited)
        load = self.resident.load
        if load is None or load.landed <= self.arrived:
            return Beginning("device", waited)
        return Beginning(load.source, waited, load.phases(self.arrived))
