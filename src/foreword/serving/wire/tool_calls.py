"""Tool calls in the text of an answer, as models of the Hermes family write them (SmolLM2, Qwen):

    <tool_call>
    {"name": "weather", "arguments": {"city": "Bern"}}
    </tool_call>

A text is taken for calls only if everything that is marked as one can be read and names a tool that
was offered. Anything else is the text it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Set
from dataclasses import dataclass
from typing import Any

from foreword.artifact.canonical import refuse_constant, unique_keys

OPENING, CLOSING = "<tool_call>", "</tool_call>"
_BLOCK = re.compile(rf"{OPENING}(.*?)(?:{CLOSING}|\Z)", re.DOTALL)


@dataclass(frozen=True)
class Call:
    name: str
    arguments: str
    """A JSON object, as text."""


@dataclass(frozen=True)
class Spoken:
    """An answer that may have called tools; without calls, `text` is all of it."""

    text: str
    calls: tuple[Call, ...] = ()


def read_calls(text: str, offered: Set[str]) -> Spoken:
    """Take the calls out of a finished answer; a last one may lack its closing mark."""
    calls = [_call(block, offered) for block in _BLOCK.findall(text)]
    read = tuple(call for call in calls if call is not None)
    if not calls or len(read) < len(calls):
        return Spoken(text)
    return Spoken(_BLOCK.sub("", text).rstrip(), read)


class CallWatcher:
    """One streamed answer: text comes out until a call begins; from there on it waits for the end."""

    def __init__(self, offered: Set[str]) -> None:
        self._offered = offered
        self._held = ""

    def push(self, text: str) -> str:
        """What of the answer so far is certainly text and was not given out yet."""
        self._held += text
        start = _possible_start(self._held)
        shown, self._held = self._held[:start], self._held[start:]
        return shown

    def finish(self) -> Spoken:
        """What waited, at the end of the answer."""
        return read_calls(self._held, self._offered)


def _possible_start(text: str) -> int:
    """Where a call begins or, at the end of the text, could begin; blanks before it wait too."""
    start = text.find(OPENING)
    if start < 0:
        start = next(
            (len(text) - n for n in range(len(OPENING) - 1, 0, -1) if text.endswith(OPENING[:n])),
            len(text),
        )
    return len(text[:start].rstrip())


def _call(block: str, offered: Set[str]) -> Call | None:
    try:
        said: Any = json.loads(block, object_pairs_hook=unique_keys, parse_constant=refuse_constant)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict) or set(said) - {"name", "arguments"}:
        return None
    name, arguments = said.get("name"), said.get("arguments", {})
    if not isinstance(name, str) or name not in offered or not isinstance(arguments, dict):
        return None
    return Call(name, json.dumps(arguments, ensure_ascii=False))
