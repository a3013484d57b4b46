"""Answers as they are shown: one as it comes, two side by side. Their texts cannot steer a terminal."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from foreword.cli.output import out, visible, write
from foreword.errors import ForewordError

if TYPE_CHECKING:
    from rich.table import Table

    from foreword.client.chat.session import Asking

_LOOKS_PER_SECOND = 12


def show_one(asking: Asking) -> None:
    """Its text as it comes, then its receipt."""
    try:
        for piece in asking:
            write(_shown(piece))
    finally:
        write("\n")
    out.print(receipt_line(asking), markup=False, soft_wrap=True, style="dim")


def show_two(askings: Sequence[Asking]) -> None:
    """Asked at the same time; in a pipe told one after the other.

    Raises:
        ForewordError: in a pipe, the first error after both are told. A terminal shows it in its column.
    """
    columns = [_Column(asking) for asking in askings]
    if out.is_terminal:
        _live(columns)
        return
    for column in columns:
        column.join()
        out.print(f"[{visible(column.asking.model)}]", markup=False, soft_wrap=True)
        write(f"{column.text}\n")
        out.print(column.last_line, markup=False, soft_wrap=True)
    for column in columns:
        if column.error is not None:
            raise column.error


def receipt_line(asking: Asking) -> str:
    """Which version answered, how many tokens, and how fast."""
    if asking.answer is None or asking.stream is None:
        return ""
    answer, stream = asking.answer, asking.stream
    said = f"-- {visible(answer.receipt.line)}  {answer.tokens} tokens"
    if stream.first_token is not None:
        said += f", the first after {stream.first_token:.2f} s"
        rest = stream.seconds - stream.first_token
        if answer.tokens > 1 and rest > 0:
            said += f", then {(answer.tokens - 1) / rest:.0f}/s"
    return f"{said}, cut at the limit" if answer.finish == "length" else said


class _Column:
    """One answer, read by a thread of its own."""

    def __init__(self, asking: Asking) -> None:
        self.asking = asking
        self.text = ""
        self.error: ForewordError | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    @property
    def last_line(self) -> str:
        if self.error is not None:
            return f"error[{self.error.code}]: {visible(str(self.error))}"
        return receipt_line(self.asking)

    def join(self) -> None:
        self._thread.join()

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    def stop(self) -> None:
        """With the next piece at the latest; the server then gives the answer up."""
        self._stopped = True

    def _read(self) -> None:
        try:
            for piece in self.asking:
                self.text += _shown(piece)
                if self._stopped:
                    return
        except ForewordError as e:
            self.error = e


def _live(columns: Sequence[_Column]) -> None:
    from rich.live import Live

    drawn = -1
    try:
        # What is higher than the terminal cannot be drawn again and again, so the whole comes at the end.
        with Live(_table(columns), console=out, transient=True, auto_refresh=False) as live:
            while not all(column.done for column in columns):
                if (size := sum(len(column.text) for column in columns)) != drawn:
                    drawn = size
                    live.update(_table(columns), refresh=True)
                time.sleep(1 / _LOOKS_PER_SECOND)
    finally:
        for column in columns:
            column.stop()
    out.print(_table(columns))


def _table(columns: Sequence[_Column]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, expand=True, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(Text(visible(column.asking.model)), ratio=1, overflow="fold")
    table.add_row(*(Text(column.text) for column in columns))
    table.add_row(*(Text(column.last_line, style="dim") for column in columns))
    return table


def _shown(text: str) -> str:
    return "\n".join(map(visible, text.split("\n")))
