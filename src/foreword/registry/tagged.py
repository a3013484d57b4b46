"""One way to hash several fields, so that no two lists of fields give the same bytes."""

from __future__ import annotations

import hashlib


def tagged(tag: str, *fields: bytes) -> bytes:
    """sha256 (32 bytes) over a tag and fields, each behind its length as eight big-endian bytes.

    The tag says what is hashed, so that a hash made for one purpose never passes for another.
    """
    digest = hashlib.sha256()
    for field in (tag.encode(), *fields):
        digest.update(len(field).to_bytes(8, "big"))
        digest.update(field)
    return digest.digest()
