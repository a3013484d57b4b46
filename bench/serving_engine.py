"""Our side of `bench/serving.py`: the embedded engine, driven step by step in a process of its own.

Prefixes are signed artifacts of random numbers in a directory of their own; the store reads and verifies
them from there. All that a request holds is resident before it is timed, except where loading is what is
measured.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Event

import torch
from serving_sides import Stopwatch, Taken, Work, generating, serve

from foreword.artifact import Digest, PromptFormat, Site, pack, write_artifact
from foreword.prefix.base_model import BaseModel, load_base
from foreword.prefix.kv import LayerKV, PrefixKV
from foreword.prefix.probe import make_probes, probe_inputs
from foreword.serving.contract import BARE, AdapterSet, Chunk, GenerateRequest
from foreword.serving.engine.engine import Engine, EngineSettings, Failure
from foreword.serving.engine.model.rows import RowPool
from foreword.serving.engine.residency.store import Budgets, PrefixStore, Resident
from foreword.serving.engine.waiting.ledger import Ledger
from foreword.signing.envelope import sign
from foreword.signing.keys import new_key
from foreword.signing.policy import TrustedKey, TrustPolicy
from foreword.signing.statement import Statement
from foreword.signing.store import add_envelope, open_verified
from foreword.signing.verify import VerifiedArtifact

PREFIX_BYTES = 4 * 2**30
MANY, ROW = 32, 64
"""Rows of an engine that is busy, and the tokens each has room for."""
PROBED = 8
"""Prefixes with stored logits, as training writes them; the first load of each runs the model."""


class Shelf:
    """Signed artifacts by digest, written when they are first asked for."""

    def __init__(self, base: BaseModel, directory: Path) -> None:
        self._base, self._directory = base, directory
        self._key = new_key("bench")
        self._policy = TrustPolicy(
            keys={self._key.public.id: TrustedKey(self._key.public, "bench")}
        )
        self._made: dict[tuple[int, bool], list[Digest]] = {}

    def digests(self, count: int, length: int, *, probed: bool = False) -> list[Digest]:
        """The first `count` prefixes with this many virtual tokens."""
        made = self._made.setdefault((length, probed), [])
        while len(made) < count:
            made.append(self._make(len(made), length, probed=probed))
        return made[:count]

    def fetch(self, digest: Digest) -> VerifiedArtifact:
        return open_verified(self._directory / digest.hex, self._policy, datetime.now(UTC))

    def _make(self, number: int, length: int, *, probed: bool) -> Digest:
        kv = random_prefix(self._base, number, length)
        artifact = pack(
            name=f"bench/m{length}-{number}", version="1.0.0", created="2026-01-31T12:00:00Z",
            base=replace(self._base.ref, id="demo"), geometry=kv.geometry, length=length,
            dtype="float32", prompt=PromptFormat("template", "{input}\n"), training={},
            probes=make_probes(self._base, kv, probe_inputs(self._base)) if probed else (),
            tensors=kv.to_bytes(),
        )  # fmt: skip
        directory = self._directory / artifact.digest.hex
        write_artifact(artifact, directory)
        statement = Statement.about(artifact, datetime.now(UTC))
        add_envelope(directory, sign(statement.to_bytes(), self._key))
        return artifact.digest


def random_prefix(base: BaseModel, seed: int, length: int) -> PrefixKV:
    draw = torch.Generator().manual_seed(seed)

    def numbers(heads: int, dim: int) -> torch.Tensor:
        return torch.randn(heads, length, dim, generator=draw)

    layers = {
        index: LayerKV(numbers(g.kv_heads, g.key_dim), numbers(g.kv_heads, g.value_dim))
        for index, g in base.geometry.sites[Site.DECODER].items()
    }
    return PrefixKV(length, {Site.DECODER: layers})


class Loader:
    """A store over the shelf, asked the way the engine asks it."""

    def __init__(self, base: BaseModel, shelf: Shelf) -> None:
        self._woken = Event()
        self.store = PrefixStore(
            base, shelf.fetch, Budgets(device=PREFIX_BYTES), woken=self._woken.set
        )

    def resident(self, digest: Digest) -> Resident:
        """The prefix, as soon as it can be had."""
        while (found := self.store.want(digest, _now())) is None:
            self.wait()
            self.store.collect(_now())
        return found

    def wait(self) -> None:
        """Until a thread has brought something, as the engine's own thread waits when it is idle."""
        self._woken.wait(timeout=1.0)
        self._woken.clear()

    def load(self, digest: Digest) -> float:
        """Seconds from wanting a prefix that is not resident to having it; it is evicted after."""
        began = time.perf_counter()
        resident = self.resident(digest)
        seconds = time.perf_counter() - began
        # What nobody has used yet is kept for whoever asked.
        self.store.pin(resident)
        self.store.unpin(resident)
        self.evict(digest)
        return seconds

    def evict(self, digest: Digest) -> None:
        if not self.store.evict(digest):
            raise RuntimeError(f"prefix {digest.short} could not be evicted")


class Steps:
    """How long steps took in which every request got a token and none its first."""

    def __init__(self, requests: int) -> None:
        self._requests = requests
        self._seconds: list[float] = []

    def note(self, seconds: float, given: int, started: int) -> None:
        """A step gave `given` tokens, `started` of them the first of their request."""
        if given == self._requests and not started:
            self._seconds.append(seconds)

    def median(self) -> float | None:
        return statistics.median(self._seconds) if self._seconds else None


class Ours:
    """Engines over one base: one for everything, and one for each number of registered prefixes."""

    def __init__(self, base: BaseModel, shelf: Shelf) -> None:
        self._base, self._shelf = base, shelf
        self._engines: dict[int, tuple[Engine, Loader]] = {}

    def run(self, work: Work) -> Taken:
        engine, loader = self._with_registered(work.registered, work.length)
        wanted = self._wanted(work)
        for digest in wanted:
            loader.resident(digest)
        held = [AdapterSet(wanted[i % len(wanted)]) if wanted else BARE for i in range(work.size)]
        return drive(engine, work, held)

    def latency(self, trials: int, length: int = 16) -> dict[str, list[float]]:
        """Seconds: attaching a resident prefix, loading one, and time to first token with the prefix
        resident and not; `first_load` also proves it on this base, which happens once a process."""
        engine, loader = self._with_registered(0, length)
        digests = self._shelf.digests(PROBED, length, probed=True)
        turns = [digests[trial % PROBED] for trial in range(trials)]
        taken = {
            "first_load": [loader.load(digest) for digest in digests],
            "load": [loader.load(digest) for digest in turns],
        }
        firsts: list[tuple[float, float]] = []
        for trial, digest in enumerate(turns[: trials // 3]):
            cold = first_token(engine, loader, digest, 2 * trial)
            firsts.append((cold, first_token(engine, loader, digest, 2 * trial + 1)))
            loader.evict(digest)
        taken["cold"], taken["warm"] = (list(side) for side in zip(*firsts, strict=True))
        return taken | {"attach": attach_times(self._base, loader, turns)}

    def _wanted(self, work: Work) -> list[Digest]:
        """Different prefixes that the requests hold: of registered ones, some from all over them."""
        if not work.registered:
            return self._shelf.digests(work.adapters, work.length)
        registered = self._shelf.digests(work.registered, work.length)
        return registered[:: max(1, len(registered) // work.size)][: work.size]

    def _with_registered(self, count: int, length: int) -> tuple[Engine, Loader]:
        if count not in self._engines:
            loader = Loader(self._base, self._shelf)
            for digest in self._shelf.digests(count, length):
                loader.resident(digest)
            self._engines[count] = Engine(self._base, loader.store, EngineSettings()), loader
        return self._engines[count]


def drive(engine: Engine, work: Work, held: Sequence[AdapterSet]) -> Taken:
    """Hand over all requests at once, then step until the last token."""
    order = {str(index): index for index in range(work.size)}
    watch, steps = Stopwatch(work.size), Steps(work.size)
    for name, index in order.items():
        engine.submit(_request(name, work.prompts[index], held[index], work.tokens), _now())
    started: set[str] = set()
    while engine.busy:
        began = time.perf_counter()
        chunks = _chunks(engine.step(_now()))
        for chunk in chunks:
            watch.got(order[chunk.id], chunk.tokens)
        new = {chunk.id for chunk in chunks if chunk.tokens} - started
        started |= new
        given = sum(len(chunk.tokens) for chunk in chunks)
        steps.note(time.perf_counter() - began, given, len(new))
    return watch.stop(steps.median())


def first_token(engine: Engine, loader: Loader, digest: Digest, seed: int) -> float:
    """Seconds until a new prompt has its first token; the prefix may have to be loaded."""
    prompt = torch.randint(100, 40_000, (32,), generator=torch.Generator().manual_seed(seed))
    began = time.perf_counter()
    engine.submit(_request("first", prompt.tolist(), AdapterSet(digest), 1), _now())
    while engine.busy:
        if not _chunks(engine.step(_now())):
            loader.wait()
    return time.perf_counter() - began


def attach_times(base: BaseModel, loader: Loader, digests: Sequence[Digest]) -> list[float]:
    """Seconds to find and pin a resident prefix, take a row and copy the prefix into it.

    The rows are those of an engine that is busy already: 31 are in use, and none has to be made.
    """
    layers = base.geometry.sites[Site.DECODER]
    pool = RowPool(layers, base.dtype, base.device, Ledger(2**30), most_rows=MANY)
    rows = pool.reserve(ROW, MANY)
    if rows is None:
        raise RuntimeError(f"there was no room for {MANY} rows")
    pool.release(rows[-1])
    return [_attach(pool, loader, digest) for digest in (digests[0], *digests)][1:]


def _attach(pool: RowPool, loader: Loader, digest: Digest) -> float:
    loader.resident(digest)
    began = time.perf_counter()
    resident = loader.resident(digest)
    loader.store.pin(resident)
    for row in pool.reserve(ROW, 1) or []:
        row.write_prefix(resident.kv)
        seconds = time.perf_counter() - began
        pool.release(row)
        loader.store.unpin(resident)
        return seconds
    raise RuntimeError("there was no row for a prefix")


def _request(name: str, prompt: Sequence[int], held: AdapterSet, tokens: int) -> GenerateRequest:
    return GenerateRequest(name, tuple(prompt), adapters=held, max_tokens=tokens, ignore_eos=True)


def _chunks(events: Sequence[Chunk | Failure]) -> list[Chunk]:
    """Every event must be a piece of an answer."""
    for event in events:
        if isinstance(event, Failure):
            raise event.error
    return [event for event in events if isinstance(event, Chunk)]


def _now() -> float:
    return time.monotonic()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("base", type=Path)
    parser.add_argument("scratch", type=Path, help="an empty directory for keys and prefixes")
    given = parser.parse_args()
    os.environ["FOREWORD_HOME"] = str(given.scratch / "home")

    def load() -> dict[str, Callable[..., object]]:
        base = load_base(given.base)
        ours = Ours(base, Shelf(base, given.scratch / "prefixes"))
        return {"generate": generating(ours.run), "latency": ours.latency}

    serve(load)


if __name__ == "__main__":
    main()
