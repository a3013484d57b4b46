"""A server of one's own, for as long as it is needed: `foreword serve --open` on this machine."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from foreword.client.address import Address, address
from foreword.errors import EngineFailed, ForewordError

_RUN = (sys.executable, "-c", "from foreword.cli.main import main; main()")
_SERVING = re.compile(r"^serving .* at (http://\S+)/v1$")
_ERROR = re.compile(r"^error\[([^\]]+)\]: (.*)$")
_END = 10.0
"""Seconds in which it ends when it is told to."""
_KEPT = 20


@contextmanager
def own_server(options: Sequence[str], say: Callable[[str], None]) -> Iterator[Address]:
    """Start one on free ports and end it afterwards. `say` is given what it says until it serves.

    Raises:
        ForewordError: it does not start; the error is its own.
    """
    command = [*_RUN, "serve", "--open", "--port", "0", "--admin-port", "0", "--grace", "0"]
    # In a group of its own: Ctrl-C at the terminal ends an answer and not the server.
    with subprocess.Popen(
        [*command, *options], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True, errors="replace", process_group=0,
    ) as process:  # fmt: skip
        try:
            yield address(_wait(process, say))
        finally:
            _end(process)


def _wait(process: subprocess.Popen[str], say: Callable[[str], None]) -> str:
    """Its address, as soon as it serves."""
    heard: deque[str] = deque(maxlen=_KEPT)
    for line in process.stderr or ():
        heard.append(line.rstrip("\n"))
        if not _ERROR.match(heard[-1]):
            say(heard[-1])
        if found := _SERVING.match(heard[-1]):
            # What it says from now on is read, so that it never waits for a reader.
            threading.Thread(target=lambda: deque(process.stderr or (), 0), daemon=True).start()
            return found[1]
    raise _failure(process.wait(), heard)


def _failure(exit_code: int, heard: Sequence[str]) -> ForewordError:
    """Its own error, as if it had been raised here."""
    kinds = {kind.exit_code: kind for kind in ForewordError.__subclasses__()}
    for line in reversed(heard):
        if found := _ERROR.match(line):
            return kinds.get(exit_code, ForewordError)(found[2], code=found[1])
    return EngineFailed(f"the server ended with {exit_code} before it served anything")


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(_END)
    except subprocess.TimeoutExpired:
        process.kill()
