"""Keys of prompt beginnings: a hash chain over blocks of tokens.

    root   = sha256("R" framed(tenant) framed(base) framed(each field of the adapter set))
    link_1 = sha256("B" root   tokens[0:32])
    link_i = sha256("B" link_i-1 tokens[32 (i-1) : 32 i])         8 bytes a token, little-endian

So a link names a whole beginning and whose it is. Every part of the root carries its type and length:
("a", "bc") and ("ab", "c"), or nothing and an empty text, cannot be written alike.
"""

from __future__ import annotations

import struct
from dataclasses import fields
from hashlib import sha256

from foreword.artifact import Digest
from foreword.errors import EngineFailed
from foreword.serving.contract import AdapterSet

BLOCK = 32
"""Tokens in a block: what is shared is found to this precision."""

_TOKEN_BYTES = 8


def links(
    tenant: str, base: Digest, adapters: AdapterSet, prompt: tuple[int, ...]
) -> tuple[bytes, ...]:
    """The link of every whole block of a prompt; the rest behind the last one has none."""
    whole = len(prompt) // BLOCK * BLOCK
    packed = struct.pack(f"<{whole}q", *prompt[:whole])
    link, chain = root(tenant, base, adapters), []
    for start in range(0, len(packed), BLOCK * _TOKEN_BYTES):
        link = sha256(b"B" + link + packed[start : start + BLOCK * _TOKEN_BYTES]).digest()
        chain.append(link)
    return tuple(chain)


def root(tenant: str, base: Digest, adapters: AdapterSet) -> bytes:
    """Where the chains of one tenant, base and adapter set begin."""
    parts = [_framed(tenant), _framed(base)]
    for field in fields(adapters):  # also one that is added later
        parts += [_framed(field.name), _framed(getattr(adapters, field.name))]
    return sha256(b"R" + b"".join(parts)).digest()


def _framed(value: object) -> bytes:
    match value:
        case None:
            kind, data = b"N", b""
        case str():
            kind, data = b"S", value.encode("utf-8", "surrogatepass")
        case Digest():
            kind, data = b"D", bytes.fromhex(value.hex)
        case _:
            raise EngineFailed(
                f"an adapter set names a {type(value).__name__}, and nobody said how it becomes part "
                "of a cache key",
                code="serving.cache_key",
            )
    return kind + struct.pack("<Q", len(data)) + data
