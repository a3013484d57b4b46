"""Small signed prefixes for a tiny base, and a source that can be told to misbehave."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from foreword.artifact import Artifact, Digest, PromptFormat, Site, pack
from foreword.errors import PrefixUnavailable
from foreword.prefix.base_model import BaseModel
from foreword.prefix.kv import LayerKV, PrefixKV
from foreword.prefix.probe import make_probes, probe_inputs
from foreword.serving.engine.residency.store import Budgets, PrefixStore, Resident
from foreword.serving.engine.residency.tiers import DiskTier
from foreword.signing.store import open_verified
from foreword.signing.verify import VerifiedArtifact, verify
from tests.signing.made import NOW, key, policy, signed

SIGNER = key("prefixes")
POLICY = policy(SIGNER)
LENGTH = 4
"""Virtual tokens of most prefixes."""


def kv(base: BaseModel, number: int, length: int = LENGTH) -> PrefixKV:
    """Random keys and values for every decoder layer, others for each number."""
    generator = torch.Generator().manual_seed(number)
    return PrefixKV(
        length,
        {
            Site.DECODER: {
                index: LayerKV(
                    torch.randn(layer.kv_heads, length, layer.key_dim, generator=generator),
                    torch.randn(layer.kv_heads, length, layer.value_dim, generator=generator),
                )
                for index, layer in base.geometry.sites[Site.DECODER].items()
            }
        },
    )


def artifact(
    base: BaseModel, number: int, *, length: int = LENGTH, probed: bool = False
) -> Artifact:
    prefix = kv(base, number, length)
    return pack(
        name=f"acme/p{number}",
        version="1.0.0",
        created="2026-01-31T12:00:00Z",
        base=replace(base.ref, id="tiny"),
        geometry=prefix.geometry,
        length=length,
        dtype="float32",
        prompt=PromptFormat("template", "{input}"),
        training={},
        probes=make_probes(base, prefix, probe_inputs(base)) if probed else (),
        tensors=prefix.to_bytes(),
    )


def verified(made: Artifact) -> VerifiedArtifact:
    """Signed and judged, as a registry gives it."""
    return verify(made.manifest_bytes, made.tensor_bytes, [signed(made, SIGNER)], POLICY, NOW)


@dataclass
class Source:
    """Where the store fetches from. `before` may sleep or raise; it runs on the store's threads."""

    known: dict[Digest, VerifiedArtifact] = field(default_factory=dict)
    before: Callable[[Digest], None] = lambda digest: None
    asked: list[Digest] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, *made: Artifact) -> list[Digest]:
        self.known |= {each.digest: verified(each) for each in made}
        return [each.digest for each in made]

    def __call__(self, digest: Digest) -> VerifiedArtifact:
        with self.lock:
            self.asked.append(digest)
        self.before(digest)
        return self.known[digest]


@dataclass
class Clock:
    """Time as the store sees it: it stands still unless told otherwise."""

    now: float = 1000.0

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


def load(store: PrefixStore, digest: Digest, clock: Clock, *, seconds: float = 10.0) -> Resident:
    """Want a prefix as a request does, step by step; what the store raises comes through."""
    until(store, clock, lambda: store.want(digest, clock.now) is not None, seconds=seconds)
    resident = store.want(digest, clock.now)
    if resident is None:
        raise AssertionError(f"{digest.short} was gone before its request came for it")
    return resident


def use(store: PrefixStore, digest: Digest, clock: Clock) -> Resident:
    """A request that wants a prefix, runs and ends."""
    resident = load(store, digest, clock)
    store.pin(resident)
    store.unpin(resident)
    return resident


def until(
    store: PrefixStore, clock: Clock, happened: Callable[[], bool], *, seconds: float = 10.0
) -> None:
    """Go on until something has happened, for at most so many real seconds."""
    end = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > end:
            raise AssertionError(f"it did not happen in {seconds} s: {store.stats()}")
        step(store, clock)


def step(store: PrefixStore, clock: Clock) -> list[Digest]:
    """One step of an engine: real threads get a moment, the store's clock goes on a little."""
    time.sleep(0.0005)
    clock.pass_by(0.01)
    ready = store.collect(clock.now)
    store.check_integrity()
    return ready


def one(base: BaseModel) -> int:
    """Bytes of one prefix of the usual length."""
    return LENGTH * base.geometry.values_per_token() * 4


_open: list[PrefixStore] = []


def store(base: BaseModel, source: Source, room: int = 3, **more: Any) -> PrefixStore:
    """A store with room for so many prefixes of the usual length; the test's end closes it."""
    made = PrefixStore(base, source, Budgets(room * one(base)), rng=random.Random(0), **more)
    _open.append(made)
    return made


def close_stores() -> None:
    while _open:
        _open.pop().close()


def on_disk(directory: Path) -> DiskTier:
    return DiskTier(directory, 1 << 24, lambda path: open_verified(path, POLICY, NOW))


def refused(kept: PrefixStore, digest: Digest, clock: Clock) -> PrefixUnavailable:
    """How the store refuses a prefix that it does not give."""
    with pytest.raises(PrefixUnavailable) as caught:
        load(kept, digest, clock)
    return caught.value


def same(resident: Resident, expected: PrefixKV) -> bool:
    return all(
        torch.equal(ours.key, theirs.key) and torch.equal(ours.value, theirs.value)
        for (_, _, ours), (_, _, theirs) in zip(resident.kv, expected, strict=True)
    )
