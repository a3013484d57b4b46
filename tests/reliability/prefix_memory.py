"""A store whose budget is larger than the memory there is, in a process of its own.

Pins prefixes until the system refuses, then goes on with what is resident; prints one line of JSON.
"""

from __future__ import annotations

import json
import resource
import threading
import time
from pathlib import Path

import torch

from foreword.artifact import Digest
from foreword.errors import PrefixUnavailable
from foreword.prefix.kv import PrefixKV
from foreword.serving.engine.residency.store import Budgets, PrefixStore, Resident
from tests.serving.prefix_samples import Source, artifact, kv
from tests.tiny import tiny_base

LENGTH = 12_000
"""Virtual tokens; T5 has no limit of positions. A tensor has 1.5 MB, a prefix 9."""
COUNT = 8
SPARE = 48 << 20
"""Bytes: a few prefixes with the copies they are made of."""


def main() -> None:
    torch.set_num_threads(1)
    threading.stack_size(256 << 10)
    base, source = tiny_base("t5"), Source()
    names = source.add(*(artifact(base, number, length=LENGTH) for number in range(COUNT)))
    sums = [checksum(kv(base, number, LENGTH)) for number in range(COUNT)]
    store = PrefixStore(base, source, Budgets(10 << 30))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + SPARE
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    print(json.dumps(fill(store, names, sums)))


def fill(store: PrefixStore, names: list[Digest], sums: list[float]) -> dict[str, object]:
    pinned: list[Resident] = []
    refusal = None
    for digest in names:
        found = loaded_or_refused(store, digest)
        if isinstance(found, PrefixUnavailable):
            refusal = found
            break
        store.pin(found)
        pinned.append(found)
    store.check_integrity()
    right = [checksum(resident.kv) for resident in pinned] == sums[: len(pinned)]
    there = all(store.want(each.digest, time.monotonic()) is each for each in pinned)
    reserved = store.stats().reserved_bytes
    for resident in pinned:
        store.unpin(resident)
        store.evict(resident.digest)
    del resident
    count = len(pinned)
    pinned.clear()
    time.sleep(refusal.retry_after or 0.0 if refusal else 0.0)
    again = loaded_or_refused(store, names[count % len(names)])
    store.check_integrity()
    return {
        "pinned": count, "refusal": refusal.code if refusal else None, "reserved": reserved,
        "right and there": right and there, "again": isinstance(again, Resident),
    }  # fmt: skip


def loaded_or_refused(store: PrefixStore, digest: Digest) -> Resident | PrefixUnavailable:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            resident = store.want(digest, time.monotonic())
        except PrefixUnavailable as e:
            return e
        if resident is not None:
            return resident
        time.sleep(0.001)
        store.collect(time.monotonic())
    raise AssertionError("neither loaded nor refused in 30 s")


def checksum(prefix: PrefixKV) -> float:
    return sum(float(layer.key.sum() + layer.value.sum()) for _, _, layer in prefix)


if __name__ == "__main__":
    main()
