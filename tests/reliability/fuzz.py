"""Feeding mutants to every reader of bytes from outside, and judging what each one does with them.

A chunk of inputs follows from its name and number alone, so that a fault can be had again:
`run_chunk(target, number, count)`.
"""

from __future__ import annotations

import faulthandler
import resource
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests.reliability.report import LONG
from tests.reliability.targets import TARGETS, Parts, Target

SLOW = 0.1 if LONG else 0.2
"""Seconds one input may take. The sample may share its core with another process of tests."""
LONGEST_MESSAGE = 1_000
"""Characters."""
_KEPT = 10
_ADDRESS_SPACE = 4 << 30
_HANGING = 600


@dataclass(frozen=True)
class Verdict:
    """What a reader did with one input."""

    code: str
    """The error's code, or `accepted`."""
    seconds: float
    wild: str | None = None
    """What it raised if it was no typed refusal, or one whose message cannot be shown as it is."""
    alone: str | None = None
    """What another reader says if it does not agree with what was accepted."""


@dataclass
class Outcome:
    """What came of a number of inputs."""

    codes: Counter[str] = field(default_factory=Counter)
    wild: list[str] = field(default_factory=list)
    alone: list[str] = field(default_factory=list)
    slow: list[Parts] = field(default_factory=list)
    """Inputs that seemed to take too long; on a shared machine they may not have."""
    slowest: float = 0.0
    """Seconds of the slowest of all others."""
    growth: int = 0
    """Bytes of the process's peak memory, its start included, above what it had before the first
    input."""

    def add(self, other: Outcome) -> None:
        self.codes += other.codes
        self.wild += other.wild
        self.alone += other.alone
        self.slow += other.slow
        self.slowest = max(self.slowest, other.slowest)
        self.growth = max(self.growth, other.growth)

    def behind(self, *groups: str) -> float:
        """The share of the inputs that got behind the checks whose codes begin like this."""
        behind = sum(n for code, n in self.codes.items() if not code.startswith(groups))
        return behind / self.codes.total()


def run_chunk(name: str, number: int, count: int) -> Outcome:
    """Make and feed `count` inputs to one target, in a process that does nothing else."""
    faulthandler.dump_traceback_later(_HANGING, exit=True)  # the parent then sees a broken pool
    target, rng, outcome = TARGETS[name], Random(f"{name} {number}"), Outcome()
    early = Random(name)
    for _ in range(50):  # libraries load late; what they take is no growth
        feed(target, target.make(early))
    at_rest = _memory("VmRSS")
    for place in range(count):
        parts = target.make(rng)
        verdict = feed(target, parts)
        outcome.codes[verdict.code] += 1
        where = f"{name}, input {place} of chunk {number}"
        if verdict.wild and len(outcome.wild) < _KEPT:
            outcome.wild.append(f"{where}: {verdict.wild}")
        if verdict.alone and len(outcome.alone) < _KEPT:
            outcome.alone.append(f"{where}: {verdict.alone}")
        if verdict.seconds > SLOW:
            outcome.slow.append(parts)
        else:
            outcome.slowest = max(outcome.slowest, verdict.seconds)
    faulthandler.cancel_dump_traceback_later()
    outcome.growth = _memory("VmHWM") - at_rest
    return outcome


def feed(target: Target, parts: Parts, clock: Callable[[], float] = time.perf_counter) -> Verdict:
    """Let a reader read one input, and ask another reader about what it accepts."""
    began = clock()
    try:
        value = target.read(*parts)
    except target.refusal as e:
        seconds, said = clock() - began, str(e)
        plain = said.isprintable() and len(said) <= LONGEST_MESSAGE
        return Verdict(e.code, seconds, wild=None if plain else f"says {said[:200]!a}")
    except Exception as e:
        seconds = clock() - began
        return Verdict(type(e).__name__, seconds, wild=f"{type(e).__name__} {str(e)[:200]!a}")
    seconds = clock() - began
    return Verdict("accepted", seconds, alone=_second_opinion(target, value, parts))


def alone(name: str, parts: Parts) -> float:
    """Seconds one input takes by itself: processor time, which for bytes in memory is all there is,
    and the best of five, so that what else the machine does hardly counts."""
    return min(feed(TARGETS[name], parts, time.thread_time).seconds for _ in range(5))


def _second_opinion(target: Target, value: Any, parts: Parts) -> str | None:
    try:
        return None if target.agrees(value, *parts) else "another reader reads something else"
    except Exception as e:
        return f"another reader refuses it: {type(e).__name__} {str(e)[:200]!a}"


def limit_memory() -> None:
    """For a process that feeds: what runs away meets MemoryError, not the machine's other users."""
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))


def _memory(what: str) -> int:
    """Bytes of this process: `VmRSS` in memory now, `VmHWM` at most so far. The usual `ru_maxrss`
    would not do: a process inherits that of the one that started it."""
    status = Path("/proc/self/status").read_text()
    return int(status[status.index(f"{what}:") :].split()[1]) * 1024
