"""The two ends of a side of `bench/serving.py`: a process that lives long and answers line by line.

Everything is loaded once and stays loaded, so the sides can take turns on the same work; a side that
is not asked sleeps on its standard input. A request is one JSON object on a line,
`{"do": "generate", "prompts": [[1, 2]], "tokens": 64, "adapters": 0}`, and so is its answer. This file
needs nothing but the standard library, since a peer may live in an environment of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Work:
    """Greedy, `tokens` new tokens for each prompt, whatever the model says about ending."""

    prompts: Sequence[Sequence[int]]
    tokens: int
    adapters: int = 0
    """Request i holds adapter i modulo this; 0: none."""
    length: int = 16
    """Virtual tokens of each prefix; sides with other adapters ignore it."""
    registered: int = 0
    """So many prefixes are resident while this runs; 0: those that are used. Only ours has them."""

    @property
    def size(self) -> int:
        return len(self.prompts)

    def adapter(self, index: int) -> int | None:
        """Which adapter the request with this index holds."""
        return index % self.adapters if self.adapters else None


@dataclass(frozen=True)
class Taken:
    """Seconds from the moment all requests were handed over."""

    seconds: float
    firsts: Sequence[float]
    """When each request had its first token."""
    answers: Sequence[Sequence[int]]
    step: float | None = None
    """Median seconds of a step in which every request got a token, where the side can tell."""


class Stopwatch:
    """Starts when it is made; notes when each request had its first token, and the tokens."""

    def __init__(self, requests: int) -> None:
        self._firsts: list[float | None] = [None] * requests
        self._answers: list[list[int]] = [[] for _ in range(requests)]
        self._began = time.perf_counter()

    def got(self, index: int, tokens: Sequence[int]) -> None:
        if tokens and self._firsts[index] is None:
            self._firsts[index] = self._elapsed()
        self._answers[index] += tokens

    def first(self, index: int, moment: float | None = None) -> None:
        """The request's first token is there now, or was at this moment of `perf_counter`."""
        if self._firsts[index] is None:
            self._firsts[index] = self._elapsed() if moment is None else moment - self._began

    def stop(self, step: float | None = None) -> Taken:
        seconds = self._elapsed()
        firsts = [seconds if first is None else first for first in self._firsts]
        return Taken(seconds, firsts, self._answers, step)

    def _elapsed(self) -> float:
        return time.perf_counter() - self._began


class Side:
    """The benchmark's end: starts the process, waits until it has loaded, and asks."""

    def __init__(
        self, name: str, command: Sequence[str], threads: int, log: Path, **environment: str
    ) -> None:
        self.name = name
        self._log = log
        kept = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
                env={**kept, "OMP_NUM_THREADS": str(threads), **environment},
            )  # fmt: skip
        self._answer("starting")

    def generate(self, work: Work) -> Taken:
        """Raises:
        RuntimeError: the side ended, or gave another number of tokens than it was asked for.
        """
        taken = Taken(**self.do("generate", **asdict(work)))
        counts = {len(answer) for answer in taken.answers}
        if len(taken.answers) != work.size or counts != {work.tokens}:
            raise RuntimeError(
                f"{self.name} was asked for {work.size} answers of {work.tokens} tokens and gave "
                f"{len(taken.answers)} of {sorted(counts)}"
            )
        return taken

    def do(self, what: str, **arguments: object) -> Any:
        if self._process.stdin is None:
            raise RuntimeError(f"{self.name} has no pipes")
        self._process.stdin.write(json.dumps({"do": what, **arguments}) + "\n")
        self._process.stdin.flush()
        return self._answer(what)

    def resident_mb(self) -> float:
        """Memory the process holds now, as the kernel counts it (`VmRSS`)."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def cpu_seconds(self) -> float:
        """Processor time used so far: shows that a side which is not asked does sleep."""
        stat = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / TICKS

    def close(self) -> None:
        """Ends the process; it is killed if it does not go by itself within a minute."""
        with suppress(BrokenPipeError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _answer(self, what: str) -> Any:
        if self._process.stdout is None:
            raise RuntimeError(f"{self.name} has no pipes")
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            said = self._log.read_text(errors="replace").splitlines()[-20:]
            raise RuntimeError(
                "\n".join([f"{self.name} ended while {what}; its last words:", *said])
            )
        return json.loads(line)


def generating(generate: Callable[[Work], Taken]) -> Callable[..., object]:
    """The operation `generate` of a side, from and to what JSON can say."""
    return lambda **arguments: asdict(generate(Work(**arguments)))


def serve(load: Callable[[], Mapping[str, Callable[..., object]]]) -> None:
    """The side's end: load, say so, then answer each line until there are no more."""
    answers = _own_output()
    operations = load()
    _say(answers, "ready")
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        _say(answers, operations[request.pop("do")](**request))


def _own_output() -> IO[str]:
    """Standard output for answers alone: what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def _say(answers: IO[str], answer: object) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()
