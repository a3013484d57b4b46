"""Requests within every limit of size that are meant to cost as much as they can."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
LARGE = 1_000_000
"""Bytes of a body that is just allowed."""
READ = 98_000
"""Characters of a prompt that is just not refused unread, in a context of 8,192 tokens."""
_CONTROL = "<|im_start|>"
_WORST = {
    "one letter": "a",
    "blanks": " ",
    "lines": "\n",
    "digits": "0123456789",
    "a family of emoji": "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "marks on letters": "a\u0301\u0316",
    "letters of every script": "".join(map(chr, range(0x400, 0x3000, 37))),
    "control tokens": _CONTROL,
    "halves of control tokens": _CONTROL[:-1],
    "letters that mark control tokens": "".join(map(chr, range(0x13000, 0x130FF))) + _CONTROL,
    "base64": base64.b64encode(random.Random(20).randbytes(3 * LARGE // 4)).decode(),
    "quotes": '"\\',
}


@dataclass(frozen=True)
class Bomb:
    name: str
    path: str
    body: bytes


def bombs() -> Iterator[Bomb]:
    for name, text in _WORST.items():
        for size in (LARGE, READ):
            body = _body(messages=[_user(_fill(text, size))])
            yield Bomb(f"{size:,} {name}", CHAT, body)
        for size in (LARGE // 16, 2 * READ // 16):
            prompts = [_fill(text, size)] * 16
            yield Bomb(f"16 prompts of {size:,} {name}", TEXT, _body(prompt=prompts))
    for name, fields in _shapes().items():
        yield Bomb(name, TEXT if "prompt" in fields else CHAT, _body(**fields))


def _shapes() -> dict[str, dict[str, Any]]:
    """By what they are made of many, large or deep."""
    hi = [_user("hi")]
    call = {"id": "c" * 128, "type": "function", "function": {"name": "f", "arguments": "{}"}}
    asked = {"role": "assistant", "tool_calls": [call] * 64}
    tool = {"type": "function", "function": {"name": "f", "description": "d " * 3_500}}
    deep: Any = "x"
    for _ in range(29):
        deep = [deep]
    return {
        "2,048 messages with control tokens": {"messages": [_user(_CONTROL)] * 2_048},
        "2,048 large messages": {"messages": [_user("0123 " * 95)] * 2_048},
        "2,048 empty messages": {"messages": [_user("")] * 2_048},
        "8,000 parts of a text": {"messages": [_user(_parts(256))] * 31},
        "4,000 calls of tools": {"messages": [asked] * 60},
        "arguments that are JSON themselves": {"messages": [_argued("[" * 400_000)]},
        "128 tools": {"messages": hi, "tools": [tool] * 128},
        "160,000 token ids": {"prompt": [7] * 159_000},
        "16 lists of token ids": {"prompt": [[7] * 9_000] * 16},
        "four long stop texts": {"messages": hi, "stop": ["wor" * 21] * 4, "max_tokens": 100},
        "a long model": {"messages": hi, "model": "acme/" + "s" * (LARGE - 200)},
        "a long user": {"messages": hi, "user": "u" * LARGE},
        "a long role": {"messages": [{"role": "r" * LARGE, "content": "hi"}]},
        "a long field": {"messages": hi, "temperatur" + "e" * LARGE: 1},
        "100,000 fields": {"messages": hi, **{f"f{i:x}": 0 for i in range(100_000)}},
        "100,000 biases": {"messages": hi, "logit_bias": {str(i): 0 for i in range(80_000)}},
        "100,000 fields in a message": {"messages": [{f"f{i:x}": 0 for i in range(100_000)}]},
        "150,000 values that change nothing": {"messages": hi, "metadata": [0] * 150_000},
        "8,000 objects": {"messages": hi, "metadata": [{}] * 8_000},
        "every level": {"messages": hi, "metadata": [deep] * 260},
        "long numbers": {"messages": hi, "metadata": [10**31] * 28_000},
        "a large schema": {"messages": hi, "response_format": _schema(60_000)},
        "a schema that is too large": {"messages": hi, "response_format": _schema(LARGE)},
        "a large expression": {"messages": hi, "guided_regex": "(a|b)*c" * 9_000},
        "64 inputs": {"messages": hi, "foreword": {"inputs": {f"i{i}": "x" * 14_000 for i in range(64)}}},
    }  # fmt: skip


def _body(**fields: Any) -> bytes:
    asked = {"model": "base", "max_tokens": 1, **fields}
    return json.dumps(asked, ensure_ascii=False, separators=(",", ":")).encode()


def _fill(text: str, size: int) -> str:
    """So many letters, or if it is `LARGE`, as many as fit so many bytes of JSON."""
    wide = len(json.dumps(text, ensure_ascii=False).encode()) - 2 if size == LARGE else len(text)
    return text[: size * len(text) // wide] if wide > size else text * (size // wide)


def _user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def _parts(count: int) -> list[dict[str, str]]:
    return [{"type": "text", "text": "x" * 80}] * count


def _argued(arguments: str) -> dict[str, Any]:
    function = {"name": "f", "arguments": arguments}
    return {
        "role": "assistant",
        "tool_calls": [{"id": "c", "type": "function", "function": function}],
    }


def _schema(size: int) -> dict[str, Any]:
    properties = {f"p{i}": {"type": "integer"} for i in range(size // 27)}
    schema = {"type": "object", "properties": properties}
    return {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}
