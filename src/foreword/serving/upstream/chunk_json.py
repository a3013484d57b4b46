"""The chunks of an answer as JSON between a gateway and an engine."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any, Literal, cast

from foreword.artifact import Digest
from foreword.artifact.fields import Fields
from foreword.errors import ArtifactError
from foreword.serving.contract import (
    AdapterSet,
    Beginning,
    Chunk,
    Finish,
    Phase,
    TokenLogprob,
    Usage,
)  # fmt: skip
from foreword.serving.upstream.documents import MALFORMED, MANY, Document, integer, number
from foreword.serving.upstream.errors_json import error_of

_PHASES = 32
"""Steps before the first token."""


def chunk_to_json(chunk: Chunk) -> dict[str, Any]:
    return {
        "id": chunk.id,
        "index": chunk.index,
        "text": chunk.text,
        "tokens": chunk.tokens,
        "adapters": adapters_to_json(chunk.adapters),
        "logprobs": [_logprob_to_json(each) for each in chunk.logprobs],
        "finish": chunk.finish,
        "usage": chunk.usage and asdict(chunk.usage),
        "beginning": chunk.beginning and asdict(chunk.beginning),
    }


def chunk_from_bytes(data: bytes) -> Chunk:
    """The chunk of a line.

    Raises:
        UsageError: it is not a chunk of this version (`engine.document`).
        ForewordError: the line tells of this error instead.
    """
    with Document(data) as read:
        if read.has("error"):
            raise error_of(read.object("error"))
        return Chunk(
            id=read.text("id"),
            index=integer(read, "index"),
            text=read.text("text"),
            tokens=read.integers("tokens", MANY),
            adapters=adapters_of(read.object("adapters")),
            logprobs=tuple(_logprob(each) for each in read.objects("logprobs", MANY)),
            finish=None if read.is_null("finish") else Finish(read.choice("finish", list(Finish))),
            usage=None if read.is_null("usage") else _usage(read.object("usage")),
            beginning=_beginning(read),
        )


def adapters_to_json(adapters: AdapterSet) -> dict[str, Any]:
    """Also of a request."""
    return {"prefix": None if adapters.prefix is None else str(adapters.prefix)}


def adapters_of(read: Fields) -> AdapterSet:
    """The adapters in a document."""
    prefix = None if read.is_null("prefix") else Digest.parse(read.text("prefix"))
    read.done()
    return AdapterSet(prefix)


def _usage(read: Fields) -> Usage:
    usage = Usage(**{name: integer(read, name) for name in Usage.__dataclass_fields__})
    read.done()
    return usage


def _beginning(parent: Fields) -> Beginning | None:
    if parent.is_null("beginning"):
        return None
    read = parent.object("beginning")
    tier = read.choice("tier", ("", "device", "host", "disk", "fetch"))
    beginning = Beginning(
        cast("Literal['', 'device', 'host', 'disk', 'fetch']", tier),
        number(read, "admitted"),
        tuple(_phase(each) for each in read.objects("phases", _PHASES)),
    )
    read.done()
    return beginning


def _phase(read: Fields) -> Phase:
    phase = Phase(read.text("name"), number(read, "start"), number(read, "end"))
    read.done()
    return phase


def _logprob_to_json(said: TokenLogprob) -> dict[str, Any]:
    return {
        "token": said.token,
        "logprob": _finite(said.logprob),
        "others": [token for token, _ in said.alternatives],
        "logprobs": [_finite(logprob) for _, logprob in said.alternatives],
    }


def _finite(logprob: float) -> float | str:
    """JSON has no infinity, and a token may be impossible."""
    return "-inf" if logprob == -math.inf else logprob


def _logprob(read: Fields) -> TokenLogprob:
    said = read.rest()
    numbers = [said.pop("logprob", None), *_list(said.pop("logprobs", None))]
    numbers = [-math.inf if number == "-inf" else number for number in numbers]
    token, others = said.pop("token", None), _list(said.pop("others", None))
    fits = (
        all(type(number) is float for number in numbers)
        and all(type(each) is int for each in (token, *others))
        and len(numbers) == len(others) + 1
        and not said
    )
    if not fits:
        raise ArtifactError("expected a token's log-probabilities", code=MALFORMED)
    return TokenLogprob(token, numbers[0], tuple(zip(others, numbers[1:], strict=True)))


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else [None]
