"""Clients in a process of their own that ask all the time; nothing else that is tested slows them down.

with steady(server, names) as asking:
    ...                              whatever may happen to the server
said = asking.said                   every answer of the meantime, with its moment
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from tests.reliability.forked import FORKED
from tests.reliability.toy_server import Server, client_of

_PATIENCE = 60.0


@dataclass(frozen=True)
class Moment:
    """One answer: when it came, by the machine's monotonic clock, and how long it took."""

    at: float
    seconds: float
    right: bool


@dataclass
class Asking:
    """What was told so far; all of it once the block has ended."""

    said: list[Moment] = field(default_factory=list)

    def between(self, began: float, ended: float) -> list[Moment]:
        return [each for each in self.said if began <= each.at - each.seconds and each.at < ended]


@contextmanager
def steady(server: Server, names: Sequence[str], clients: int = 3) -> Iterator[Asking]:
    """Ask for these names in turn, from `clients` threads, until the end of the block."""
    ours, theirs = FORKED.Pipe()
    wanted = {name: server.markers[name] for name in names}
    process = FORKED.Process(
        target=_ask, args=(server.url, server.key, wanted, clients, theirs), daemon=True
    )
    process.start()
    theirs.close()
    _told(ours)  # they have begun
    asking = Asking()
    try:
        yield asking
        ours.send("enough")
        asking.said = _told(ours)
    finally:
        process.terminate()
        process.join(_PATIENCE)


def p99(said: Sequence[Moment]) -> float:
    """Seconds."""
    ranked = sorted(each.seconds for each in said)
    return ranked[int(0.99 * (len(ranked) - 1))]


def _told(end: Connection) -> list[Moment]:
    if not end.poll(_PATIENCE):
        raise TimeoutError(f"the clients' process said nothing for {_PATIENCE:g} s")
    found: list[Moment] = end.recv()
    return found


def _ask(url: str, key: str, wanted: Mapping[str, int], clients: int, end: Connection) -> None:
    said, names, done = list[Moment](), itertools.cycle(list(wanted)), threading.Event()
    with client_of(url, key) as client:
        server = Server(url, key, dict(wanted), client)

        def one() -> None:
            while not done.is_set():
                answer = server.ask(next(names))
                said.append(Moment(time.monotonic(), answer.seconds, answer.right))

        threads = [threading.Thread(target=one, daemon=True) for _ in range(clients)]
        for thread in threads:
            thread.start()
        end.send([])
        end.recv()
        done.set()
        for thread in threads:
            thread.join()
    end.send(said)
