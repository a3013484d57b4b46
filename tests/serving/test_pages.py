"""Huge pages are asked for where a step reads, and nothing depends on getting them."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from foreword.serving.engine.model import pages

MODE = Path("/sys/kernel/mm/transparent_hugepage/enabled")
CPU = torch.device("cpu")
given = pytest.mark.skipif(
    not MODE.exists() or "[never]" in MODE.read_text(), reason="this kernel gives no huge pages"
)


def huge(tensor: Tensor) -> int:
    """Bytes in huge pages of the mappings that a tensor lies in."""
    first, last, found, inside = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes, 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if head := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(head[1], 16) < last and int(head[2], 16) > first
        elif inside and line.startswith("AnonHugePages:"):
            found += int(line.split()[1]) << 10
    return found


@pytest.mark.parametrize("numbers", [1, 1000, 3 << 20])
def test_zeros_are_zeros(numbers: int) -> None:
    made = pages.zeros((numbers, 2), torch.float32, CPU)
    assert made.shape == (numbers, 2)
    assert made.dtype == torch.float32
    assert not made.any()


@given
def test_large_rows_lie_in_huge_pages() -> None:
    made = pages.zeros((64 << 20,), torch.float32, CPU)
    assert huge(made) > made.nbytes / 2


@given
def test_what_lies_in_small_pages_is_moved_and_stays_what_it_is() -> None:
    made = torch.arange(32 << 20, dtype=torch.float32)
    before = huge(made)
    moving = pages.settle(1 << 30)
    assert moving is not None
    moving.join(60)
    assert huge(made) > before + made.nbytes / 2
    assert torch.equal(made, torch.arange(32 << 20, dtype=torch.float32))


def test_small_models_and_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pages.settle(1 << 20) is None
    monkeypatch.setattr(sys, "platform", "darwin")
    assert pages.settle(1 << 30) is None
