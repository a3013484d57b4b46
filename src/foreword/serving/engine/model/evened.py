"""How many rows a packed matrix product is given.

oneDNN compiles a kernel for every number of rows and every shape of weight, and keeps a thousand of them.
Steps have any number of rows, so a server would grow by hundreds of megabytes for hours. A few rows that
nobody reads, at most three up to 64 rows and an eighth beyond, take no time that can be told from noise
(`bench/serving_rows.py` measures both).
"""

from __future__ import annotations

from collections.abc import Iterator

_GRAIN = 4
_PER_OCTAVE = 8
_EXACT = 2
"""As many rows are multiplied by a kernel that takes any number (`packed.py`)."""


def evened(rows: int) -> int:
    """The least number of rows that is given to a product, at least `rows`.

    1, 2, then multiples of 4 up to 64, of 8 up to 128, of 16 up to 256, and so on.
    """
    if rows <= _EXACT:
        return rows
    grain = max(_GRAIN, (1 << (rows - 1).bit_length()) // (2 * _PER_OCTAVE))
    return -(-rows // grain) * grain


def all_evened(most: int) -> Iterator[int]:
    """All of them up to the one for `most` rows, rising."""
    rows = 1
    while rows <= most:
        yield evened(rows)
        rows = evened(rows) + 1
