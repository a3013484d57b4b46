"""Stop and resume: all that a run needs to go on as if it had never stopped.

One safetensors file, replaced atomically: parameters, the best ones so far, the optimizer's moments
and the random state; step, losses and what the run belongs to are in its metadata. Pickle has no part in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from foreword.artifact.disk import sync_directory, write_synced
from foreword.errors import StorageError, UsageError

FILE = "checkpoint.safetensors"


@dataclass(frozen=True)
class RunIdentity:
    """What a checkpoint belongs to; a run resumes only if all of it is unchanged."""

    settings: str
    data: str
    base: str


@dataclass
class RunState:
    """Everything that changes from step to step."""

    step: int
    """Steps done."""
    best_step: int
    best_loss: float
    """Held-out loss of the best parameters; infinite before the first evaluation."""
    stale: int
    """Evaluations since the best one."""
    seconds: float
    """Time spent so far, over all sessions."""
    tokens: int
    parameters: dict[str, Tensor]
    best: dict[str, Tensor]
    optimizer: dict[str, Any]
    random: Tensor


def save_checkpoint(directory: Path, identity: RunIdentity, state: RunState) -> None:
    """Write the checkpoint; the one before it stays until this one is on disk."""
    tensors = {f"parameters/{k}": v for k, v in state.parameters.items()}
    tensors |= {f"best/{k}": v for k, v in state.best.items()}
    tensors |= {"random": state.random}
    for index, moments in state.optimizer["state"].items():
        tensors |= {f"optimizer/{index}/{k}": torch.as_tensor(v) for k, v in moments.items()}
    numbers = {
        "step": state.step,
        "best_step": state.best_step,
        "best_loss": state.best_loss,
        "stale": state.stale,
        "seconds": state.seconds,
        "tokens": state.tokens,
        "groups": state.optimizer["param_groups"],
        "identity": asdict(identity),
    }
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    _replace(directory / FILE, save(plain, metadata={"run": json.dumps(numbers)}))


def load_checkpoint(directory: Path, identity: RunIdentity) -> RunState | None:
    """The last checkpoint of this very run, or None if there is none.

    Raises:
        UsageError: the directory holds a run with other settings, data or base.
        StorageError: the file cannot be read.
    """
    path = directory / FILE
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            numbers = json.loads(file.metadata()["run"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as e:
        raise StorageError(
            f"the checkpoint {path} cannot be read ({e}); delete {directory} to start over",
            code="checkpoint.unreadable",
        ) from e
    _check_identity(numbers["identity"], identity, directory)
    return RunState(
        step=numbers["step"],
        best_step=numbers["best_step"],
        best_loss=numbers["best_loss"],
        stale=numbers["stale"],
        seconds=numbers["seconds"],
        tokens=numbers["tokens"],
        parameters=_under(tensors, "parameters/"),
        best=_under(tensors, "best/"),
        optimizer={"state": _moments(tensors), "param_groups": numbers["groups"]},
        random=tensors["random"],
    )


def _check_identity(found: Mapping[str, str], identity: RunIdentity, directory: Path) -> None:
    wanted = asdict(identity)
    changed = [name for name in wanted if found.get(name) != wanted[name]]
    if changed:
        raise UsageError(
            f"{directory} holds an unfinished run with other {' and '.join(changed)}; run it again "
            "unchanged to finish it, choose another --out, or delete that directory",
            code="train.other_run",
        )


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _moments(tensors: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _under(tensors, "optimizer/").items():
        index, key = name.split("/", 1)
        state.setdefault(int(index), {})[key] = tensor
    return state


def _replace(path: Path, data: bytes) -> None:
    draft = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_synced(draft, data)
        draft.replace(path)
        sync_directory(path.parent)
    except OSError as e:
        draft.unlink(missing_ok=True)
        raise StorageError(
            f"the checkpoint could not be written to {path} ({e.strerror or e}); the one before it "
            "is intact; free some space and run the same command again",
            code="storage.checkpoint",
        ) from e
