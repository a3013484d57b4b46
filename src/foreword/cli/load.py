"""`foreword load`: a bounded load on a server of this machine, and figures about it."""

from __future__ import annotations

import json as json_
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foreword.cli.output import errors, out, print_json, visible
from foreword.cli.registry.lines import numbered
from foreword.cli.registry.options import Json
from foreword.cli.served import KeyFile, Url, server_address
from foreword.errors import EngineFailed, NotFound, StorageError, UsageError

if TYPE_CHECKING:
    from foreword.client.address import Address
    from foreword.client.load.figures import Figures

_BASE = "base"


def load(
    prefix: Annotated[
        list[str] | None,
        typer.Option(help="Most popular first; by default every prefix this key may use."),
    ] = None,
    url: Url = None,
    key_file: KeyFile = None,
    zipf: Annotated[
        float, typer.Option(help="The k-th prefix is asked in proportion to 1/k^ZIPF.")
    ] = 1.0,
    concurrency: Annotated[int, typer.Option(help="Requests at the same time, at most.")] = 8,
    rate: Annotated[
        float | None,
        typer.Option(help="Requests a second at random moments; by default as many as go through."),
    ] = None,
    duration: Annotated[float, typer.Option(help="Seconds.")] = 10.0,
    requests: Annotated[int | None, typer.Option(help="Stop after so many.")] = None,
    streams: Annotated[float, typer.Option(help="Share of requests that are streamed.")] = 0.5,
    max_tokens: Annotated[int, typer.Option(help="Tokens of each answer.")] = 16,
    words: Annotated[int, typer.Option(help="Words of each question.")] = 12,
    users: Annotated[int, typer.Option(help="Different users.")] = 100,
    seed: Annotated[int, typer.Option(help="The same seed asks the same.")] = 0,
    timeout: Annotated[float, typer.Option(help="Seconds without a byte.")] = 60.0,
    out_: Annotated[Path | None, typer.Option("--out", help="JSON file to write.")] = None,
    remote: Annotated[
        bool, typer.Option("--remote", help="The server is another machine, and may be loaded.")
    ] = False,
    json: Json = False,
) -> None:
    """Ask a server for many short answers and check which prefix made each of them."""
    import asyncio

    from foreword.client.load.figures import figures
    from foreword.client.load.plan import Plan
    from foreword.client.load.run import run

    where = server_address(url, key_file)
    _require_allowed(where, remote)
    plan = Plan(
        _models(where, prefix or []), zipf, concurrency, rate, duration, requests, streams,
        max_tokens, words, users, seed, timeout,
    )  # fmt: skip
    asked = numbered(len(plan.models), "model")
    errors.print(f"asking {asked} at {where.url}", markup=False, soft_wrap=True)
    found = figures(asyncio.run(run(where, plan)))
    said = found.to_json(plan)
    if out_ is not None:
        _write(out_, said)
    if json:
        print_json(said)
    else:
        for line in _lines(found):
            out.print(visible(line), markup=False, soft_wrap=True)
    if found.wrong_receipts:
        raise EngineFailed(
            f"{found.wrong_receipts} answers came from something else than was asked for; please "
            "report it",
            code="load.wrong_receipts",
        )


def _require_allowed(where: Address, remote: bool) -> None:
    from foreword.serving.server.settings import is_loopback

    if not remote and not is_loopback(where.host):
        raise UsageError(
            f"{where.host} is not this machine; say --remote if it is yours to load",
            code="load.remote",
        )


def _models(where: Address, wanted: list[str]) -> tuple[str, ...]:
    from foreword.client.server import Server

    if wanted:
        return tuple(wanted)
    with Server(where) as server:
        models = tuple(name for name in server.models() if name != _BASE)
    if not models:
        raise NotFound(
            "this key may use no prefix; release one, or name what to ask with --prefix",
            code="load.nothing",
        )
    return models


def _lines(found: Figures) -> Iterator[str]:
    yield (
        f"requests   {found.requests:,} in {found.seconds:.1f} s, {found.answered:,} answered: "
        f"{found.requests_per_second:.1f}/s, {found.tokens_per_second:.0f} tokens/s"
    )
    for kind, spread in found.latency_ms.items():
        yield f"{kind:<10} {_spread(spread)}"
    if found.first_token_ms:
        yield f"{'first':<10} {_spread(found.first_token_ms)}"
    failed = ", ".join(f"{count:,} {code}" for code, count in found.errors.items())
    yield f"errors     {failed or 'none'}"
    if found.unsent:
        yield f"unsent     {found.unsent:,} had no free place in time; raise --concurrency"
    if found.fallbacks:
        yield f"fallbacks  {found.fallbacks:,}"
    yield f"receipts   {found.wrong_receipts} wrong"
    for line in found.wrong:
        yield f"           {line}"


def _spread(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.1f} ms" for name, value in values.items())


def _write(path: Path, said: Mapping[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json_.dumps(said, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as e:
        raise StorageError(
            f"{path} could not be written ({e.strerror})", code="storage.write"
        ) from e
