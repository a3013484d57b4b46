"""Which base an engine runs, as its gateways ask for it.

A prompt is a row of token ids, and a prefix belongs to one base. So every request of a gateway names the
base that it was made for, and an engine that runs another one, such as after a restart, refuses it.
"""

from __future__ import annotations

from typing import Any

from foreword.artifact import BaseRef, Digest
from foreword.serving.upstream.documents import Document, integer

BASE_HEADER = "X-Foreword-Base"
OTHER_BASE = "engine.base"
"""Code of the refusal of a request that was made for another base."""


def base_to_json(base: BaseRef) -> dict[str, Any]:
    return {
        "id": base.id,
        "fingerprint": str(base.fingerprint),
        "tokenizer": base.tokenizer and str(base.tokenizer),
        "architecture": base.architecture,
        "context": base.context,
    }


def base_from_bytes(data: bytes) -> BaseRef:
    """
    Raises:
        UsageError: it tells of no base (`engine.document`).
    """
    with Document(data) as read:
        return BaseRef(
            id=read.text("id"),
            fingerprint=Digest.parse(read.text("fingerprint")),
            tokenizer=None if read.is_null("tokenizer") else Digest.parse(read.text("tokenizer")),
            architecture=read.text("architecture"),
            context=None if read.is_null("context") else integer(read, "context"),
        )
