"""Compiled kernels on torch's own threads.

torch runs its operations on the threads of GNU OpenMP. A second pool would fight that one for the
cores: threads spin for a while before they sleep. So kernels enter the same pool, by the function
that compilers call at the start of every parallel section.
"""

from __future__ import annotations

import ctypes

import torch

from foreword.serving.engine.model.native.compiling import Kernel

_SMALL = 1 << 13
"""Numbers to read below which waking a second thread costs more than it saves."""


class Team:
    """Raises `OSError` where torch does not run on GNU OpenMP."""

    def __init__(self) -> None:
        # torch has loaded it; the loader finds that copy by its name.
        library = ctypes.CDLL("libgomp.so.1")
        self._fork = library.GOMP_parallel
        self._fork.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        self._fork.restype = None

    def run(self, kernel: Kernel, numbers: int, **words: float) -> None:
        """Run a kernel that reads so many numbers."""
        told = kernel.words(**words)
        if (threads := self.threads(numbers)) == 1:
            kernel.alone(told)
        else:
            self._fork(kernel.address, ctypes.addressof(told), threads, 0)

    def threads(self, numbers: int) -> int:
        """How many threads take part, at most."""
        return 1 if numbers < _SMALL else torch.get_num_threads()
