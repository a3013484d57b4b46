"""Running an operation under strace, and stopping or failing it at one chosen system call.

strace counts calls from the moment it attaches, and it attaches when the operation is about to begin;
so `write 7` is the seventh write of the operation. A process that is killed "at" a call never makes it.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from tests.reliability.calls import Call, read_calls
from tests.reliability.driver import DONE, Job, serve
from tests.reliability.forked import FORKED

_CALLS = (
    "openat", "write", "writev", "pwrite64", "pwritev", "fsync", "fdatasync", "sync_file_range",
    "rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat", "unlink",
    "unlinkat", "mkdir", "mkdirat", "rmdir", "truncate", "ftruncate", "fallocate",
)  # fmt: skip
"""Everything that changes a file, its name, or what of them is on disk."""
_TALK = ("sendto", "recvfrom")
"""And how a client of PostgreSQL asks for a change and learns of it."""
_WATCHED = ("close", "lseek", "dup")
"""Needed to follow a trace, not worth stopping at."""
_PATIENCE_SECONDS = 60


@dataclass(frozen=True)
class Injection:
    """What happens at one call, `place` counting those of its name."""

    call: str
    place: int
    what: str
    """`signal=KILL`, `error=EIO`."""

    def __str__(self) -> str:
        return f"{self.what} at {self.call} {self.place}"


@dataclass(frozen=True)
class Run:
    """What came of one job."""

    calls: tuple[Call, ...]
    told: tuple[dict[str, Any], ...]
    exit_code: int
    """-9 after a kill."""

    @property
    def acknowledged(self) -> bool:
        return DONE in self.told

    @property
    def was_killed(self) -> bool:
        return self.exit_code == -9

    @property
    def was_injected(self) -> bool:
        return self.was_killed or any(call.injected for call in self.calls)

    @property
    def refusal(self) -> str | None:
        """The code of a typed error."""
        return next((told["refused"] for told in self.told if "refused" in told), None)

    @property
    def broken(self) -> str | None:
        """Any other exception, or an end that nobody asked for."""
        for told in self.told:
            if "broken" in told:
                return str(told["broken"])
        if self.exit_code not in (0, -9):
            return f"it ended with {self.exit_code}"
        return None if self.told or self.was_killed else "it said nothing"


class Harness:
    """Runs jobs one after another, each in a fresh process, traced or not."""

    def __init__(self, strace: str) -> None:
        self._strace = strace

    def run(
        self,
        job: Job,
        injection: Injection | None = None,
        while_stopped: Callable[[], None] | None = None,
    ) -> Run:
        """Do a job, with at most one call of it stopped or failed.

        `while_stopped` is for an injected `signal=STOP`: it is done while the process stands still.
        """
        hear, tell = FORKED.Pipe(duplex=False)
        wait, go = FORKED.Pipe(duplex=False)
        process = FORKED.Process(target=serve, args=(wait, tell, job))
        process.start()
        tell.close()
        wait.close()
        try:
            with hear, go, tempfile.NamedTemporaryFile() as trace:
                _hear(hear)
                tracer = self._attach(process.pid, trace.name, injection)
                go.send_bytes(b"go")
                if while_stopped and _wait_for_stop(Path(trace.name), tracer):
                    while_stopped()
                    os.kill(process.pid, signal.SIGCONT)
                told = tuple(json.loads(said) for said in _hear_all(hear))
                process.join(_PATIENCE_SECONDS)
                tracer.wait(_PATIENCE_SECONDS)
                calls = read_calls(Path(trace.name).read_text())
        finally:
            process.kill()  # only if it hangs
            process.join()
        return Run(calls, told, process.exitcode)

    def _attach(self, pid: int, trace: str, injection: Injection | None) -> subprocess.Popen[str]:
        names = ",".join(f"?{name}" for name in (*_CALLS, *_TALK, *_WATCHED))
        command = [self._strace, "-f", "-xx", "-y", "-s", str(1 << 20), "-o", trace,
                   "-p", str(pid), "-e", f"trace={names}"]  # fmt: skip
        if injection:
            command += ["-e", f"inject={injection.call}:{injection.what}:when={injection.place}"]
        tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        said = tracer.stderr.readline() if tracer.stderr else ""
        if "attached" not in said:
            tracer.kill()
            tracer.wait()
            if "not permitted" in said:
                pytest.skip(f"strace may not trace here: {said.strip()}")
            raise RuntimeError(f"strace did not attach: {said.strip()}")
        return tracer


def points(calls: Sequence[Call]) -> Iterator[Call]:
    """The calls at which an operation may be stopped: those that write, and those that talk."""
    return (call for call in calls if call.name not in _WATCHED and call.changes)


def beyond(calls: Sequence[Call]) -> Iterator[Call]:
    """For every name of the points a call that the operation does not make any more."""
    last = {call.name: call for call in calls if call.name not in _WATCHED}
    for call in last.values():
        yield Call(call.name, call.place + 1, (), None)


def find_strace() -> str:
    """Where strace is; it is installed if we may, else the test is skipped."""
    found = shutil.which("strace")
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        _install("strace")
        found = shutil.which("strace")
    if found is None:
        pytest.skip("needs the Debian package strace")
    return found


def _install(package: str) -> None:
    with Path(tempfile.gettempdir(), "foreword-tests-apt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update"], ["install", "-y", "--no-install-recommends", package]):
            subprocess.run(
                ["apt-get", "-q", *command], env=environment, stdout=subprocess.DEVNULL, check=False
            )


def _wait_for_stop(trace: Path, tracer: subprocess.Popen[str]) -> bool:
    """False if the process came to its end without."""
    end = time.monotonic() + _PATIENCE_SECONDS
    while tracer.poll() is None:
        if "stopped by SIGSTOP" in trace.read_text():
            return True
        if time.monotonic() > end:
            raise TimeoutError(f"the process did not stop within {_PATIENCE_SECONDS} s")
        time.sleep(0.01)
    return False


def _hear(hear: Connection) -> bytes:
    if not hear.poll(_PATIENCE_SECONDS):
        raise TimeoutError(f"nothing was heard for {_PATIENCE_SECONDS} s")
    return hear.recv_bytes()


def _hear_all(hear: Connection) -> Iterator[bytes]:
    try:
        while True:
            yield _hear(hear)
    except EOFError:
        return
