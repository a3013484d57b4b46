"""AT REST: the signed file everyone agrees on. Reading one needs no torch."""

from foreword.artifact.digest import Digest
from foreword.artifact.geometry import Geometry, LayerGeometry, Site
from foreword.artifact.manifest import (
    BaseRef,
    Dtype,
    Manifest,
    Probe,
    PromptFormat,
    TensorFile,
)
from foreword.artifact.package import Artifact, open_artifact, pack, write_artifact

__all__ = [
    "Artifact",
    "BaseRef",
    "Digest",
    "Dtype",
    "Geometry",
    "LayerGeometry",
    "Manifest",
    "Probe",
    "PromptFormat",
    "Site",
    "TensorFile",
    "open_artifact",
    "pack",
    "write_artifact",
]
