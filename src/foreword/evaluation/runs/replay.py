"""Replay: every variant answers the same rows with the same decoding, all in one pass."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from foreword.artifact import Digest, canonical
from foreword.errors import EngineFailed, UsageError
from foreword.evaluation.golden import GoldenSet
from foreword.evaluation.runs.answers import Answer
from foreword.evaluation.runs.ask import Ask, Generate
from foreword.evaluation.runs.decoding import Decoding
from foreword.evaluation.runs.store import AnswerStore
from foreword.evaluation.runs.variant import Variant

Progress = Callable[[int, int], None]
"""Told how many answers there are, and how many there will be."""


@dataclass(frozen=True)
class Replay:
    """All answers of a run."""

    golden: GoldenSet
    variants: tuple[Variant, ...]
    decoding: Decoding
    engine: str
    answers: Mapping[str, Mapping[str, Answer]]
    """By variant's name, then by row id; every variant has every row."""
    asked: int
    """Answers made now; the others were in the store."""
    seconds: float

    @property
    def rate(self) -> float:
        """Answers made per second; 0 if none was."""
        return self.asked / self.seconds if self.asked and self.seconds else 0.0


def replay(
    variants: Sequence[Variant],
    golden: GoldenSet,
    generate: Generate,
    decoding: Decoding,
    *,
    engine: str = "",
    store: AnswerStore | None = None,
    progress: Progress = lambda done, total: None,
    clock: Callable[[], float] = time.monotonic,
) -> Replay:
    """Ask everything that is not in `store` in one call of `generate`, row by row for all variants.

    `engine` names what generates, with its versions: an answer that was stored under another name is
    asked again. Variants that are the same but for their names are asked once.

    Raises:
        UsageError: no variant, or two of one name (`evaluation.variants`).
        EngineFailed: an answer is missing (`evaluation.missing`) or has another prefix attached than
            its variant (`evaluation.wrong_prefix`); it is not kept.
        ServingError: whatever `generate` raises; what was answered before is in `store`.
    """
    _check_names(variants)
    collected = _Collected(variants, golden, decoding, engine, store, progress)
    began = clock()
    if collected.asks:
        generate(collected.asks, decoding, collected.take)
    collected.require_all()
    return Replay(
        golden,
        tuple(variants),
        decoding,
        engine,
        {v.name: collected.known[collected.keys[v.name]] for v in variants},
        len(collected.asks),
        clock() - began,
    )


def key_of(variant: Variant, set_digest: Digest, decoding: Decoding, engine: str) -> dict[str, Any]:
    """What the answers of a variant depend on: the key they are stored under."""
    return {
        **variant.to_json(), "set": str(set_digest), "decoding": decoding.to_json(),
        "engine": engine,
    }  # fmt: skip


class _Collected:
    """Answers by key and row: those that were stored, and those that come in."""

    def __init__(
        self,
        variants: Sequence[Variant],
        golden: GoldenSet,
        decoding: Decoding,
        engine: str,
        store: AnswerStore | None,
        progress: Progress,
    ) -> None:
        self._store, self._progress = store, progress
        keys = {v.name: key_of(v, golden.digest, decoding, engine) for v in variants}
        self.keys = {name: canonical.encode(key) for name, key in keys.items()}
        different: dict[bytes, Variant] = {}
        for variant in variants:
            different.setdefault(self.keys[variant.name], variant)
        self._of_key = {self.keys[v.name]: keys[v.name] for v in different.values()}
        ids = {row.id for row in golden.rows}
        self.known: dict[bytes, dict[str, Answer]] = {
            key: {i: a for i, a in (store.answers(self._of_key[key]) if store else {}).items()
                  if i in ids}
            for key in different
        }  # fmt: skip
        self.asks = [
            Ask(row, variant)
            for row in golden.rows
            for key, variant in different.items()
            if row.id not in self.known[key]
        ]
        self._total = len(golden.rows) * len(different)

    def take(self, place: int, answer: Answer) -> None:
        ask = self.asks[place]
        if answer.digest != ask.variant.digest:
            raise EngineFailed(
                f"row {ask.row.id!r} of the variant {ask.variant.name!r} was answered with "
                f"{answer.digest or 'no prefix'} attached instead of "
                f"{ask.variant.digest or 'none'}; nothing is judged by such answers",
                code="evaluation.wrong_prefix",
            )
        key = self.keys[ask.variant.name]
        if self._store is not None:
            self._store.add(self._of_key[key], ask.row.id, answer)
        self.known[key][ask.row.id] = answer
        self._progress(sum(map(len, self.known.values())), self._total)

    def require_all(self) -> None:
        missing = self._total - sum(map(len, self.known.values()))
        if missing:
            raise EngineFailed(
                f"{missing} of {self._total} answers did not come; run it again, the others are kept",
                code="evaluation.missing",
            )


def _check_names(variants: Sequence[Variant]) -> None:
    names = [variant.name for variant in variants]
    if not names or len(set(names)) < len(names):
        raise UsageError(
            f"expected variants with different names, got {', '.join(names) or 'none'}",
            code="evaluation.variants",
        )
