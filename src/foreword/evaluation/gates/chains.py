"""Agent chains: steps that each name a prefix, judged end to end and gated as one thing.

Every prefix of a chain can be good by itself and the chain bad, because a step reads what the step before
wrote. So the gate of a chain is keyed by all its digests in order: exchange one, and it is another chain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from time import monotonic
from typing import TypeVar

from foreword.artifact import Digest, canonical
from foreword.errors import EngineFailed, UsageError
from foreword.evaluation.golden import GoldenRow, GoldenSet
from foreword.evaluation.runs.answers import Answer
from foreword.evaluation.runs.ask import Ask, Generate
from foreword.evaluation.runs.decoding import Decoding
from foreword.evaluation.runs.replay import Progress, Replay, key_of
from foreword.evaluation.runs.store import AnswerStore
from foreword.evaluation.runs.variant import Variant

ROUTE = "chain"

_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True)
class Step:
    """One call of the model."""

    name: str
    """What later steps call its answer."""
    digest: Digest | None
    """Of its prefix; None: the bare model."""
    inputs: Mapping[str, str] = field(default_factory=lambda: {"input": "{input}"})
    """Column of the prefix's prompt to a text with places for the row's columns and earlier answers."""


@dataclass(frozen=True)
class Chain:
    """Steps in order; the answer of the last one is the answer."""

    name: str
    """Its part in the comparison, such as `candidate`; not part of the key."""
    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        names = [step.name for step in self.steps]
        if not names or len(set(names)) < len(names):
            raise UsageError(
                f"expected steps with different names, got {', '.join(names) or 'none'}",
                code="chain.steps",
            )

    @cached_property
    def key(self) -> Digest:
        """sha256 over names, digests and inputs of the steps, in order."""
        steps = [
            {"name": s.name, "digest": str(s.digest) if s.digest else None, "inputs": dict(s.inputs)}
            for s in self.steps
        ]  # fmt: skip
        return Digest.of(canonical.encode({"foreword_chain": 1, "steps": steps}))

    def bare(self, name: str = "base") -> Chain:
        """The same steps without any prefix."""
        return Chain(name, tuple(replace(step, digest=None) for step in self.steps))


def replay_chains(
    chains: Sequence[Chain],
    golden: GoldenSet,
    generate: Generate,
    decoding: Decoding,
    *,
    base: str,
    engine: str = "",
    store: AnswerStore | None = None,
    progress: Progress = lambda done, total: None,
    clock: Callable[[], float] = monotonic,
) -> Replay:
    """Every chain answers every row; each step of all chains is one call of `generate`.

    In the result a chain is a variant whose digest is its key; tokens and seconds are those of all its
    steps. What is in `store` is not asked again, as long as its input is the same.

    Raises:
        UsageError: a row is a conversation, or a step asks for a column nobody gives (`chain.*`).
        EngineFailed: an answer is missing or has another prefix attached than its step.
    """
    run = _Run(chains, golden, decoding, base, engine, store, progress)
    began = clock()
    for number in range(max(len(chain.steps) for chain in chains)):
        run.step(number, generate)
    return Replay(
        golden,
        tuple(Variant(chain.name, chain.key, ROUTE, base) for chain in chains),
        decoding,
        engine,
        {chain.name: run.total(chain) for chain in chains},
        run.asked,
        clock() - began,
    )


class _Run:
    """What every chain has said so far."""

    def __init__(
        self,
        chains: Sequence[Chain],
        golden: GoldenSet,
        decoding: Decoding,
        base: str,
        engine: str,
        store: AnswerStore | None,
        progress: Progress,
    ) -> None:
        self._chains, self._golden = chains, golden
        self._decoding, self._base, self._engine = decoding, base, engine
        self._store, self._progress = store, progress
        self._said: dict[str, list[dict[str, Answer]]] = {chain.name: [] for chain in chains}
        self._total = len(golden.rows) * sum(len(chain.steps) for chain in chains)
        self._done = self.asked = 0

    def step(self, number: int, generate: Generate) -> None:
        """Let all chains that have a step of this number take it."""
        taking = [chain for chain in self._chains if number < len(chain.steps)]
        places = {chain.name: self._place(chain, number) for chain in taking}
        known = {place.key: dict(place.stored(self._store)) for place in places.values()}
        asks = [
            (place.key, Ask(row, place.variant))
            for place in {place.key: place for place in places.values()}.values()
            for row in place.golden.rows
            if row.id not in known[place.key]
        ]

        def take(at: int, answer: Answer) -> None:
            key, ask = asks[at]
            _require_prefix(ask, answer)
            if self._store is not None:
                self._store.add(canonical.decode(key), ask.row.id, answer)
            known[key][ask.row.id] = answer
            self._tell(1)

        self._tell(sum(len(place.golden.rows) for place in places.values()) - len(asks))
        if asks:
            generate([ask for _, ask in asks], self._decoding, take)
        self.asked += len(asks)
        for chain in taking:
            self._said[chain.name].append(self._whole(known[places[chain.name].key]))

    def total(self, chain: Chain) -> dict[str, Answer]:
        """The last answers, with what all steps took."""
        steps = self._said[chain.name]
        return {
            row.id: Answer(
                steps[-1][row.id].text,
                chain.key,
                _sum([said[row.id].tokens for said in steps]),
                _sum([said[row.id].seconds for said in steps]),
            )
            for row in self._golden.rows
        }

    def _place(self, chain: Chain, number: int) -> _Place:
        step = chain.steps[number]
        earlier = dict(zip([s.name for s in chain.steps], self._said[chain.name], strict=False))
        rows = tuple(
            replace(row, columns=dict(_inputs(step, row, earlier)), messages=())
            for row in self._golden.rows
        )
        variant = Variant(chain.name, step.digest, "engine", self._base)
        golden = GoldenSet(self._golden.header, rows)
        key = key_of(variant, golden.digest, self._decoding, self._engine)
        return _Place(golden, variant, canonical.encode(key))

    def _whole(self, answers: Mapping[str, Answer]) -> dict[str, Answer]:
        missing = [row.id for row in self._golden.rows if row.id not in answers]
        if missing:
            raise EngineFailed(
                f"{len(missing)} answers of a step did not come, such as that of {missing[0]!r}; run it "
                "again, the others are kept",
                code="evaluation.missing",
            )
        return dict(answers)

    def _tell(self, more: int) -> None:
        self._done += more
        self._progress(self._done, self._total)


@dataclass(frozen=True)
class _Place:
    """A step of a chain with its inputs: the same for two chains that are the same so far."""

    golden: GoldenSet
    variant: Variant
    key: bytes

    def stored(self, store: AnswerStore | None) -> Mapping[str, Answer]:
        return store.answers(canonical.decode(self.key)) if store else {}


def _inputs(
    step: Step, row: GoldenRow, earlier: Mapping[str, Mapping[str, Answer]]
) -> Iterator[tuple[str, str]]:
    from foreword.artifact import PromptFormat
    from foreword.prefix.prompts import render

    if row.messages:
        raise UsageError(
            f"row {row.id!r} is a conversation; a chain takes rows with input or columns",
            code="chain.messages",
        )
    known = {**row.columns, **{name: said[row.id].text for name, said in earlier.items()}}
    for column, template in step.inputs.items():
        yield column, render(PromptFormat("template", template), known)


def _require_prefix(ask: Ask, answer: Answer) -> None:
    if answer.digest != ask.variant.digest:
        raise EngineFailed(
            f"row {ask.row.id!r} was answered with {answer.digest or 'no prefix'} attached instead of "
            f"{ask.variant.digest or 'none'}; nothing is judged by such answers",
            code="evaluation.wrong_prefix",
        )


def _sum(values: Sequence[_Number | None]) -> _Number | None:
    known = [value for value in values if value is not None]
    return sum(known[1:], known[0]) if len(known) == len(values) else None
