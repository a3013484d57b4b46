"""`foreword serve`: the OpenAI-compatible server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foreword.cli.output import errors
from foreword.cli.registry.options import Directory, Trust

if TYPE_CHECKING:
    from foreword.serving.server.settings import ServeSettings


def serve(
    base: Annotated[str | None, typer.Option(help="Base model, by default demo.")] = None,
    role: Annotated[
        str | None, typer.Option(help="What this process is: all (default), gateway or engine.")
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="URL of the engine, with --role gateway.")
    ] = None,
    secret_file: Annotated[
        Path | None, typer.Option(help="File with what gateway and engine know and nobody else.")
    ] = None,
    registry: Directory = None,
    trust: Trust = None,
    access: Annotated[
        Path | None,
        typer.Option(help="Directory of tenants and keys, by default in FOREWORD_HOME."),
    ] = None,
    open_: Annotated[
        bool, typer.Option("--open", help="Ask for no keys; on this machine only, to try it out.")
    ] = False,
    host: Annotated[
        str | None, typer.Option(help="Address of the API, by default 127.0.0.1.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port of the API, by default 8000.")] = None,
    admin_host: Annotated[
        str | None, typer.Option(help="Address of metrics and admin, by default 127.0.0.1.")
    ] = None,
    admin_port: Annotated[
        int | None, typer.Option(help="Port of metrics and admin, by default 8001.")
    ] = None,
    grace: Annotated[
        float | None, typer.Option(help="Seconds for running requests at the end, by default 30.")
    ] = None,
    log: Annotated[
        str | None, typer.Option(help="File for one JSON line per request, or - for stderr.")
    ] = None,
    otlp: Annotated[str | None, typer.Option(help="URL of an OpenTelemetry collector.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file with settings.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="One setting, such as embedded.most_running=32."),
    ] = None,
) -> None:
    """Serve a base and the prefixes of a registry over OpenAI's API."""
    given: dict[str, Any] = {
        "base": base, "registry": registry, "trust": trust, "access": access, "host": host,
        "port": port, "admin_host": admin_host, "admin_port": admin_port, "grace": grace,
        "open": open_ or None, "role": role,
        "telemetry": {"log": log, "otlp": otlp},
        "engine": {"url": engine, "secret_file": secret_file},
    }  # fmt: skip
    settings = _settings(config, set_ or [], given)

    from foreword.cli.output import quiet_libraries
    from foreword.serving.server.run import run

    quiet_libraries()
    run(settings, lambda line: errors.print(line, markup=False, soft_wrap=True))


def _settings(config: Path | None, overrides: list[str], given: dict[str, Any]) -> ServeSettings:
    """A file, then `--set`, then options of their own: the last word counts."""
    from pydantic import ValidationError

    from foreword.config import load_settings
    from foreword.errors import ConfigError
    from foreword.serving.server.settings import ServeSettings

    values = load_settings(ServeSettings, config, overrides).model_dump()
    for name, value in given.items():
        if isinstance(value, dict):
            values[name] |= _said(value)
    values |= _said({k: v for k, v in given.items() if not isinstance(v, dict)})
    try:
        return ServeSettings.model_validate(values)
    except ValidationError as e:
        first = e.errors()[0]
        name = "-".join(str(part) for part in first["loc"]).replace("_", "-")
        raise ConfigError(
            f"--{name}: {first['msg'].lower()}, got {first['input']!r}", code="config.value"
        ) from e


def _said(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}
