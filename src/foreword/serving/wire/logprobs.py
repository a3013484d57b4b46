"""Log-probabilities in the two shapes that OpenAI has for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from foreword.serving.contract import TokenLogprob

Spell = Callable[[int], bytes]
"""The bytes of one token; a token may be a part of a character."""
_LEAST = -9999.0
"""What OpenAI reports for a token that is out of the question; JSON has no infinity."""


def chat_logprobs(said: Sequence[TokenLogprob], spell: Spell) -> dict[str, Any]:
    """`choices[].logprobs` of a chat completion."""
    return {
        "content": [
            {
                **_entry(each.token, each.logprob, spell),
                "top_logprobs": [_entry(*other, spell) for other in each.alternatives],
            }
            for each in said
        ],
        "refusal": None,
    }


def completion_logprobs(
    said: Sequence[TokenLogprob], spell: Spell, offset: int = 0
) -> dict[str, Any]:
    """`choices[].logprobs` of a completion; `offset`: characters of the answer before these."""
    offsets, tokens = [], []
    for each in said:
        offsets.append(offset)
        tokens.append(_text(each.token, spell))
        offset += len(tokens[-1])
    return {
        "tokens": tokens,
        "token_logprobs": [_finite(each.logprob) for each in said],
        "top_logprobs": [
            {_text(token, spell): _finite(logprob) for token, logprob in each.alternatives}
            for each in said
        ],
        "text_offset": offsets,
    }


def _entry(token: int, logprob: float, spell: Spell) -> dict[str, Any]:
    return {
        "token": _text(token, spell),
        "bytes": list(spell(token)),
        "logprob": _finite(logprob),
    }


def _text(token: int, spell: Spell) -> str:
    return spell(token).decode(errors="replace")


def _finite(logprob: float) -> float:
    return max(logprob, _LEAST)
