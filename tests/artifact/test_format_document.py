"""docs/artifact-format.md says what the code does: its example is real, its codes are all there."""

from __future__ import annotations

import re
from pathlib import Path

from foreword.artifact import Manifest
from foreword.artifact import manifest as limits
from foreword.artifact.package import COMPANIONS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "artifact-format.md").read_text()
SOURCE = {p.name: p.read_text() for p in (ROOT / "src" / "foreword" / "artifact").glob("*.py")}
GROUPS = "artifact|json|manifest|digest|tensor|peft|storage"


def codes_in_the_source() -> set[str]:
    found = set()
    for name, text in SOURCE.items():
        found |= set(re.findall(rf'"((?:{GROUPS})\.[a-z_]+)"', text))
        if name == "tensors.py":
            found |= {f"tensor.{c}" for c in re.findall(r'_refuse\(\s*"([a-z_]+)"', text)}
    return {*found, "artifact.truncated", "artifact.trailing"} - {"manifest.json"}


def test_the_example_is_a_manifest() -> None:
    example = re.search(r"```json\n(.*?)\n```", TEXT, re.DOTALL)
    assert example
    manifest = Manifest.from_bytes(example[1].encode())
    assert manifest.to_bytes() == example[1].encode()


def test_every_code_is_documented_and_no_other() -> None:
    documented = set(re.findall(rf"`((?:{GROUPS})\.[a-z_]+)`", TEXT))
    names = {"tensors.sha256", "tensors.size", "manifest.json", *COMPANIONS}
    assert documented - names == codes_in_the_source()


def test_the_limits_are_documented() -> None:
    numbers = (
        limits.MAX_LENGTH, limits.MAX_LAYERS, limits.MAX_HEADS, limits.MAX_DIM,
        limits.MAX_PROBES, limits.MAX_PROBE_TOKENS,
    )  # fmt: skip
    for number in numbers:
        assert f"{number:,}" in TEXT
    for name in COMPANIONS:
        assert f"`{name}`" in TEXT
