"""Ten thousand versions of a thousand prefixes stay cheap.

The limits are several times what a quiet machine needs; `bench/` measures, this only notices when
something has become slow in kind: a scan where there was a look-up, a fold that copies.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from foreword.registry.entries import GENESIS, BaseDeclared, Entry, Event, Published, Released
from foreword.registry.layout import Layout, init
from foreword.registry.registry import Registry
from foreword.registry.state import State, fold
from tests.registry.samples import BASE, by, claim, facts

NAMES = [f"tenant{i % 100:02}/prefix{i:03}" for i in range(1000)]


def events() -> Iterator[Event]:
    yield BaseDeclared(BASE)
    for number in range(10):
        for name in NAMES:
            yield Published(facts(f"1.{number}.0", name), (claim(),))
    for name in NAMES:
        yield Released(name, facts("1.9.0", name).digest, 1)


@pytest.fixture(scope="module")
def entries() -> list[Entry]:
    made: list[Entry] = []
    for event in events():
        made.append(Entry.after(made[-1].head if made else GENESIS, event, by()))
    return made


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory, entries: list[Entry]) -> Iterator[Registry]:
    directory: Path = init(Layout(tmp_path_factory.mktemp("large") / "registry")).directory
    with Registry.open(directory) as registry:
        registry.journal.take_over(entries)
        yield registry


def milliseconds(work: Callable[[int], object], times: int) -> tuple[float, float]:
    """Median and 99th percentile."""
    taken = []
    for i in range(times):
        begin = time.perf_counter()
        work(i)
        taken.append(1000 * (time.perf_counter() - begin))
    taken.sort()
    return taken[times // 2], taken[times * 99 // 100]


def test_folding_is_linear(entries: list[Entry]) -> None:
    begin = time.perf_counter()
    state = fold(State(), entries)
    assert time.perf_counter() - begin < 2
    assert len(state.versions) == 10_000
    last = fold(State(), entries[:-1])
    median, _ = milliseconds(lambda _: fold(last, entries[-1:]), 20)
    assert median < 20


def test_opening_reads_everything_once(large: Registry) -> None:
    begin = time.perf_counter()
    large.refresh()
    assert time.perf_counter() - begin < 5
    median, _ = milliseconds(lambda _: large.refresh(), 200)
    assert median < 1


@pytest.mark.parametrize("form", ["{}", "{}@1.3.0", "{}@stable"])
def test_resolving_a_name_takes_no_search(large: Registry, form: str) -> None:
    large.refresh()
    median, p99 = milliseconds(lambda i: large.resolve(form.format(NAMES[i * 37 % 1000])), 500)
    assert median < 1
    assert p99 < 10


def test_a_page_takes_no_scan(large: Registry) -> None:
    large.refresh()
    median, p99 = milliseconds(lambda i: large.list("", NAMES[i * 7 % 900], 100), 100)
    assert median < 10
    assert p99 < 50
    assert len(large.list("tenant07/").names) == 10
