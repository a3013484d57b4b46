"""`foreword top`: a running server at a glance."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from foreword.cli.output import out, print_json, visible
from foreword.cli.registry import lines
from foreword.cli.registry.options import Json
from foreword.errors import ForewordError, UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from foreword.client.top.look import Look, PrefixLine, Spread
    from foreword.client.top.reader import Reader

_HERE = "http://127.0.0.1:8001"
_TITLES = ("prefix", "req/s", "err/s", "tok/s", "first p50", "p99", "token p50", "p99", "reused")


def top(
    url: Annotated[
        str,
        typer.Option(envvar="FOREWORD_ADMIN_URL", help="Address of a server's operator's port."),
    ] = _HERE,
    every: Annotated[float, typer.Option(min=0.1, max=60, help="Seconds between two looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Print one look and end.")] = False,
    most: Annotated[int, typer.Option(min=1, help="Prefixes to show.")] = 20,
    json: Json = False,
) -> None:
    """Show requests, prefixes resident, hit rate and latency as they are now. Ctrl-C ends it."""
    if json and not once:
        raise UsageError("--json is for one look; add --once")

    from foreword.client.address import address
    from foreword.client.top.reader import Reader

    with Reader(address(url), since_start=once) as reader:
        if once:
            found = _second(reader, every)
            if json:
                print_json(asdict(found))
            else:
                _print(found, reader.address.url, most)
        else:
            _watch(reader, every, most)


def _second(reader: Reader, every: float) -> Look:
    """The first look that can tell rates."""
    while (found := reader.read()) is None:
        time.sleep(every)
    return found


def _watch(reader: Reader, every: float, most: int) -> None:
    from rich.live import Live

    looks = _looks(reader, every)
    try:
        first = next(looks)
        if not out.is_terminal:
            for found in itertools.chain([first], looks):
                _print(found, reader.address.url, most)
            return
        page = partial(_page, url=reader.address.url, most=most)
        with Live(page(first), console=out, screen=True, auto_refresh=False) as live:
            for found in looks:
                live.update(page(found), refresh=True)
    except KeyboardInterrupt:
        return


def _looks(reader: Reader, every: float) -> Iterator[Look | ForewordError]:
    """A server that was there once may come back, so later failures are shown and no end."""
    found: Look | ForewordError = _second(reader, every)
    while True:
        yield found
        time.sleep(every)
        try:
            found = reader.read() or _second(reader, every)
        except ForewordError as e:
            found = e


def _print(found: Look | ForewordError, url: str, most: int) -> None:
    """For a pipe, or once."""
    for line in _head(found, url):
        out.print(line, markup=False, soft_wrap=True)
    if not isinstance(found, ForewordError):
        lines.table(_TITLES, [_cells(each) for each in found.prefixes[:most]])


def _page(found: Look | ForewordError, url: str, most: int) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    head = [Text(line) for line in _head(found, url)]
    if isinstance(found, ForewordError):
        return Group(*head)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in _TITLES:
        table.add_column(title, justify="left" if title == "prefix" else "right", no_wrap=True)
    for each in found.prefixes[:most]:
        table.add_row(*(Text(cell) for cell in _cells(each)))
    return Group(*head, Text(), table)


def _head(found: Look | ForewordError, url: str) -> Iterator[str]:
    if isinstance(found, ForewordError):
        yield f"{url}  error[{found.code}]: {visible(str(found))}"
        return
    state = "ready" if found.ready else "NOT READY"
    problems = f"; {', '.join(map(visible, found.problems))}" if found.problems else ""
    yield f"{url}  {state}{problems}"
    yield (
        f"requests   {found.requests:.1f}/s, {found.failed:.1f}/s failed, {found.refused:.1f}/s "
        f"refused; {_count(found.running)} running, {_count(found.waiting)} waiting, "
        f"{_count(found.streams)} streams; {found.tokens:.0f} tokens/s"
    )
    yield (
        f"latency    p50 {_time(found.duration.p50)}, p99 {_time(found.duration.p99)}; first token "
        f"{_pair(found.first_token)}; per token {_pair(found.per_token)}"
    )
    yield (
        f"prefixes   {_count(found.resident)} resident ({_bytes(found.device_bytes)}), hit rate "
        f"{_share(found.hit_rate)}, {_count(found.releases)} released; journal read "
        f"{_time(found.journal_age)} ago; KV {_share(found.kv_used)} used"
    )
    if found.wrong_digests:
        yield f"WRONG DIGESTS  {found.wrong_digests:.0f} answers were thrown away; this is a bug"


def _cells(line: PrefixLine) -> tuple[str, ...]:
    return (
        visible(line.name),
        f"{line.requests:.1f}",
        f"{line.errors:.1f}",
        f"{line.tokens:.0f}",
        _time(line.first_token.p50),
        _time(line.first_token.p99),
        _time(line.per_token.p50),
        _time(line.per_token.p99),
        _share(line.reused),
    )


def _pair(spread: Spread) -> str:
    return f"{_time(spread.p50)}, {_time(spread.p99)}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1e3 * seconds:.0f} ms"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _bytes(value: float | None) -> str:
    return "-" if value is None else f"{value / 2**20:,.0f} MiB"
