"""Threads of a server share one arena of malloc."""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
from pathlib import Path

import pytest

LOOK = """
import ctypes, sys, threading
from foreword.serving.server.arena import share_one_arena

libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
shared = sys.argv[1] == "shared" and share_one_arena()
held = threading.Barrier(9)

def hold():
    kept = bytearray(50_000)
    held.wait()
    held.wait()

threads = [threading.Thread(target=hold) for _ in range(8)]
for thread in threads:
    thread.start()
held.wait()
file = ctypes.c_void_p(libc.fopen(sys.argv[2].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
held.wait()
print(shared)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="malloc is not glibc's")
@pytest.mark.parametrize(("way", "arenas"), [("shared", {1}), ("as it is", set(range(2, 64)))])
def test_threads_share_one_arena(way: str, arenas: set[int], tmp_path: Path) -> None:
    told = tmp_path / "malloc.xml"
    said = subprocess.run(
        [sys.executable, "-c", LOOK, way, str(told)], capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == str(way == "shared")
    assert len(re.findall("<heap nr=", told.read_text())) in arenas
