"""Files of twelve formats that make a directory, the marker, as soon as somebody loads them carelessly."""

from __future__ import annotations

import io
import marshal
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Payload:
    """A file's bytes, and the careless loader that proves them live."""

    data: bytes
    careless: Callable[[bytes], Any]


class _Trap:
    """Its pickle makes the directory."""

    def __init__(self, marker: Path) -> None:
        self._marker = str(marker)

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (self._marker,)


def payloads(marker: Path) -> dict[str, Payload]:
    """By the extension of the file."""
    trap = _Trap(marker)
    pickled = Payload(pickle.dumps(trap), pickle.loads)
    saved = Payload(_written(torch.save, trap), _load_torch)
    array = np.array([trap], dtype=object)
    code = compile(f"import os; os.mkdir({str(marker)!r})", "payload", "exec")
    return {
        ".pkl": pickled, ".pickle": pickled, ".joblib": pickled,
        ".bin": saved, ".pt": saved, ".pth": saved, ".ckpt": saved,
        ".npy": Payload(_written(lambda a, file: np.save(file, a), array), _load_numpy),
        ".npz": Payload(_written(lambda a, file: np.savez(file, a=a), array), _load_numpy),
        ".gguf": Payload(b"GGUF\3\0\0\0" + pickled.data, _load_behind_magic),
        ".h5": Payload(b"\x89HDF\r\n\x1a\n" + pickled.data, _load_behind_magic),
        ".marshal": Payload(marshal.dumps(code), lambda data: exec(marshal.loads(data))),  # noqa: S102, S302
    }  # fmt: skip


def _written(save: Callable[[Any, Any], Any], value: Any) -> bytes:
    file = io.BytesIO()
    save(value, file)
    return file.getvalue()


def _load_torch(data: bytes) -> Any:
    return torch.load(io.BytesIO(data), weights_only=False)


def _load_numpy(data: bytes) -> Any:
    found = np.load(io.BytesIO(data), allow_pickle=True)
    return found["a"] if hasattr(found, "files") else found


def _load_behind_magic(data: bytes) -> Any:
    return pickle.loads(data[8:])  # noqa: S301
