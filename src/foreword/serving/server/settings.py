"""What `foreword serve` can be told: a file, `--set`, then its own options become one frozen value."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from foreword.errors import ConfigError
from foreword.serving.gateway.edge import EdgeSettings

Bytes = Annotated[int, Field(ge=0)]
Role = Literal["all", "engine", "gateway"]
Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class EmbeddedSettings(BaseModel):
    """The engine in this process. Sizes in bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    most_running: Annotated[int, Field(ge=1)] = 64
    """Answers decoded in one step."""
    kv_bytes: Annotated[int, Field(ge=1)] = 2 << 30
    prompt_cache_bytes: Bytes = 256 << 20
    prompt_tokens: Annotated[int, Field(ge=1)] = 256
    """Prompt tokens run beside the decoding rows in one step."""
    prefix_bytes: Bytes = 1 << 30
    """Prefixes in the device's memory."""
    host_bytes: Bytes = 0
    """Copies of prefixes in the host's memory, for a base on a GPU."""
    disk_bytes: Bytes = 4 << 30
    """Copies of prefixes on disk, in FOREWORD_HOME; 0 keeps none."""
    waiting: Annotated[int, Field(ge=1)] = 1_000
    """Requests that may wait for their turn."""
    waiting_per_tenant: Annotated[int, Field(ge=1)] = 250
    fetch_seconds: Seconds = 8.0
    """For one prefix from the registry, all of its blobs and their verification."""
    late_after: Seconds = 4.0
    """Without a finished step in that time, nothing more should be sent here (`/readyz`)."""
    wedged_after: Seconds = 25.0
    """Without a finished step in that time, the engine counts as dead, and its requests fail."""


class TelemetrySettings(BaseModel):
    """Where records go besides /metrics on the admin port."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    log: str = ""
    """A file for JSON lines, `-` for stderr; empty: none."""
    usage: bool = True
    """Count what each tenant used, in FOREWORD_HOME."""
    prices: Path | None = None
    """What tokens cost, as docs/telemetry.md says; without it usage has no costs."""
    otlp: str = ""
    """URL of an OpenTelemetry collector (OTLP over HTTP); empty: none."""
    trace_ratio: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of the requests whose traces are sent there."""


class LinkSettings(BaseModel):
    """How a gateway and an engine in two processes find and believe each other."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = ""
    """Address of the engine, for `--role gateway`."""
    secret_file: Path | None = None
    """What both know; FOREWORD_ENGINE_SECRET may hold it instead."""
    start_seconds: Annotated[float, Field(ge=0, le=86_400)] = 60.0
    """How long a gateway that starts waits for its engine."""


class PublicEdge(EdgeSettings):
    """The limits of the API's own port; what a balancer asks needs no key there."""

    open: tuple[str, ...] = ("/livez", "/readyz")


class ServeSettings(BaseModel):
    """Everything a server process is told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Role = "all"
    """`engine` and `gateway` are the two halves of `all`, in a process each."""
    base: str = "demo"
    host: str = "127.0.0.1"
    port: Port = 8000
    admin_host: str = "127.0.0.1"
    admin_port: Port = 8001
    registry: Path | None = None
    trust: Path | None = None
    access: Path | None = None
    open: bool = False
    """No keys: whoever reaches the port may use everything. Only on this machine."""
    grace: Annotated[float, Field(ge=0, le=3600)] = 30.0
    """Seconds that running requests get when the server is told to stop."""
    answer_seconds: Seconds = 600.0
    """After which an answer is given up."""
    edge: PublicEdge = PublicEdge()
    engine: LinkSettings = LinkSettings()
    embedded: EmbeddedSettings = EmbeddedSettings()
    telemetry: TelemetrySettings = TelemetrySettings()


def check(settings: ServeSettings) -> None:
    """Refuse what does not go together.

    Raises:
        ConfigError: names both sides (`serve.open`, `serve.role`).
    """
    _check_role(settings)
    if settings.open and not is_loopback(settings.host):
        raise ConfigError(
            f"--open lets everybody use everything, so it listens on this machine only, got --host "
            f"{settings.host[:80]!r}; make keys with `foreword access`, or leave --host out",
            code="serve.open",
        )


def _check_role(settings: ServeSettings) -> None:
    if (settings.role == "gateway") != bool(settings.engine.url):
        raise ConfigError(
            "a gateway needs the address of its engine, and only a gateway has one: give --role gateway "
            f"and --engine URL together, got --role {settings.role} and --engine "
            f"{settings.engine.url[:80]!r}",
            code="serve.role",
        )
    if settings.role == "engine" and settings.open:
        raise ConfigError(
            "--open is about the keys of a gateway; an engine answers gateways that know its secret and "
            "nobody else, so leave --open out",
            code="serve.role",
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
