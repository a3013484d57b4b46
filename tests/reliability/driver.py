"""The process that is interrupted: it does one operation and says at once how that came out.

It waits for a word before it begins, so that whoever traces it sees nothing but the operation.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from foreword.errors import ForewordError
from foreword.registry.layout import Layout
from tests.reliability.world import perform

_PR_SET_PTRACER, _ANYBODY = 0x59616D61, ctypes.c_ulong(-1)

DONE: dict[str, object] = {"done": True}


@dataclass(frozen=True)
class Job:
    """What the process is to do."""

    operation: str
    layout: Layout
    environment: dict[str, str] = field(default_factory=dict)


def serve(go: Connection, tell: Connection, job: Job) -> None:
    """Wait, do the job, tell that it is done or what was raised, and end without ceremony."""
    sys.dont_write_bytecode = True
    os.environ.update(job.environment)
    ctypes.CDLL(None).prctl(_PR_SET_PTRACER, _ANYBODY, 0, 0, 0)  # may be refused, then root traces
    tell.send_bytes(b"ready")
    go.recv_bytes()
    try:
        perform(job.operation, job.layout, lambda: _say(tell, DONE))
    except ForewordError as e:
        _say(tell, {"refused": e.code, "type": type(e).__name__, "text": str(e)})
    except BaseException as e:
        _say(tell, {"broken": f"{type(e).__name__}: {e}"})
    os._exit(0)


def _say(tell: Connection, what: dict[str, object]) -> None:
    tell.send_bytes(json.dumps(what).encode())
