"""How a Python function becomes code for this processor: numba, and four words of LLVM it lacks.

Compiled once for each kind of processor and kept beside the source, or in the user's cache directory
where that cannot be written. Where neither can, every process compiles for itself, some seconds.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llvmlite.ir
import numba
import numpy as np
from numba import types
from numba.core import cgutils
from numba.core.errors import NumbaError
from numba.extending import intrinsic

ANY_ORDER = {"reassoc", "contract", "nsz", "arcp"}
"""What may be done to sums and products so that they become vectors. What is not finite stays so."""
AS_WRITTEN = {"contract"}
_COUNTERS = ("pieces", "workers")
_SOURCES = hashlib.sha256(
    b"".join(file.read_bytes() for file in sorted(Path(__file__).parent.glob("*.py")))
).hexdigest()[:16]


@dataclass(frozen=True)
class Kernel:
    """Code that any number of threads may enter with the same words, to share its work."""

    address: int
    words: type[ctypes.Structure]
    """What it is told: int64 numbers and addresses, then float32 numbers. Two counters come first."""
    alone: Callable[[ctypes.Structure], None]
    """Run it on this thread. It keeps the interpreter's lock: what is worth this takes microseconds."""
    code: Any
    """Code is freed with the object that holds it."""


def part(flags: set[str]) -> Callable[[Callable[..., Any]], Any]:
    """A function for kernels and other parts to call."""
    compiled: Callable[[Callable[..., Any]], Any] = numba.njit(error_model="numpy", fastmath=flags)
    return compiled


def kernel(integers: str, floats: str = "") -> Callable[[Callable[[Any], None]], Kernel]:
    """A kernel that is told these words, by name."""
    names = [*_COUNTERS, *integers.split()], floats.split()
    signature = types.void(types.CPointer(_record(*names)))

    class Words(ctypes.Structure):
        _fields_ = [(name, ctypes.c_int64) for name in names[0]] + [
            (name, ctypes.c_float) for name in names[1]
        ]

    def compiled(function: Callable[[Any], None]) -> Kernel:
        code = _code(signature, function)
        alone = ctypes.PYFUNCTYPE(None, ctypes.POINTER(Words))(code.address)
        return Kernel(code.address, Words, alone, code)

    return compiled


def _record(integers: Sequence[str], floats: Sequence[str]) -> Any:
    fields = [(name, np.int64) for name in integers] + [(name, np.float32) for name in floats]
    return numba.from_dtype(np.dtype(fields, align=True))


def _code(signature: Any, function: Callable[[Any], None]) -> Any:
    options = {"error_model": "numpy", "fastmath": ANY_ORDER}
    # numba looks for a change in the function's own file only, and much of a kernel is elsewhere.
    function.__qualname__ += f"_{_SOURCES}"
    try:
        return numba.cfunc(signature, cache=True, **options)(function)
    except NumbaError as error:
        raise ImportError(f"numba {numba.__version__} does not compile this: {error}") from error
    except RuntimeError:  # there is no directory to keep it in
        return numba.cfunc(signature, **options)(function)


@intrinsic
def floats_at(_: Any, address: Any) -> Any:
    """The float32 numbers at an address."""
    return _pointer(types.float32)


@intrinsic
def integers_at(_: Any, address: Any) -> Any:
    """The int64 numbers at an address."""
    return _pointer(types.int64)


def _pointer(kind: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(kind)(types.int64), generate


@intrinsic
def float_of(_: Any, bits: Any) -> Any:
    """The float32 that has these 32 bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], llvmlite.ir.FloatType())

    return types.float32(types.int32), generate


@intrinsic
def taken(_: Any, words: Any, counter: Any) -> Any:
    """Count one of the counters further, and what it was; no two workers get the same."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        number = llvmlite.ir.IntType(64)
        counters = builder.bitcast(arguments[0], number.as_pointer())
        place = builder.gep(counters, [arguments[1]])
        return builder.atomic_rmw("add", place, llvmlite.ir.Constant(number, 1), "monotonic")

    return types.int64(words, types.int64), generate


@intrinsic
def fetch_early(_: Any, address: Any) -> Any:
    """Ask for the 64 bytes at an address, which may lie anywhere, before they are needed."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte, number = llvmlite.ir.IntType(8).as_pointer(), llvmlite.ir.IntType(32)
        kind = llvmlite.ir.FunctionType(llvmlite.ir.VoidType(), [byte, number, number, number])
        prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        to_read, keep, data = (llvmlite.ir.Constant(number, n) for n in (0, 3, 1))
        builder.call(prefetch, [builder.inttoptr(arguments[0], byte), to_read, keep, data])
        return context.get_dummy_value()

    return types.none(types.int64), generate
