"""What a request may not ask for, field by field."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from foreword.errors import PromptTooLong, UsageError
from foreword.serving.contract import GenerateRequest, Sampling
from foreword.serving.engine.checks import check_request, check_sampling

GOOD = GenerateRequest("r", (1, 2, 3), max_tokens=10)


def check(request: GenerateRequest, **kwargs: Any) -> None:
    check_request(request, **{"vocab": 100, "context": 64, "prefix_length": 16, **kwargs})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1), ("temperature", math.nan), ("temperature", math.inf),
        ("temperature", "1"), ("temperature", True),
        ("top_p", 0.0), ("top_p", 1.01), ("top_p", math.nan),
        ("top_k", -1), ("top_k", 1.5), ("top_k", True),
        ("min_p", -0.1), ("min_p", 1.1), ("min_p", math.nan),
        ("repetition_penalty", 0.0), ("repetition_penalty", -1.0), ("repetition_penalty", math.nan),
        ("repetition_penalty", math.inf),
        ("presence_penalty", 2.1), ("presence_penalty", math.nan),
        ("frequency_penalty", -2.1), ("frequency_penalty", math.nan),
        ("seed", 2**63), ("seed", 1.0), ("seed", False),
    ],
)  # fmt: skip
def test_sampling_out_of_range_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"^{field}: expected .*, got ") as refused:
        check_sampling(replace(Sampling(), **{field: value}))
    assert refused.value.code == "request.sampling"


def test_the_edges_of_every_range_are_allowed() -> None:
    check_sampling(Sampling())
    check_sampling(Sampling(100, 1.0, 0, 1.0, 100, 2, 2, 2**63 - 1))
    check_sampling(Sampling(0, 1e-9, 10**9, 0, 1e-9, -2, -2, -(2**63)))
    check(replace(GOOD, n=64, logprobs=20, priority=-100, stop=("x" * 1024,) * 16, stop_ids=(99,)))
    check(replace(GOOD, max_tokens=64 - 16 - 3))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"sampling": Sampling(top_p=2)}, "request.sampling"),
        ({"prompt": ()}, "request.prompt"),
        ({"prompt": (1, 100)}, "request.prompt"),
        ({"prompt": (1, -1)}, "request.prompt"),
        ({"n": 0}, "request.n"),
        ({"n": 65}, "request.n"),
        ({"max_tokens": 0}, "request.max_tokens"),
        ({"logprobs": 21}, "request.logprobs"),
        ({"logprobs": -1}, "request.logprobs"),
        ({"stop": ("",)}, "request.stop"),
        ({"stop": ("a",) * 17}, "request.stop"),
        ({"stop": ("a" * 1025,)}, "request.stop"),
        ({"stop_ids": (100,)}, "request.stop"),
        ({"priority": 101}, "request.priority"),
        ({"deadline": math.nan}, "request.deadline"),
        ({"max_tokens": 46}, "prompt.too_long"),
    ],
)
def test_a_request_that_cannot_be_answered_is_refused(change: dict[str, Any], code: str) -> None:
    with pytest.raises(UsageError) as refused:
        check(replace(GOOD, **change))
    assert refused.value.code == code


def test_the_refusal_names_all_three_lengths() -> None:
    with pytest.raises(PromptTooLong, match="3 prompt tokens, 16 virtual tokens and 46 new ones"):
        check(replace(GOOD, max_tokens=46))


def test_an_encoder_decoder_needs_room_for_the_longer_side_only() -> None:
    check(replace(GOOD, max_tokens=48), kind="seq2seq")
    with pytest.raises(PromptTooLong):
        check(replace(GOOD, max_tokens=49), kind="seq2seq")
    check(replace(GOOD, max_tokens=10**6), context=None)


def test_a_value_from_outside_cannot_steer_a_terminal() -> None:
    with pytest.raises(UsageError) as refused:
        check(replace(GOOD, stop=("\x1b[2J" * 1000,)))
    assert "\x1b" not in str(refused.value)
    assert len(str(refused.value)) < 200
