"""R14: PostgreSQL dies while prefixes are served: names go on, nothing is promoted, not even afterwards."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from foreword.errors import StorageError
from foreword.registry.registry import Registry
from tests.registry import servers
from tests.reliability.marked import FIRST
from tests.reliability.report import LONG, Goals
from tests.reliability.toy_server import PREFIX_BYTES, Home, Inside, Said, by, home
from tests.serving.prefix_samples import POLICY

pytestmark = pytest.mark.reliability("R14")

CYCLES, AWAY = (20, 60.0) if LONG else (2, 0.5)
"""How often it is stopped, and for how many seconds."""
NAMES, ROOM = 8, 3
"""Prefixes in use, and how many of them are in memory; all are on disk."""
PROMOTED = "acme/p0"
SOON, WITHIN = 5.0, 1.5
"""Seconds: until it is followed again, and until a release then takes effect."""


@dataclass
class Postgres:
    """Stopped as `pg_ctl stop -m immediate` does it, which is SIGQUIT, and started again."""

    server: servers.PostgresServer
    process: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self.process = self.server.process

    def stop(self) -> None:
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait()

    def start(self) -> None:
        command: Any = self.server.process.args
        data = Path(command[command.index("-D") + 1])
        self.process = subprocess.Popen(
            command, stderr=subprocess.DEVNULL, cwd=data, user=data.stat().st_uid
        )
        _seconds_until(self._answers)

    def _answers(self) -> bool:
        with contextlib.suppress(Exception):
            self.server.execute("SELECT 1")
            return True
        return False


@dataclass
class Shop:
    at: Home
    server: Inside
    postgres: Postgres


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with ExitStack() as opened:
        started = opened.enter_context(servers.postgres())
        patch = opened.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("PGPASSWORD", started.password)
        postgres = Postgres(started)
        opened.callback(postgres.stop)
        at = opened.enter_context(home(database=started.url))
        for number in range(NAMES):
            at.publish(f"acme/p{number}")
        own = opened.enter_context(Registry.open(at.directory / "registry"))
        embedded = {"prefix_bytes": ROOM * PREFIX_BYTES}
        server = opened.enter_context(at.serving(own, embedded=embedded))
        assert all(said.right for said in server.ask_all(sorted(at.markers)))
        yield Shop(at, server, postgres)


@dataclass
class Steady:
    """Asks for every name in a row, again and again; answers with when they were asked for."""

    server: Inside
    names: list[str]
    said: list[tuple[float, Said]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def ask(self) -> None:
        while not self.over.is_set():
            for name in self.names:
                began = time.monotonic()
                self.said.append((began, self.server.ask(name)))


@dataclass(frozen=True)
class Cycle:
    """One outage."""

    began: float
    promoted_at: float
    """When a release was tried again, the database being back."""
    old: int
    """The marker of what is released meanwhile."""
    refused: str
    """Code of the release that was tried while it was away."""
    refused_in: float
    resolves: bool
    """Whether the registry itself could still say what a name means."""
    cold: Said
    followed_in: float
    effect_in: float
    unchanged: bool
    """The journal is what it was before, after the refused release."""


def one_cycle(shop: Shop) -> Cycle:
    at, old = shop.at, shop.at.markers[PROMOTED]
    at.publish(PROMOTED, release=False)
    cold, head = f"{PROMOTED}@1.0.{at.published}", at.registry.refresh().head
    _seconds_until(lambda: shop.server.house.follower.table.seq >= head.seq)
    shop.postgres.stop()
    began = time.monotonic()
    refused = _refusal(lambda: at.registry.release(cold, policy=POLICY, by=by()))
    refused_in = time.monotonic() - began
    resolves = not _refusal(lambda: at.registry.resolve(PROMOTED))
    unknown = shop.server.ask(cold)
    time.sleep(max(0.0, AWAY - (time.monotonic() - began)))
    shop.postgres.start()
    followed_in = _seconds_until(lambda: not shop.server.house.follower.status.error)
    time.sleep(0.5)  # a promotion that had been kept somewhere would come now
    unchanged = at.registry.refresh().head == head
    promoted_at = time.monotonic()
    at.registry.release(cold, policy=POLICY, by=by())
    at.markers[PROMOTED] = new = FIRST + at.published
    effect_in = _seconds_until(lambda: shop.server.ask(PROMOTED).markers == {new})
    return Cycle(began, promoted_at, old, refused, refused_in, resolves, unknown,
                 followed_in, effect_in, unchanged)  # fmt: skip


def _refusal(work: Callable[[], object]) -> str:
    """The code it is refused with; empty if it is not."""
    try:
        work()
    except StorageError as e:
        return e.code
    return ""


def _seconds_until(happened: Callable[[], bool]) -> float:
    began = time.monotonic()
    while not happened():
        if time.monotonic() - began > 60:
            raise TimeoutError("not within 60 s")
        time.sleep(0.01)
    return time.monotonic() - began


def test_a_database_that_dies_while_prefixes_are_served(shop: Shop, goals: Goals) -> None:
    steady = Steady(shop.server, sorted(shop.at.markers))
    asking = threading.Thread(target=steady.ask, daemon=True)
    asking.start()
    try:
        cycles = [one_cycle(shop) for _ in range(CYCLES)]
    finally:
        steady.over.set()
        asking.join()

    away = [
        (said, cycle)
        for at, said in steady.said
        for cycle in cycles
        if cycle.began <= at < cycle.promoted_at - 0.5
    ]
    errors = sum(said.status != 200 for said, _ in away)
    goals.goal(f"away {CYCLES} times for {AWAY:g} s: names that were resolved before and are not answered",
               value=errors, passed=not errors and len(away) >= 10 * CYCLES, count=len(away))  # fmt: skip
    others = [said for said, _ in away if said.name != PROMOTED]
    stale = [said for said, cycle in away if said.name == PROMOTED and said.markers != {cycle.old}]
    wrong = sum(said.wrong for said in others) + len(stale)
    goals.goal("answered by another version than the one that was released before", value=wrong,
               passed=not wrong, count=len(away))  # fmt: skip
    codes = {cycle.refused for cycle in cycles}
    slowest = max(cycle.refused_in for cycle in cycles)
    goals.goal(f"a release is refused with {', '.join(sorted(codes))}, at the latest after 10 s",
               value=slowest, passed=codes == {"storage.database"} and slowest <= 10.0,
               count=CYCLES)  # fmt: skip
    happened = sum(not cycle.unchanged for cycle in cycles)
    goals.goal("refused releases that are in the journal, or take effect, when it is back", value=happened,
               passed=not happened, count=CYCLES)  # fmt: skip
    unknown = {cycle.cold.code for cycle in cycles}
    goals.goal("a version that was never loaded gets 503", value=", ".join(sorted(unknown)),
               passed=all(cycle.cold.status == 503 for cycle in cycles), count=CYCLES)  # fmt: skip
    latest = max(cycle.followed_in for cycle in cycles)
    goals.goal(
        f"it is followed again within {SOON:g} s", value=latest, passed=latest <= SOON, count=CYCLES
    )
    slowest = max(cycle.effect_in for cycle in cycles)
    goals.goal(f"a release then takes effect within {WITHIN:g} s", value=slowest, passed=slowest <= WITHIN,
               count=CYCLES)  # fmt: skip
    resolves = sum(cycle.resolves for cycle in cycles)
    goals.goal("who asks the database for every name is found out: names it could still resolve",
               value=resolves, passed=not resolves, count=CYCLES)  # fmt: skip
