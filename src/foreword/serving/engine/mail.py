"""From the engine's thread to the event loops that wait for what a step has said.

Waking a loop is a system call, for which the engine's thread lets go of Python's lock and has to get it
back. So it is done once for all that a step says to the streams of a loop, not once for each of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Generic, NamedTuple, TypeVar

Item = TypeVar("Item")


class Box(NamedTuple, Generic[Item]):
    """Where one stream waits: a queue that belongs to its loop."""

    loop: asyncio.AbstractEventLoop
    items: asyncio.Queue[Item]


def send(letters: Iterable[tuple[Box[Item], Item]]) -> None:
    """Put each item into its box, in this order; never waits. May be called from any thread."""
    bags: dict[asyncio.AbstractEventLoop, list[tuple[Box[Item], Item]]] = {}
    for letter in letters:
        bags.setdefault(letter[0].loop, []).append(letter)
    for loop, bag in bags.items():
        with suppress(RuntimeError):  # it is closed: nobody listens any more
            loop.call_soon_threadsafe(_empty, bag)


def _empty(bag: list[tuple[Box[Item], Item]]) -> None:
    for box, item in bag:
        box.items.put_nowait(item)
