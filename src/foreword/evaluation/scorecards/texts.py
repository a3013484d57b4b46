"""Figures and texts as a scorecard shows them."""

from __future__ import annotations

import re

_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
"""Control characters, zero-width ones, those that turn the direction of what follows, lone surrogates."""


def figure(value: float, *, signed: bool = False) -> str:
    """Three decimals below 100, none above."""
    form = ".3f" if abs(value) < 100 else ",.0f"
    return format(value, f"+{form}" if signed else form)


def harmless(text: str) -> str:
    """A text in which nothing is unseen: what could hide or reorder text is shown by its number."""
    return _UNSEEN.sub(lambda found: f"[U+{ord(found[0]):04X}]", text.replace("\r\n", "\n"))
