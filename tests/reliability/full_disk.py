"""Operations on a disk with room for so much and no more. A program: the disk is one of its own.

    python -m tests.reliability.full_disk DIRECTORY EVERY OPERATION...

DIRECTORY is a small file system that is used for nothing else. Every operation is tried with 0, EVERY, 2 *
EVERY... pages free, until it succeeds. Says on standard output, as JSON, what came of it.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from foreword.errors import StorageError
from foreword.registry.layout import Layout
from tests.reliability.grounds import OnSqlite, place_for
from tests.reliability.invariants import expect, violations
from tests.reliability.world import perform


def main(directory: Path, every: int, operations: list[str]) -> dict[str, object]:
    """What came of all tries, counted by code, and what should hold and does not."""
    codes: Counter[str] = Counter()
    faults: list[str] = []
    ground = OnSqlite(directory)
    for operation in operations:
        with place_for(operation, ground) as layout:
            expected = expect(layout, operation)
        code, pages = "", -every
        while code != "done":
            pages += every
            with place_for(operation, ground) as layout:
                with only(pages, directory):
                    code = outcome(operation, layout)
                found = violations(layout, operation, expected, acknowledged=code == "done")
            codes[code] += 1
            faults += (f"{operation} with {pages} pages: {fault}" for fault in found)
    return {"codes": codes, "faults": faults}


def outcome(operation: str, layout: Layout) -> str:
    try:
        perform(operation, layout)
    except StorageError as e:
        return e.code
    return "done"


@contextmanager
def only(pages: int, directory: Path) -> Iterator[None]:
    """Leave so many pages free."""
    disk = os.statvfs(directory)
    ballast = directory / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, (disk.f_bfree - pages) * disk.f_bsize)
    try:
        yield
    finally:
        ballast.unlink()


if __name__ == "__main__":
    place, step, *names = sys.argv[1:]
    json.dump(main(Path(place), int(step), names), sys.stdout)
