"""One arena of malloc for all threads of a server.

glibc gives each thread that allocates an arena of its own. The threads that load prefixes hold a file for a
moment and then its tensors for hours, so every arena keeps holes that no other thread can use, and many
resident prefixes take much more memory than their tensors. In one arena the next load fills the holes
(`bench/gateway.py` measures what is left). Python's own lock keeps most threads from asking at the same time.
"""

from __future__ import annotations

import ctypes
import sys

_M_ARENA_MAX = -8
"""`mallopt(3)`."""


def share_one_arena() -> bool:
    """From now on no arena is added; False where malloc is not glibc's. To be called before threads start."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(_M_ARENA_MAX, 1) == 1
