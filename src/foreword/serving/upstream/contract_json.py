"""The contract as JSON between a gateway and an engine: nothing is lost, nothing unknown is accepted.

Moments of `time.monotonic()` mean nothing to another process; they are sent as the seconds that lie
between them and now.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, Literal, cast

from foreword.artifact import Digest
from foreword.artifact.fields import Fields
from foreword.serving.contract import (
    Capacity,
    Constraint,
    GenerateRequest,
    Health,
    ResidentPrefix,
    Sampling,
)
from foreword.serving.upstream.chunk_json import adapters_of, adapters_to_json
from foreword.serving.upstream.documents import (
    MANY,
    Document,
    integer,
    integer_or_none,
    number,
    number_or_none,
)

_DETAIL = 4000
"""Characters of what an engine says of itself."""


def request_to_json(request: GenerateRequest, now: float) -> dict[str, Any]:
    """`now`: of `time.monotonic()` here."""
    deadline, constraint = request.deadline, request.constraint
    return {
        **vars(request),
        "adapters": adapters_to_json(request.adapters),
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
            adapters=adapters_of(read.object("adapters")),
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


def _resident(read: Fields) -> ResidentPrefix:
    resident = ResidentPrefix(
        Digest.parse(read.text("digest")), integer(read, "nbytes"), integer(read, "pins")
    )
    read.done()
    return resident
