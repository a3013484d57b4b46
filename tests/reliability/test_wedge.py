"""R31: an engine whose step does not end is noticed, and nobody waits for it for ever."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from torch import Tensor

from foreword.serving.engine.model.attention import Piece
from foreword.serving.engine.model.runner import ModelRunner
from foreword.serving.server.settings import EmbeddedSettings
from tests.gateway.edge_server import until
from tests.reliability.report import LONG, Goals
from tests.reliability.toy_server import Home, Inside, Said, home

pytestmark = pytest.mark.reliability("R31")

DEFAULTS = EmbeddedSettings()
LATE, WEDGED = (DEFAULTS.late_after, DEFAULTS.wedged_after) if LONG else (0.6, 1.6)
UNREADY, DEAD = (5.0, 30.0) if LONG else (1.6, 3.6)
"""Seconds in which it has to be told; a short run has shorter limits as well as shorter settings."""
ROWS, REQUESTS = 4, 12
"""Some run, the others wait."""
LOADED_SECONDS = 1_200.0 if LONG else 3.0
LOOK = 0.05
NAME = "acme/p1"


@pytest.fixture(scope="module")
def at() -> Iterator[Home]:
    with home() as made:
        made.publish(NAME)
        yield made


class Trouble:
    """What happens to the engine's thread in its next steps, while it is on."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.kind = "none"
        self.over, self.inside = threading.Event(), threading.Event()
        run = ModelRunner.run

        def troubled(runner: ModelRunner, pieces: Sequence[Piece]) -> Tensor:
            if self.kind != "none":
                self.inside.set()
                getattr(self, self.kind)()
            return run(runner, pieces)

        patch.setattr(ModelRunner, "run", troubled)

    def begin(self, kind: str) -> None:
        self.over.clear()
        self.inside.clear()
        self.kind = kind

    def end(self) -> None:
        self.kind = "none"
        self.over.set()

    def blocked(self) -> None:
        self.over.wait()

    def spinning(self) -> None:
        while not self.over.is_set():
            pass

    def killed(self) -> None:
        """As if somebody ended the thread from outside: no barrier of the engine's catches this one."""
        thread = ctypes.c_ulong(threading.get_ident())
        ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(SystemExit))
        self.over.wait(0.05)


@pytest.fixture
def trouble(monkeypatch: pytest.MonkeyPatch) -> Iterator[Trouble]:
    made = Trouble(monkeypatch)
    yield made
    made.end()


@contextmanager
def serving(at: Home, wedged_after: float = WEDGED) -> Iterator[Inside]:
    limits = {"most_running": ROWS, "late_after": LATE, "wedged_after": wedged_after}
    with at.serving(embedded=limits) as server:
        assert server.ask(NAME).right
        yield server


@dataclass(frozen=True)
class Seen:
    """Seconds from when the step began."""

    unready: float
    dead: float
    told: list[Said]
    longest: float
    late: Said
    """One who comes when it is known."""
    again: bool
    """Whether it answers once the step has ended after all."""


def seen_of(server: Inside, trouble: Trouble, kind: str) -> Seen:
    with ThreadPoolExecutor(REQUESTS) as pool:
        trouble.begin(kind)
        asked = [pool.submit(server.ask, NAME, 40) for _ in range(REQUESTS)]
        until(trouble.inside.is_set)
        began = time.monotonic()
        unready = _when(lambda: server.status("/readyz") == 503, began)
        dead = _when(lambda: server.status("/livez") == 503, began)
        longest = _when(lambda: all(each.done() for each in asked), began)
        late = server.ask(NAME)
        trouble.end()
        told = [each.result() for each in asked]
    again = kind != "killed" and _comes_back(server)
    return Seen(unready, dead, told, longest, late, again)


def _when(happened: Callable[[], bool], began: float) -> float:
    """Seconds since `began`; infinite if it does not happen in time."""
    while not happened():
        if time.monotonic() - began > DEAD + 5.0:
            return float("inf")
        time.sleep(LOOK)
    return time.monotonic() - began


def _comes_back(server: Inside) -> bool:
    until(lambda: server.status("/readyz") == 200, 20)
    return server.ask(NAME).right and not server.engine.backend.capacity().running


@pytest.mark.parametrize("kind", ["blocked", "spinning", "killed"])
def test_an_engine_that_does_not_step(at: Home, trouble: Trouble, goals: Goals, kind: str) -> None:
    with serving(at) as server:
        seen = seen_of(server, trouble, kind)
    goals.goal(f"{kind}: /readyz says 503 within {UNREADY:g} s", value=seen.unready,
               passed=seen.unready <= UNREADY, count=1)  # fmt: skip
    goals.goal(f"{kind}: /livez says 503 within {DEAD:g} s", value=seen.dead,
               passed=seen.dead <= DEAD, count=1)  # fmt: skip
    codes = {said.code for said in (*seen.told, seen.late)}
    typed = all(said.status == 503 and said.code.startswith(("engine.", "serving.engine"))
                for said in (*seen.told, seen.late))  # fmt: skip
    goals.goal(f"{kind}: who runs and who waits gets an error within {DEAD:g} s ({', '.join(sorted(codes))})",
               value=seen.longest, passed=typed and seen.longest <= DEAD, count=REQUESTS)  # fmt: skip
    if kind != "killed":
        goals.goal(f"{kind}: once the step ends, it answers again and holds nothing of those it gave up",
                   value=seen.again, passed=seen.again, count=1)  # fmt: skip


def test_no_false_alarm_under_full_load(at: Home, goals: Goals) -> None:
    over, counts = threading.Event(), {"/readyz": 0, "/livez": 0}
    alarms: list[str] = []
    with serving(at) as server, ThreadPoolExecutor(4 * ROWS + 1) as pool:

        def ask() -> int:
            answered = 0
            while not over.is_set():
                answered += server.ask(NAME, 40).right
            return answered

        def look() -> None:
            while not over.is_set():
                for path in counts:
                    counts[path] += 1
                    alarms.extend([path] * (server.status(path) != 200))
                time.sleep(LOOK)

        looking, asking = pool.submit(look), [pool.submit(ask) for _ in range(4 * ROWS)]
        busy = _busy(server, LOADED_SECONDS)
        over.set()
        looking.result()
        answered = sum(_results(asking))
    goals.goal(f"false alarms in {LOADED_SECONDS:g} s, in {100 * busy:.0f} % of it with requests waiting",
               value=len(alarms), passed=not alarms and busy >= 0.5, count=sum(counts.values()))  # fmt: skip
    goals.goal(
        "and all who asked are answered", value=answered, passed=answered > 0, count=answered
    )


def _busy(server: Inside, seconds: float) -> float:
    """The share of looks at which requests waited for a row."""
    looks, waiting, end = 0, 0, time.monotonic() + seconds
    while time.monotonic() < end:
        looks, waiting = looks + 1, waiting + (server.engine.backend.capacity().waiting > 0)
        time.sleep(LOOK)
    return waiting / looks


def _results(futures: Sequence[Future[int]]) -> list[int]:
    return [each.result() for each in futures]


def test_an_engine_nobody_looks_after_is_found_out(
    at: Home, trouble: Trouble, goals: Goals
) -> None:
    """The same trouble where it counts as dead after an hour only: the measurement itself is not blind."""
    with serving(at, wedged_after=3600.0) as server, ThreadPoolExecutor(1) as pool:
        trouble.begin("blocked")
        asked = pool.submit(server.ask, NAME, 40)
        until(trouble.inside.is_set)
        time.sleep(DEAD)
        waits = not asked.done() and server.status("/livez") == 200
        trouble.end()
        answered = asked.result().right
    goals.goal(f"without it, a request still waits after {DEAD:g} s", value=waits,
               passed=waits and answered, count=1)  # fmt: skip
