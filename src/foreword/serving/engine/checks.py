"""Refuse a request that cannot be answered as it is asked, before anything is done for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NoReturn

from foreword.errors import PromptTooLong, UsageError
from foreword.prefix.base_model import Kind
from foreword.serving.contract import GenerateRequest, Sampling

MAX_ANSWERS = 64
MAX_LOGPROBS = 20
MAX_STOPS = 16
MAX_STOP_LENGTH = 1024
"""Characters of one stop string."""
MAX_PRIORITY = 100

_Allowed = tuple[str, Callable[[Any], bool]]


def _number(least: float, most: float, *, above: bool = False) -> _Allowed:
    """A number from `least` to `most`; with `above`, `least` itself is too little. NaN is none."""
    said = f"a number above {least:g} and at most {most:g}" if above else (
        f"a number from {least:g} to {most:g}"
    )  # fmt: skip

    def fits(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return least <= value <= most and not (above and value == least)

    return said, fits


def _integer(least: int, most: int | None = None) -> _Allowed:
    said = f"an integer from {least} to {most}" if most is not None else (
        f"an integer of at least {least}"
    )  # fmt: skip

    def fits(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int):
            return False
        return least <= value and (most is None or value <= most)

    return said, fits


_SAMPLING: dict[str, _Allowed] = {
    "temperature": _number(0, 100),
    "top_p": _number(0, 1, above=True),
    "top_k": _integer(0),
    "min_p": _number(0, 1),
    "repetition_penalty": _number(0, 100, above=True),
    "presence_penalty": _number(-2, 2),
    "frequency_penalty": _number(-2, 2),
    "seed": _integer(-(2**63), 2**63 - 1),
}


def check_sampling(sampling: Sampling) -> None:
    """Refuse a value outside its range.

    Raises:
        UsageError: `request.sampling`; the message names the field.
    """
    for name, allowed in _SAMPLING.items():
        value = getattr(sampling, name)
        if not (name == "seed" and value is None):
            _require(name, value, allowed, "request.sampling")


def check_request(
    request: GenerateRequest,
    *,
    vocab: int,
    context: int | None,
    prefix_length: int,
    kind: Kind = "causal",
) -> None:
    """Refuse a request that `vocab` tokens and `context` positions (None: no limit) cannot answer.

    Raises:
        UsageError: a field is out of range; the code is `request.` and what the field is about.
        PromptTooLong: prompt, prefix and new tokens do not fit the model's context.
    """
    check_sampling(request.sampling)
    _require("n", request.n, _integer(1, MAX_ANSWERS), "request.n")
    _require("max_tokens", request.max_tokens, _integer(1), "request.max_tokens")
    if request.logprobs is not None:
        _require("logprobs", request.logprobs, _integer(0, MAX_LOGPROBS), "request.logprobs")
    limits = _integer(-MAX_PRIORITY, MAX_PRIORITY)
    _require("priority", request.priority, limits, "request.priority")
    if request.deadline is not None and not math.isfinite(request.deadline):
        _refuse("deadline", "a finite time or none", request.deadline, "request.deadline")
    _check_prompt(request.prompt, vocab)
    _check_stops(request, vocab)
    _check_room(request, context, prefix_length, kind)


def _check_prompt(prompt: tuple[int, ...], vocab: int) -> None:
    if not prompt:
        _refuse("prompt", "at least one token", prompt, "request.prompt")
    for extreme in (min(prompt), max(prompt)):
        if not 0 <= extreme < vocab:
            _refuse("prompt", f"token ids from 0 to {vocab - 1}", extreme, "request.prompt")


def _check_stops(request: GenerateRequest, vocab: int) -> None:
    if len(request.stop) > MAX_STOPS:
        _refuse("stop", f"at most {MAX_STOPS} texts", len(request.stop), "request.stop")
    for text in request.stop:
        if not 1 <= len(text) <= MAX_STOP_LENGTH:
            _refuse("stop", f"texts of 1 to {MAX_STOP_LENGTH} characters", text, "request.stop")
    for token in request.stop_ids:
        _require("stop_ids", token, _integer(0, vocab - 1), "request.stop")


def _check_room(
    request: GenerateRequest, context: int | None, prefix_length: int, kind: Kind
) -> None:
    read, new = len(request.prompt), request.max_tokens
    # An encoder-decoder reads and writes on separate tapes; the longer one has to fit.
    needed = prefix_length + (read + new if kind == "causal" else max(read, new))
    if context is not None and needed > context:
        raise PromptTooLong(
            f"{read} prompt tokens, {prefix_length} virtual tokens and {new} new ones do not fit "
            f"the context of {context}; shorten the prompt or lower max_tokens"
        )


def _require(name: str, value: object, allowed: _Allowed, code: str) -> None:
    expected, fits = allowed
    if not fits(value):
        _refuse(name, expected, value, code)


def _refuse(name: str, expected: str, value: object, code: str) -> NoReturn:
    # repr: the value comes from outside and must not steer a terminal
    raise UsageError(f"{name}: expected {expected}, got {repr(value)[:80]}", code=code)
