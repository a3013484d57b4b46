"""Precision: what `auto` means, and that bfloat16 is only used where it is fast."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from foreword.errors import ConfigError
from foreword.tuning import memory
from foreword.tuning.recipe import TrainSettings
from tests.tiny import tiny_base


def test_auto_is_float32_on_a_cpu() -> None:
    assert isinstance(memory.precision(tiny_base(), TrainSettings()), nullcontext)


def test_bfloat16_is_refused_where_it_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "has_fast_bfloat16", lambda device: False)
    with pytest.raises(ConfigError, match="many times slower"):
        memory.precision(tiny_base(), TrainSettings(precision="bfloat16"))


def test_bfloat16_is_used_where_it_is_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "has_fast_bfloat16", lambda device: True)
    with memory.precision(tiny_base(), TrainSettings(precision="bfloat16")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
