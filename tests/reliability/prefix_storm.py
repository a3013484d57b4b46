"""A storm of requests on the prefix store, in a process of its own with hardly any memory to spare.

Prints what it saw as one line of JSON; `test_memory_pressure.py` runs it and judges.
"""

from __future__ import annotations

import gc
import json
import random
import resource
import sys
import threading
import time
from collections import OrderedDict, deque
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from pathlib import Path
from statistics import quantiles

import torch

from foreword.artifact import Artifact, Digest
from foreword.prefix.base_model import BaseModel
from foreword.serving.engine.residency.store import Budgets, PrefixStore, Resident
from foreword.serving.engine.residency.tiers import DiskTier
from foreword.signing.store import open_verified
from foreword.signing.verify import VerifiedArtifact, verify
from tests.registry.scratch import scratch
from tests.serving.prefix_samples import POLICY, SIGNER, artifact
from tests.signing.made import NOW, signed
from tests.tiny import tiny_base

LENGTH = 52
"""Virtual tokens: 19,968 bytes with the tiny base."""
SHARE = 0.05
"""Of all bytes, for residents."""
AT_ONCE = 4
"""Requests that run or wait at the same time."""
LASTS = 3
"""Steps a request runs for."""
STEP = 0.0005
"""Seconds the model would take for a step."""
WINDOWS = 10
SPARE = 24 << 20
"""Address space beyond what is there when the storm begins, and the budget."""


@dataclass
class Report:
    """What a storm was and did."""

    prefixes: int
    requests: int
    budget: int
    total: int
    hits: list[float] = field(default_factory=list)
    """Share of requests that did not wait, by window."""
    lru: list[float] = field(default_factory=list)
    """The same for an ideal LRU of the same bytes on the same requests."""
    p99: list[float] = field(default_factory=list)
    """Milliseconds from the first `want` to the prefix, of those that waited, by window."""
    loads: dict[str, int] = field(default_factory=dict)
    samples: int = 0
    over_budget: int = 0
    moved_while_pinned: int = 0
    off_by: float = 0.0
    """Largest relative difference between accounted bytes and tensors found in the process."""
    off_samples: int = 0
    failures: int = 0
    limit_bites: bool = False
    """An allocation of all prefixes at once is refused here."""


class Everything:
    """All prefixes as signed bytes; a fetch judges them as a registry would."""

    def __init__(self, base: BaseModel, count: int) -> None:
        self._signed: dict[Digest, tuple[Artifact, bytes]] = {}
        for number in range(count):
            made = artifact(base, number, length=LENGTH)
            self._signed[made.digest] = made, signed(made, SIGNER)
        self.names = list(self._signed)

    def __call__(self, digest: Digest) -> VerifiedArtifact:
        made, envelope = self._signed[digest]
        return verify(made.manifest_bytes, made.tensor_bytes, [envelope], POLICY, NOW)


def zipf(count: int, names: int, seed: int) -> list[int]:
    weights = list(accumulate(1 / (rank + 1) for rank in range(names)))
    return random.Random(seed).choices(range(names), cum_weights=weights, k=count)


def ideal_lru(trace: list[int], capacity: int) -> list[bool]:
    cache, hits = OrderedDict[int, None](), []
    for number in trace:
        hits.append(number in cache)
        cache[number] = None
        cache.move_to_end(number)
        if len(cache) > capacity:
            cache.popitem(last=False)
    return hits


def windows(values: list[bool]) -> list[float]:
    size = len(values) // WINDOWS
    return [sum(values[i * size : (i + 1) * size]) / size for i in range(WINDOWS)]


class Storm:
    """Requests by Zipf's law, a few at once, each pinned while it runs."""

    def __init__(self, count: int, requests: int, directory: Path) -> None:
        base = tiny_base()
        everything = Everything(base, count)
        nbytes = LENGTH * base.geometry.values_per_token() * 4
        self.names, self.trace = everything.names, zipf(requests, count, seed=1)
        budget = round(SHARE * count) * nbytes
        self.report = Report(count, requests, budget, count * nbytes)
        self.lru = ideal_lru(self.trace, budget // nbytes)
        disk = DiskTier(directory, self.report.total // 2, lambda p: open_verified(p, POLICY, NOW))
        self.woken = threading.Event()
        before = {id(t) for t in tensors()}
        self.store = PrefixStore(base, everything, Budgets(budget), disk=disk, woken=self.woken.set)
        self.not_ours = before
        self.waited: dict[int, float] = {}
        self.hit = [False] * requests
        self.milliseconds: list[tuple[int, float]] = []
        self.running: deque[tuple[int, Resident]] = deque()

    def run(self) -> Report:
        limit(self.report)
        waiting: list[int] = []
        next_, step = 0, 0
        while next_ < len(self.trace) or waiting or self.running:
            step += 1
            while next_ < len(self.trace) and len(waiting) + len(self.running) < AT_ONCE:
                waiting.append(next_)
                next_ += 1
            self.store.collect(time.monotonic())
            waiting = [request for request in waiting if not self.began(request, step)]
            while self.running and self.running[0][0] <= step:
                self.store.unpin(self.running.popleft()[1])
            self.sample(step)
            if waiting:  # a model would compute now, which leaves Python to the other threads
                self.woken.wait(STEP if self.running else 0.05)
                self.woken.clear()
        return self.finish()

    def began(self, request: int, step: int) -> bool:
        now = time.monotonic()
        resident = self.store.want(self.names[self.trace[request]], now)
        if resident is None:
            self.waited.setdefault(request, now)
            return False
        self.hit[request] = request not in self.waited
        if request in self.waited:
            self.milliseconds.append((request, 1000 * (now - self.waited.pop(request))))
        self.store.pin(resident)
        self.running.append((step + LASTS, resident))
        return True

    def sample(self, step: int) -> None:
        stats = self.store.stats()
        self.report.samples += 1
        self.report.over_budget += stats.device_bytes + stats.reserved_bytes > self.report.budget
        now = time.monotonic()
        self.report.moved_while_pinned += sum(
            self.store.want(resident.digest, now) is not resident for _, resident in self.running
        )
        if step % 500 == 0:
            self.store.check_integrity()
        if step % 2000 == 0:
            self.compare()

    def compare(self) -> None:
        """Accounted bytes against all tensors the garbage collector knows of."""
        while self.store.stats().loading:
            self.woken.wait(0.05)
            self.woken.clear()
            self.store.collect(time.monotonic())
        ours = [t.untyped_storage() for t in tensors() if id(t) not in self.not_ours]
        real = sum({s._cdata: s.nbytes() for s in ours}.values())
        accounted = self.store.stats().device_bytes
        self.report.off_by = max(self.report.off_by, abs(accounted - real) / real)
        self.report.off_samples += 1

    def finish(self) -> Report:
        self.compare()
        report, size = self.report, len(self.trace) // WINDOWS
        report.hits, report.lru = windows(self.hit), windows(self.lru)
        for window in range(WINDOWS):
            slow = [ms for request, ms in self.milliseconds if request // size == window]
            report.p99.append(quantiles(slow, n=100)[98])
        stats = self.store.stats()
        report.loads, report.failures = dict(stats.loads), sum(stats.failures.values())
        self.store.close()
        return report


def tensors() -> list[torch.Tensor]:
    return [thing for thing in gc.get_objects() if type(thing) is torch.Tensor]


def limit(report: Report) -> None:
    """Leave room for the budget and little more, and see that a cache of everything fails."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + report.budget + SPARE
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    try:
        bytearray(report.total)
    except MemoryError:
        report.limit_bites = True


def main(count: int, requests: int) -> None:
    torch.set_num_threads(1)
    threading.stack_size(256 << 10)
    with scratch() as directory:
        print(json.dumps(asdict(Storm(count, requests, directory).run())))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
