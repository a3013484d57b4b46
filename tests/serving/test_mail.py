"""What a step says reaches its streams, in order, and each loop is woken once for all of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from foreword.serving.engine.mail import Box, send


class Woken(asyncio.SelectorEventLoop):
    """A loop that counts how often another thread woke it."""

    def __init__(self) -> None:
        super().__init__()
        self.times = 0

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: Any, **more: Any) -> Any:
        self.times += 1
        return super().call_soon_threadsafe(callback, *args, **more)


def box(loop: asyncio.AbstractEventLoop) -> Box[int]:
    return Box(loop, asyncio.Queue())


def all_in(box: Box[int]) -> list[int]:
    return [box.items.get_nowait() for _ in range(box.items.qsize())]


@pytest.fixture
def loop() -> Any:
    made = Woken()
    yield made
    made.close()


def test_one_wake_up_for_all_boxes_of_a_loop(loop: Woken) -> None:
    first, second = box(loop), box(loop)
    sender = threading.Thread(
        target=send, args=([(first, 1), (second, 2), (first, 3), (first, 4)],)
    )
    sender.start()
    sender.join()
    loop.run_until_complete(asyncio.sleep(0))
    assert (all_in(first), all_in(second)) == ([1, 3, 4], [2])
    assert loop.times == 1


def test_a_loop_that_is_closed_keeps_nobody_from_his_items(loop: Woken) -> None:
    gone, other = asyncio.new_event_loop(), box(loop)
    lost = box(gone)
    gone.close()
    send([(lost, 1), (other, 2)])
    loop.run_until_complete(asyncio.sleep(0))
    assert all_in(other) == [2]


def test_nothing_to_say_wakes_nobody(loop: Woken) -> None:
    send([])
    assert loop.times == 0
