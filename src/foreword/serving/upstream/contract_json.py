"""The contract as JSON between a gateway and an engine: nothing is lost, nothing unknown is accepted.

Moments of `time.monotonic()` mean nothing to another process; they are sent as the seconds that lie
between them and now.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, Literal, cast

from foreword.artifact import Digest
from foreword.artifact.fields import Fields
from foreword.errors import ArtifactError
from foreword.serving.contract import (
    AdapterSet,
    Capacity,
    Chunk,
    Constraint,
    Finish,
    GenerateRequest,
    Health,
    ResidentPrefix,
    Sampling,
    TokenLogprob,
    Usage,
)
from foreword.serving.upstream.documents import (
    MALFORMED,
    MANY,
    Document,
    integer,
    integer_or_none,
    number,
    number_or_none,
)
from foreword.serving.upstream.errors_json import error_of

_DETAIL = 4000
"""Characters of what an engine says of itself."""


def request_to_json(request: GenerateRequest, now: float) -> dict[str, Any]:
    """`now`: of `time.monotonic()` here."""
    deadline, constraint = request.deadline, request.constraint
    return {
        **vars(request),
        "adapters": _adapters_to_json(request.adapters),
        "sampling": asdict(request.sampling),
        "constraint": None if constraint is None else asdict(constraint),
        "deadline": None if deadline is None else deadline - now,
    }


def request_from_bytes(data: bytes, now: float) -> GenerateRequest:
    """`now`: of `time.monotonic()` here.

    Raises:
        UsageError: it is not a request of this version (`engine.document`).
    """
    with Document(data) as read:
        deadline = number_or_none(read, "deadline")
        return GenerateRequest(
            id=read.text("id"),
            prompt=read.integers("prompt", MANY),
            tenant=read.text("tenant"),
            adapters=_adapters(read.object("adapters")),
            max_tokens=integer(read, "max_tokens"),
            sampling=_sampling(read.object("sampling")),
            stop=read.texts("stop", MANY),
            stop_ids=read.integers("stop_ids", MANY),
            ignore_eos=read.flag("ignore_eos"),
            n=integer(read, "n"),
            logprobs=integer_or_none(read, "logprobs"),
            constraint=_constraint(read),
            deadline=None if deadline is None else now + deadline,
            priority=integer(read, "priority"),
        )


def chunk_to_json(chunk: Chunk) -> dict[str, Any]:
    return {
        "id": chunk.id,
        "index": chunk.index,
        "text": chunk.text,
        "tokens": chunk.tokens,
        "adapters": _adapters_to_json(chunk.adapters),
        "logprobs": [_logprob_to_json(each) for each in chunk.logprobs],
        "finish": chunk.finish,
        "usage": chunk.usage and asdict(chunk.usage),
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
            adapters=_adapters(read.object("adapters")),
            logprobs=tuple(_logprob(each) for each in read.objects("logprobs", MANY)),
            finish=None if read.is_null("finish") else Finish(read.choice("finish", list(Finish))),
            usage=None if read.is_null("usage") else _usage(read.object("usage")),
        )


def capacity_to_json(capacity: Capacity) -> dict[str, Any]:
    return asdict(capacity)


def capacity_from_bytes(data: bytes) -> Capacity:
    """
    Raises:
        UsageError: as `chunk_from_bytes`.
    """
    with Document(data) as read:
        names = Capacity.__dataclass_fields__
        return Capacity(**{name: integer(read, name) for name in names})


def health_to_json(health: Health, now: float) -> dict[str, Any]:
    """`now`: of `time.monotonic()` here."""
    last = health.last_step
    return {
        "state": health.state,
        "idle": None if last is None else now - last,
        "detail": health.detail[:_DETAIL],
    }


def health_from_bytes(data: bytes, now: float) -> Health:
    """`now`: of `time.monotonic()` here.

    Raises:
        UsageError: as `chunk_from_bytes`.
    """
    with Document(data) as read:
        state = read.choice("state", ("ready", "draining", "wedged", "failed"))
        idle = number_or_none(read, "idle")
        return Health(
            cast("Literal['ready', 'draining', 'wedged', 'failed']", state),
            None if idle is None else now - idle,
            read.text("detail"),
        )


def residents_to_json(residents: Iterable[ResidentPrefix]) -> dict[str, Any]:
    return {"residents": [{**asdict(each), "digest": str(each.digest)} for each in residents]}


def residents_from_bytes(data: bytes) -> tuple[ResidentPrefix, ...]:
    """
    Raises:
        UsageError: as `chunk_from_bytes`.
    """
    with Document(data) as read:
        return tuple(_resident(each) for each in read.objects("residents", MANY))


def digests_to_json(digests: Iterable[Digest]) -> dict[str, Any]:
    return {"digests": [str(digest) for digest in digests]}


def digests_from_bytes(data: bytes) -> tuple[Digest, ...]:
    """
    Raises:
        UsageError: as `chunk_from_bytes`.
    """
    with Document(data) as read:
        return tuple(Digest.parse(text) for text in read.texts("digests", MANY))


def _adapters_to_json(adapters: AdapterSet) -> dict[str, Any]:
    return {"prefix": None if adapters.prefix is None else str(adapters.prefix)}


def _adapters(read: Fields) -> AdapterSet:
    prefix = None if read.is_null("prefix") else Digest.parse(read.text("prefix"))
    read.done()
    return AdapterSet(prefix)


def _sampling(read: Fields) -> Sampling:
    sampling = Sampling(
        temperature=number(read, "temperature"),
        top_p=number(read, "top_p"),
        top_k=integer(read, "top_k"),
        min_p=number(read, "min_p"),
        repetition_penalty=number(read, "repetition_penalty"),
        presence_penalty=number(read, "presence_penalty"),
        frequency_penalty=number(read, "frequency_penalty"),
        seed=integer_or_none(read, "seed"),
    )
    read.done()
    return sampling


def _constraint(parent: Fields) -> Constraint | None:
    if parent.is_null("constraint"):
        return None
    read = parent.object("constraint")
    kind = read.choice("kind", ("json_schema", "regex"))
    constraint = Constraint(cast("Literal['json_schema', 'regex']", kind), read.text("text"))
    read.done()
    return constraint


def _usage(read: Fields) -> Usage:
    usage = Usage(**{name: integer(read, name) for name in Usage.__dataclass_fields__})
    read.done()
    return usage


def _resident(read: Fields) -> ResidentPrefix:
    resident = ResidentPrefix(
        Digest.parse(read.text("digest")), integer(read, "nbytes"), integer(read, "pins")
    )
    read.done()
    return resident


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
