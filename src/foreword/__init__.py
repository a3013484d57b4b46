"""Foreword: one frozen language model, many products on it.

    base = foreword.load_base("demo")
    result = foreword.train(recipe, base, dataset, out)
    artifact = foreword.open_artifact(out)
    foreword.generate(base, requests)

Heavy parts are imported when they are first used; `import foreword` needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foreword.artifact import Artifact, PromptFormat, open_artifact
    from foreword.errors import ForewordError
    from foreword.prefix.base_model import BaseModel, load_base
    from foreword.prefix.loading import LoadedPrefix, load_prefix
    from foreword.registry.registry import Registry
    from foreword.serving.generation import Completion, GenerationRequest, generate
    from foreword.signing.policy import TrustPolicy
    from foreword.signing.verify import VerifiedArtifact, verify
    from foreword.tuning.data import Dataset, load_dataset
    from foreword.tuning.recipe import Recipe
    from foreword.tuning.train import TrainedPrefix, train

__version__ = "0.1.0"

_HOMES = {
    "Artifact": "foreword.artifact",
    "BaseModel": "foreword.prefix.base_model",
    "Completion": "foreword.serving.generation",
    "Dataset": "foreword.tuning.data",
    "ForewordError": "foreword.errors",
    "GenerationRequest": "foreword.serving.generation",
    "LoadedPrefix": "foreword.prefix.loading",
    "PromptFormat": "foreword.artifact",
    "Recipe": "foreword.tuning.recipe",
    "Registry": "foreword.registry.registry",
    "TrainedPrefix": "foreword.tuning.train",
    "TrustPolicy": "foreword.signing.policy",
    "VerifiedArtifact": "foreword.signing.verify",
    "generate": "foreword.serving.generation",
    "load_base": "foreword.prefix.base_model",
    "load_dataset": "foreword.tuning.data",
    "load_prefix": "foreword.prefix.loading",
    "open_artifact": "foreword.artifact",
    "train": "foreword.tuning.train",
    "verify": "foreword.signing.verify",
}

__all__ = [
    "Artifact",
    "BaseModel",
    "Completion",
    "Dataset",
    "ForewordError",
    "GenerationRequest",
    "LoadedPrefix",
    "PromptFormat",
    "Recipe",
    "Registry",
    "TrainedPrefix",
    "TrustPolicy",
    "VerifiedArtifact",
    "generate",
    "load_base",
    "load_dataset",
    "load_prefix",
    "open_artifact",
    "train",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'foreword' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
