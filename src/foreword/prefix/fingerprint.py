"""What a base model is: a digest over its weights, configuration and tokenizer.

The weights' part is a digest per tensor (name, dtype, shape, bytes), combined in the order of the
names, so it does not depend on how the tensors were sharded or where the files lie. The
configuration is read without the keys that say where it came from. Digests of weight files are
remembered by file identity (path, size, modification time, inode), so only the first load reads
them through.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from foreword.artifact import Digest
from foreword.config import foreword_home
from foreword.errors import CompatibilityError

_VOLATILE = {
    "_name_or_path",
    "_attn_implementation",
    "_attn_implementation_autoset",
    "transformers_version",
    "torch_dtype",
    "dtype",
    "use_cache",
    "quantization_config",
}
_HEADER_LIMIT = 100_000_000


class Tensor(NamedTuple):
    """One weight as bytes."""

    name: str
    dtype: str
    """As torch prints it."""
    shape: list[int]
    data: bytes


def fingerprint_files(files: Iterable[Path], config: PreTrainedConfig) -> Digest:
    """Fingerprint of safetensors shards and a configuration."""
    tensors: dict[str, str] = {}
    for path in sorted(files):
        tensors.update(_remembered(path))
    return _combine(tensors, config)


def fingerprint_tensors(tensors: Iterable[Tensor], config: PreTrainedConfig) -> Digest:
    """Fingerprint of a model in memory, for one that was never a file."""
    digests = {
        each.name: _tensor_digest(each.name, each.dtype, each.shape, each.data) for each in tensors
    }
    return _combine(digests, config)


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase | None) -> Digest | None:
    """Digest of the vocabulary, merges, special tokens and chat template; None without one."""
    if tokenizer is None:
        return None
    backend = getattr(tokenizer, "backend_tokenizer", None)
    vocabulary = backend.to_str() if backend is not None else sorted(tokenizer.get_vocab().items())
    return _json_digest(
        {
            "vocabulary": vocabulary,
            "special": {k: str(v) for k, v in tokenizer.special_tokens_map.items()},
            "chat_template": tokenizer.chat_template,
        }
    )


def _combine(tensors: Mapping[str, str], config: PreTrainedConfig) -> Digest:
    return _json_digest({"weights": dict(tensors), "config": _stable(config.to_dict())})


def _stable(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _stable(v) for k, v in value.items() if k not in _VOLATILE}
    if isinstance(value, list | tuple):
        return [_stable(v) for v in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _json_digest(value: Any) -> Digest:
    return Digest.of(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())


def _tensor_digest(name: str, dtype: str, shape: list[int], data: bytes | memoryview) -> str:
    head = json.dumps([name, dtype.removeprefix("torch."), shape]).encode()
    digest = hashlib.sha256(len(head).to_bytes(8, "little") + head)
    digest.update(data)
    return digest.hexdigest()


def _remembered(path: Path) -> dict[str, str]:
    stat = path.stat()
    identity = f"{path.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ino}"
    note = (
        foreword_home() / "fingerprints" / f"{hashlib.sha256(identity.encode()).hexdigest()}.json"
    )
    try:
        known: dict[str, str] = json.loads(note.read_text())
        return known
    except (OSError, ValueError):
        digests = _read_through(path)
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        draft = note.with_suffix(f".{os.getpid()}.tmp")
        draft.write_text(json.dumps(digests))
        draft.replace(note)
    except OSError:
        pass  # a cache that cannot be written costs time, not correctness
    return digests


def _read_through(path: Path) -> dict[str, str]:
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        memoryview(data) as view,
    ):
        size = int.from_bytes(view[:8], "little")
        if size > min(_HEADER_LIMIT, len(view) - 8):
            raise CompatibilityError(
                f"{path} is not a safetensors file, or it was cut short; fetch it again",
                code="base.weights",
            )
        header = json.loads(bytes(view[8 : 8 + size]))
        digests = {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            start, end = (8 + size + offset for offset in entry["data_offsets"])
            with view[start:end] as part:
                digests[name] = _tensor_digest(
                    name, _DTYPES.get(entry["dtype"], entry["dtype"]), entry["shape"], part
                )
        return digests


_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
