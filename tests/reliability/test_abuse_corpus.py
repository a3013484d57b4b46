"""R02: each file of the abuse corpus is refused with its own stable code, soon, and in little memory."""

from __future__ import annotations

import time
import tracemalloc

import pytest

from foreword.artifact.package import from_bytes
from foreword.errors import ArtifactError
from tests.reliability.abuse import CORPUS, GOOD, Abuse
from tests.reliability.report import Goals

pytestmark = pytest.mark.reliability("R02")

MILLISECONDS, ROOM = 10.0, 8 << 20


def test_every_file_is_refused_with_its_code(goals: Goals) -> None:
    assert len(CORPUS) == 64
    from_bytes(GOOD.manifest_bytes, GOOD.tensor_bytes)  # and the file they are all made of is not
    other, slow, large = {}, {}, {}
    for name, (builder, code) in CORPUS.items():
        abuse = builder()
        if (found := code_of(abuse)) != code:
            other[name] = f"{name}: expected {code}, got {found}"
        slow[name] = milliseconds(abuse)
        large[name] = room(abuse)
    slowest, largest = max(slow, key=slow.__getitem__), max(large, key=large.__getitem__)
    goals.goal("64 of 64 are refused with their code",
               value="; ".join(other.values()) or "64", passed=not other, count=len(CORPUS))  # fmt: skip
    goals.goal(f"each in at most 10 ms (value in ms, of {slowest!r})",
               value=slow[slowest], passed=slow[slowest] <= MILLISECONDS, count=len(CORPUS))  # fmt: skip
    goals.goal(f"each in at most 8 MiB (value in MiB, of {largest!r})",
               value=large[largest] / (1 << 20), passed=large[largest] <= ROOM,
               count=len(CORPUS))  # fmt: skip


def code_of(abuse: Abuse) -> str:
    try:
        abuse.read(*abuse.parts)
    except ArtifactError as e:
        return e.code
    except Exception as e:
        return type(e).__name__
    return "accepted"


def milliseconds(abuse: Abuse) -> float:
    """Processor time, the best of three: what it costs, not what else the machine does."""
    times = []
    for _ in range(3):
        began = time.thread_time()
        code_of(abuse)
        times.append(time.thread_time() - began)
    return min(times) * 1e3


def room(abuse: Abuse) -> int:
    """Most bytes that were allocated at once while reading."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        code_of(abuse)
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
