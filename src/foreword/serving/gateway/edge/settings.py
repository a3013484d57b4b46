"""What a client may make large or slow, and how far."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]

KIB = 1024
MIB = 1024 * KIB


class EdgeSettings(BaseModel):
    """Sizes in bytes, times in seconds. A limit that is reached gives a refusal, never a cut."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    connections: Count = 2_000
    """Open at once; one more is answered 503 and closed."""
    header_seconds: Seconds = 10.0
    """From the first byte of a request to the end of its headers."""
    header_bytes: Annotated[int, Field(ge=1 * KIB, le=64 * KIB)] = 16 * KIB
    """Request line and headers together."""
    headers: Count = 100
    idle_seconds: Seconds = 5.0
    """A connection on which no request has begun."""
    write_buffer: Annotated[int, Field(ge=1 * KIB)] = 64 * KIB
    """Kept for a client that reads slowly; from there on the request waits for it."""
    stall_seconds: Seconds = 60.0
    """In which such a client has to take `write_buffer` bytes, or all that is left."""
    body_bytes: Annotated[int, Field(ge=1)] = 1 * MIB
    body_seconds: Seconds = 30.0
    """From the end of the headers to the end of the body."""
    bodies_bytes: Annotated[int, Field(ge=1)] = 128 * MIB
    """Bodies of all requests together, from their first byte to the end of the answer."""
    requests: Count = 1_024
    """Being worked on at once, streams included."""
    open: tuple[str, ...] = ("/livez",)
    """Paths that need no key, compared with the bytes of the request line."""
    named: tuple[str, ...] = ("/v1/models/",)
    """Paths that end in the name of a model, in which clients write `/`, `@` and `:` as `%2F`..."""
