"""Lines and tables for people. Everything in them may come from outside."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from foreword.cli.output import out, visible, write

_WIDTH = 9


def line(label: str, text: str) -> None:
    """One line: what it is about, and what there is to say."""
    out.print(f"{label:<{_WIDTH}} {visible(text)}", markup=False, soft_wrap=True)


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns under titles in a terminal; in a pipe the cells alone, with tabs between them."""
    cells = [[visible(cell) for cell in row] for row in rows]
    if not out.is_terminal:
        for row in cells:
            write("\t".join(row) + "\n")  # rich would make spaces of the tabs
        return
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, header_style="dim")
    for title in titles:
        shown.add_column(title, overflow="fold")  # rich would cut a digest off
    for row in cells:
        shown.add_row(*map(Text, row))
    out.print(shown)


def numbered(count: int, noun: str, plural: str | None = None) -> str:
    """`1 version`, `2 versions`."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"
