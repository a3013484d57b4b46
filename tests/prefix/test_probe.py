"""A probe that cannot be run on a base is refused before a table is indexed with what it says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from foreword.artifact import Probe
from foreword.errors import CompatibilityError
from foreword.prefix.base_model import BaseModel
from foreword.prefix.probe import check_probes, make_probes
from tests.prefix.test_attach import random_prefix
from tests.tiny import tiny

PROBE = Probe((5, 6, 7), (0, 9), (0.25, -1.5))
TOO_LONG = (5,) * 61
"""With four virtual tokens one more than the tiny models' context."""


def refused(family: str, **changed: Any) -> bool:
    base = BaseModel.from_model(tiny(family))
    with pytest.raises(CompatibilityError) as caught:
        check_probes(base, random_prefix(base, 4), [replace(PROBE, **changed)])
    return caught.value.code == "base.probe"


@pytest.mark.parametrize("family", ["llama", "gpt2", "t5", "bert"])
def test_a_probe_for_another_vocabulary_is_refused(family: str) -> None:
    for token in (128, 2**53):
        assert refused(family, input_ids=(5, token))
        assert refused(family, logit_ids=(0, token))


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
def test_a_probe_over_the_context_is_refused(family: str) -> None:
    assert refused(family, input_ids=TOO_LONG)
    base = BaseModel.from_model(tiny(family))
    prefix = random_prefix(base, 4)
    check_probes(base, prefix, make_probes(base, prefix, [TOO_LONG[1:]]))


def test_a_base_without_a_limit_takes_a_probe_of_any_length() -> None:
    base = BaseModel.from_model(tiny("t5"))
    prefix = random_prefix(base, 4)
    check_probes(base, prefix, make_probes(base, prefix, [TOO_LONG]))
