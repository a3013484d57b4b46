"""Failures inside an engine, on order: its own parts run, and one call of one of them raises."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from foreword.artifact import Artifact
from foreword.prefix.kv import PrefixKV
from foreword.serving.engine import engine as engine_module
from foreword.serving.engine.choice import sampling
from foreword.serving.engine.choice.sampling import Chosen, RowSampler
from foreword.serving.engine.engine import Engine
from foreword.serving.engine.model.attention import Piece
from foreword.serving.engine.model.rows import Arena, Row
from tests.reliability.marked_source import Source

FAILED, NO_TOKEN = "serving.engine_failed", "engine.no_token"
ONCE = ("run before", "run after", "choose", "resize", "resize half", "snapshot", "build")
"""Faults that no request may feel: what failed is done again, waits, or can be done without."""
ONE_REQUEST = ("enter", "share")
"""Faults that end the request they meet, and no other."""
_MEMORY = "DefaultCPUAllocator: can't allocate memory"


class EngineFaults:
    """Installed into one engine; everything passes through until a fault is ordered."""

    def __init__(self, engine: Engine, source: Source, patch: pytest.MonkeyPatch) -> None:
        self._engine, self._source = engine, source
        self.ordered: Counter[str] = Counter()
        self.happened: Counter[str] = Counter()
        self.doomed: set[str] = set()
        """Requests whose rows cannot be run."""
        self.unlucky: set[str] = set()
        """Requests whose logits are not finite."""
        self.undecided: set[str] = set()
        """Requests for which no token can be chosen."""
        self.ended_by_chance = 0
        """Requests that a fault of `ONE_REQUEST` met, and whose end was not seen yet."""
        self._allocations = 0
        patch.setattr(engine._runner, "run", self._run_with(engine._runner.run))
        patch.setattr(engine_module, "choose", self._choose)
        patch.setattr(Arena, "_fresh", self._allocating(Arena._fresh))
        patch.setattr(Arena, "_resized", self._allocating(Arena._resized))
        patch.setattr(Row, "write_prefix", self._ending("enter", Row.write_prefix))
        patch.setattr(Row, "copy_from", self._ending("share", Row.copy_from))
        patch.setattr(Row, "snapshot", self._out_of_memory("snapshot", Row.snapshot))
        patch.setattr(PrefixKV, "from_artifact", self._build_with(PrefixKV.from_artifact))

    def order(self, fault: str) -> None:
        self.ordered[fault] = 1

    def cancel_all(self) -> None:
        self.ordered.clear()

    def _due(self, fault: str) -> bool:
        if not self.ordered[fault]:
            return False
        self.ordered[fault] = 0
        self.happened[fault] += 1
        return True

    def _run_with(self, run: Callable[[Sequence[Piece]], Tensor]) -> Callable[..., Tensor]:
        def faulty(pieces: Sequence[Piece]) -> Tensor:
            # Both at once: what fails for all is done again for each, and must go well then.
            before, after = self._due("run before"), self._due("run after")
            if before:
                raise RuntimeError("a kernel failed")
            ids = self._owners({id(piece.row): i for i, piece in enumerate(pieces)})
            if self.doomed & ids.keys():
                self.happened["doomed"] += 1
                raise RuntimeError("these rows cannot be run")
            logits = run(pieces)
            if after:  # keys and values are written already
                raise MemoryError
            if struck := [
                at for name, places in ids.items() if name in self.unlucky for at in places
            ]:
                self.happened["not finite"] += 1
                logits = logits.clone()
                logits[struck] = torch.nan
            return logits

        return faulty

    def _owners(self, places: Mapping[int, int]) -> dict[str, list[int]]:
        """Of the requests that a fault follows, where they are among these rows."""
        owners: dict[str, list[int]] = {}
        for name in self.doomed | self.unlucky:
            job = self._engine._jobs.get(name)
            for answer in job.answers if job else ():
                if id(answer.row) in places:
                    owners.setdefault(name, []).append(places[id(answer.row)])
        return owners

    def _choose(self, logits: Tensor, rows: Sequence[RowSampler], masks: Any = None) -> Chosen:
        if self._due("choose"):
            raise FloatingPointError("a row could not be sorted")
        if self.undecided:
            mine = {
                id(answer.sampler) for name in self.undecided
                if (job := self._engine._jobs.get(name)) for answer in job.answers
            }  # fmt: skip
            if any(id(row) in mine for row in rows):
                self.happened["undecided"] += 1
                raise FloatingPointError("this row cannot be sorted")
        return sampling.choose(logits, rows, masks)

    def _allocating(self, allocate: Callable[..., Any]) -> Callable[..., Any]:
        """`resize` fails at the first tensor of an arena, `resize half` somewhere in the middle."""

        def faulty(*args: Any) -> Any:
            if self._due("resize"):
                raise RuntimeError(_MEMORY)
            if self.ordered["resize half"]:
                self._allocations += 1
                if self._allocations % 3 == 0 and self._due("resize half"):
                    raise MemoryError
            return allocate(*args)

        return faulty

    def _ending(self, fault: str, real: Callable[..., None]) -> Callable[..., None]:
        def faulty(*args: Any) -> None:
            if self._due(fault):
                self.ended_by_chance += 1
                raise RuntimeError("copying failed")
            real(*args)

        return faulty

    def _out_of_memory(self, fault: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def faulty(*args: Any) -> Any:
            if self._due(fault):
                raise RuntimeError(_MEMORY)
            return real(*args)

        return faulty

    def _build_with(self, build: Callable[[Artifact], PrefixKV]) -> Callable[[Artifact], PrefixKV]:
        def faulty(artifact: Artifact) -> PrefixKV:
            if self._due("build"):
                self._source.note(artifact.digest, "prefix.no_memory")
                raise RuntimeError(_MEMORY)
            return build(artifact)

        return staticmethod(faulty)  # type: ignore[return-value]  # as the class method it replaces
