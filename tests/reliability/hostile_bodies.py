"""Bodies of published attacks on vLLM's API, as we would be sent them, and bodies at our own limits."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
Body = tuple[str, str, bytes]
_LOOP = "{% for a in range(1000000000) %}{{ a }}{% endfor %}"
_HI: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]


def _chat(**fields: Any) -> bytes:
    return json.dumps({"model": "base", "messages": _HI, "max_tokens": 1, **fields}).encode()


def _text(**fields: Any) -> bytes:
    return json.dumps({"model": "base", "prompt": "hi", "max_tokens": 1, **fields}).encode()


_IMAGE = [{"type": "text", "text": "<|image_pad|>" * 8},
          {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]  # fmt: skip
BODIES: tuple[Body, ...] = (
    ("CVE-2026-34756: answers without number", TEXT, _text(n=16_384)),
    ("CVE-2026-73559: a list of very many prompts", TEXT, _text(prompt=["a"] * 20_000)),
    ("CVE-2026-73559: a list of no prompt", TEXT, _text(prompt=[[]])),
    ("CVE-2026-114051: at least more than at most", TEXT, _text(min_tokens=2)),
    ("CVE-2026-105756: a salt of strange letters", CHAT, _chat(cache_salt="\x00\u202e")),
    ("CVE-2026-105757: a salt that is none", CHAT, _chat(cache_salt={"a": 1})),
    ("PYSEC-2026-4350: log-probabilities of no token", TEXT, _text(logprob_token_ids=[-1, 2**40])),
    ("GHSA-69j4-grxj-j64p: a template of the client's", CHAT, _chat(chat_template=_LOOP)),
    ("PYSEC-2026-2013: the same through its arguments", CHAT,
     _chat(chat_template_kwargs={"chat_template": _LOOP, "tokenize": True})),
    ("CVE-2026-115911: documents for a template", CHAT, _chat(documents=[{"text": _LOOP}])),
    ("PYSEC-2026-4349: a template that calls", CHAT, _chat(
        chat_template="{{ ''.__class__.__mro__[1].__subclasses__() }}", add_generation_prompt=False)),
    ("CVE-2025-29770: a grammar engine of the client's choice", CHAT,
     _chat(guided_regex="a", guided_decoding_backend="outlines")),
    ("CVE-2026-44222: control tokens of pictures", CHAT,
     _chat(messages=[{"role": "user", "content": _IMAGE}])),
    ("CVE-2025-62164, CVE-2026-56340, CVE-2026-73557: a tensor", TEXT,
     _text(prompt_embeds=base64.b64encode(b"\x80\x02}q\x00." * 200).decode())),
)  # fmt: skip


def limits(context: int, word: str) -> Iterator[tuple[str, str, bytes, bytes]]:
    """Each limit with the most that is allowed, and one more. `word` is one token."""
    said = [{"role": "user", "content": word}]
    for name, most, more in (
        ("n", {"n": 8}, {"n": 9}),
        ("prompts", {"prompt": [word] * 16}, {"prompt": [word] * 17}),
        ("stop", {"stop": ["x"] * 4}, {"stop": ["x"] * 5}),
        ("the length of a stop", {"stop": "x" * 64}, {"stop": "x" * 65}),
        ("logprobs", {"logprobs": 20}, {"logprobs": 21}),
        ("max_tokens", {"max_tokens": context - 1}, {"max_tokens": context}),
    ):
        yield name, TEXT, _text(**{"prompt": word} | most), _text(**{"prompt": word} | more)
    for name, depth in (("depth", 32),):
        yield name, CHAT, _deep(said, depth), _deep(said, depth + 1)
    yield "body", CHAT, _large(said, 1 << 20), _large(said, (1 << 20) + 1)
    many = {"messages": said, "top_logprobs": 20, "logprobs": True}
    yield "top_logprobs", CHAT, _chat(**many), _chat(**many | {"top_logprobs": 21})


def _deep(messages: Any, depth: int) -> bytes:
    """The body itself is a level, and so is the list in `metadata`."""
    return _chat(messages=messages, metadata="?").replace(
        b'"?"', b"[" * (depth - 1) + b"]" * (depth - 1)
    )


def _large(messages: Any, size: int) -> bytes:
    body = _chat(messages=messages, metadata="")
    return _chat(messages=messages, metadata="x" * (size - len(body)))
