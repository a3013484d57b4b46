"""`foreword chat`: talk to a prefix, switch to another one, or ask two side by side."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foreword.cli.output import errors
from foreword.cli.registry.options import Directory, Trust
from foreword.cli.served import KeyFile, Url, server_address
from foreword.errors import NotFound, UsageError

if TYPE_CHECKING:
    from foreword.client.address import Address

_BASE = "base"


def chat(
    prefix: Annotated[
        list[str] | None,
        typer.Option(
            help="tenant/prefix, a version, an alias or base; repeat it to switch between several."
        ),
    ] = None,
    side: Annotated[bool, typer.Option("--side", help="Ask the first two side by side.")] = False,
    url: Url = None,
    key_file: KeyFile = None,
    base: Annotated[
        str | None,
        typer.Option(help="Start a server with this base on this machine, for this chat only."),
    ] = None,
    registry: Directory = None,
    trust: Trust = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Most tokens of an answer, by default what is left.")
    ] = None,
    temperature: Annotated[float, typer.Option(min=0.0, max=2.0, help="0 is greedy.")] = 0.0,
    seed: Annotated[int | None, typer.Option(help="For temperatures above 0.")] = None,
    user: Annotated[
        str | None, typer.Option(help="Who asks: decides which arm of a release answers.")
    ] = None,
) -> None:
    """Talk to a prefix; each answer says which version made it. Lines from a pipe are asked in turn."""
    if base is not None and (url is not None or key_file is not None):
        raise UsageError("--base starts a server of its own; leave out --url and --key-file")

    from foreword.cli.chat.loop import Loop
    from foreword.client.chat.session import Options, Session
    from foreword.client.server import Server

    options = _options(base, registry, trust)
    started = _own(options) if base else nullcontext(server_address(url, key_file))
    with _terminated(), started as where, Server(where) as server:
        models = _models(server.models(), prefix or [])
        active = models[:2] if side else models[:1]
        if side and len(active) < 2:
            raise UsageError(f"--side wants two prefixes, there is only {active[0]}; add --prefix")
        for name in prefix or []:
            server.require_model(name)
        session = Session(server.ask, models, active, Options(max_tokens, temperature, seed, user))
        Loop(session, server.require_model).run(sys.stdin.isatty())


def _models(known: Sequence[str], wanted: Sequence[str]) -> tuple[str, ...]:
    """What can be switched between; prefixes come before the bare model."""
    models = tuple(wanted) or tuple(sorted(known, key=lambda name: name == _BASE))
    if not models:
        raise NotFound(
            "there is nothing this key may talk to; release a prefix, or let its tenant use the base "
            "with `foreword access tenant set --base`",
            code="chat.nothing",
        )
    return models


def _options(base: str | None, registry: Path | None, trust: Path | None) -> list[str]:
    given = {"--base": base, "--registry": registry, "--trust": trust}
    return [word for name, value in given.items() if value for word in (name, str(value))]


@contextmanager
def _own(options: Sequence[str]) -> Iterator[Address]:
    from foreword.client.embedded import own_server

    with own_server(options, lambda line: errors.print(line, markup=False)) as where:
        yield where


@contextmanager
def _terminated() -> Iterator[None]:
    """Let SIGTERM and a closed terminal end it as an exception does, so that a server of its own ends too."""

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = {each: signal.signal(each, end) for each in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
