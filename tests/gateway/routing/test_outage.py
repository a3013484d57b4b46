"""PostgreSQL goes away while it is followed: what is known is served, and nothing stale comes back."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from foreword.errors import StorageError
from foreword.registry.layout import Layout, init
from foreword.serving.gateway.access.tenants import Tenant
from foreword.serving.gateway.routing.resolve import Router
from tests.gateway.routing.conftest import NAME, Farm, Host, seconds_until, stable
from tests.gateway.routing.made import HERE, access_of, principal
from tests.registry import servers
from tests.registry.samples import by
from tests.registry.scratch import scratch


class Server:
    """PostgreSQL that is stopped as `pg_ctl stop -m immediate` does it, and started again."""

    def __init__(self, server: servers.PostgresServer) -> None:
        self.url = server.url
        self._server, self._process = server, server.process

    def stop(self) -> None:
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait()

    def start(self) -> None:
        command: Any = self._server.process.args
        data = Path(command[command.index("-D") + 1])
        self._process = subprocess.Popen(
            command, stderr=subprocess.DEVNULL, cwd=data, user=data.stat().st_uid
        )
        seconds_until(self._answers, 60)

    def _answers(self) -> bool:
        with contextlib.suppress(Exception):
            self._server.execute("SELECT 1")
            return True
        return False


@pytest.fixture
def server() -> Iterator[Server]:
    with servers.postgres() as started, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGPASSWORD", started.password)
        server = Server(started)
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture
def farm(server: Server) -> Iterator[Farm]:
    with scratch() as directory, contextlib.ExitStack() as stack:
        yield Farm(directory, init(Layout(directory / "registry", database=server.url)), stack)


def test_names_resolve_through_three_outages_and_nothing_stale_is_promoted(
    server: Server, farm: Farm
) -> None:
    first, second = farm.publish("1.0.0", "2.0.0")
    farm.release(f"{NAME}@1.0.0")
    follower = farm.following(host=Host(0.0))
    router = Router(lambda: follower.table, lambda: access_of(Tenant("acme")), HERE)
    routed: list[object] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            try:
                routed.append(router.route(principal(), NAME, "a key").adapters.prefix)
            except Exception as error:
                routed.append(error)
            time.sleep(0.002)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for wanted in (second, first, second):
            before = stable(follower)
            server.stop()
            seconds_until(lambda: follower.status.error)
            age = follower.age
            time.sleep(0.3)
            assert follower.age > age + 0.25
            with pytest.raises(StorageError):
                farm.release(f"{NAME}@2.0.0")
            assert stable(follower) == before
            server.start()
            assert seconds_until(lambda: follower.age < 0.5 and not follower.status.error) < 5
            assert stable(follower) == before  # what was refused did not happen after all
            if wanted == second:
                farm.release(f"{NAME}@2.0.0")
            else:
                farm.registry.rollback(NAME, by=by())
            assert seconds_until(lambda wanted=wanted: stable(follower) == wanted) < 1  # type: ignore[misc]
            seconds_until(lambda wanted=wanted: routed[-1] == wanted)  # type: ignore[misc]
    finally:
        over.set()
        asking.join()
    assert set(routed) == {first, second}
    changes = [b for a, b in zip([None, *routed], routed, strict=False) if a != b]
    assert changes == [first, second, first, second]


def test_a_start_while_it_is_away_serves_what_was_known(server: Server, farm: Farm) -> None:
    (first,) = farm.publish("1.0.0")
    farm.release(f"{NAME}@1.0.0")
    farm.following().stop()
    server.stop()
    follower = farm.following()
    assert (follower.status.source, stable(follower)) == ("known good", first)
    server.start()
    assert seconds_until(lambda: follower.status.source == "journal") < 5
