"""Processes that write at once, and are killed while they do: nothing is lost, nothing is half there."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from foreword.errors import Conflict
from foreword.registry.layout import Layout, init
from foreword.registry.registry import Registry
from foreword.registry.state import State, fold
from tests.registry.children import start, wait
from tests.registry.samples import NAME, NOW, POLICY, by, publish

WRITERS, CHANGES, KILLS = 4, 10, 6


@pytest.fixture(params=["sqlite", "postgres"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Layout:
    """A registry that several processes use."""
    settings = {}
    if request.param == "postgres":
        settings["database"] = request.getfixturevalue("postgres_url")
    return init(Layout(tmp_path / "registry", **settings))


def lines(path: Path) -> Iterator[list[str]]:
    for line in path.read_text().splitlines():
        yield line.split()


def test_a_generation_is_changed_by_one_writer_only(shared: Layout, tmp_path: Path) -> None:
    with Registry.open(shared.directory) as registry:
        publish(registry)

    def write(who: int) -> None:
        """Changes, each only if nobody has changed the name since it was looked at."""
        with (
            Registry.open(shared.directory) as registry,
            (tmp_path / f"done-{who}").open("w") as done,
        ):
            for i in range(CHANGES):
                for _ in range(1000):
                    seen = registry.show(NAME).generation
                    with contextlib.suppress(Conflict):
                        approver = by(f"w{who}-{i}")
                        entry = registry.approve(f"{NAME}@1.0.0", by=approver, expect=seen)
                        print(seen, entry.seq, file=done, flush=True)
                        break

    children = [start(lambda who=who: write(who)) for who in range(WRITERS)]  # type: ignore[misc]
    time.sleep(0.2)
    os.kill(children[0], signal.SIGSTOP)  # somebody who is very slow must not hold the others
    assert [wait(child) for child in children[1:]] == [0] * (WRITERS - 1)
    os.kill(children[0], signal.SIGCONT)
    assert wait(children[0]) == 0
    done = sorted(
        (int(seq), int(seen))
        for who in range(WRITERS)
        for seen, seq in lines(tmp_path / f"done-{who}")
    )
    # What each writer saw is the change right before its own: no update was lost.
    assert [seen for _, seen in done] == [2, *(seq for seq, _ in done[:-1])]
    assert len(done) == WRITERS * CHANGES
    with Registry.open(shared.directory) as registry:
        assert registry.refresh() == fold(State(), registry.log())
        assert len(registry.resolve(f"{NAME}@1.0.0").version.approvals) == WRITERS * CHANGES


def test_a_kill_leaves_whole_versions_and_all_that_were_acknowledged(
    shared: Layout, tmp_path: Path
) -> None:
    known = tmp_path / "acknowledged"
    known.touch()

    def write() -> None:
        """Publish and release one version after the other, until the end comes."""
        with Registry.open(shared.directory) as registry, known.open("a") as acknowledged:
            newest = len(registry.refresh().versions)
            for number in range(newest, 10_000):
                artifact = publish(registry, f"{number}.0.0")
                print(number, artifact.digest, file=acknowledged, flush=True)
                registry.release(str(artifact.digest), policy=POLICY, by=by())

    chance = random.Random(7)
    for _ in range(KILLS):
        before = known.stat().st_size
        child = start(write)
        while known.stat().st_size == before:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.08))
        os.kill(child, signal.SIGKILL)
        assert wait(child) == -signal.SIGKILL
        with Registry.open(shared.directory) as registry:
            state = registry.refresh()
            assert {digest for _, digest in lines(known)} <= {str(d) for d in state.versions}
            for digest in state.versions:
                assert registry.fetch(digest, POLICY, NOW).digest == digest
            newest = max(state.versions.values(), key=lambda version: version.published.seq)
            # Whatever the last one had come to, doing it again is safe.
            again = publish(registry, newest.version)
            assert again.digest == newest.digest
            registry.release(str(again.digest), policy=POLICY, by=by())
            assert registry.resolve(NAME).digest == newest.digest
    assert len(list(lines(known))) >= KILLS
