"""Huge pages under what a step reads, on Linux.

A step reads all weights once, and the keys and values of every row. The processor keeps the addresses
of a few thousand pages at hand; a page of 4 KiB holds a few vectors, one of 2 MiB thousands. Linux
gives them where it is asked, if `/sys/kernel/mm/transparent_hugepage/enabled` says `madvise` or
`always`. Nothing depends on getting them but speed.
"""

from __future__ import annotations

import ctypes
import re
import sys
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

HUGE = 2 << 20
_MADV_HUGEPAGE, _MADV_COLLAPSE = 14, 25
_WORTH = 64 << 20
"""Bytes of weights below which they are left where they are."""
_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) rw.p 0+ 00:00 0\s*(\[heap\])?\n")
"""Private memory that belongs to no file."""


def zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """As `torch.zeros`, in huge pages as far as it fills them."""
    made = torch.empty(shape, dtype=dtype, device=device)
    if device.type == "cpu":
        # Before the first number is written: then the pages are huge from the start.
        _advise(made.data_ptr(), made.data_ptr() + made.nbytes, _MADV_HUGEPAGE)
    return made.zero_()


def settle(weights: int) -> threading.Thread | None:
    """Move this process's memory into huge pages, beside whatever it does, if the weights are many.

    Weights are loaded and packed by libraries that do not ask. A process that is about to use a base
    holds little else, so all of its memory is moved. That takes a core some seconds.
    """
    if weights < _WORTH or not sys.platform.startswith("linux"):
        return None
    thread = threading.Thread(target=_collapse, name="foreword-pages", daemon=True)
    thread.start()
    return thread


def _collapse() -> None:
    for first, last in _mappings():
        for place in range(first, last, 16 * HUGE):
            _advise(place, min(place + 16 * HUGE, last), _MADV_COLLAPSE)


def _mappings() -> Iterator[tuple[int, int]]:
    for found in _MAPPING.finditer(Path("/proc/self/maps").read_text()):
        first, last = int(found[1], 16), int(found[2], 16)
        if last - first >= 2 * HUGE:
            yield first, last


def _advise(first: int, last: int, advice: int) -> None:
    """Of the whole huge pages between two addresses."""
    first, last = -(-first // HUGE) * HUGE, last // HUGE * HUGE
    if last > first and (madvise := _madvise()) is not None:
        madvise(first, last - first, advice)


@cache
def _madvise() -> ctypes._NamedFuncPointer | None:
    if not sys.platform.startswith("linux"):
        return None
    found = ctypes.CDLL(None).madvise
    found.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return found
