"""Counts that are exact, on disk once, and priced as the table says."""

from __future__ import annotations

import errno
import os
import signal
import time
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foreword.errors import ConfigError, StorageError
from foreword.telemetry.hub import Telemetry
from foreword.telemetry.records import Attached
from foreword.telemetry.usage import (
    Counts,
    Key,
    Price,
    Prices,
    UsageSink,
    read_prices,
    read_usage,
)  # fmt: skip
from foreword.telemetry.usage.rows import decode, encode
from tests.registry.children import start, wait
from tests.telemetry.made import NOW, finished, loaded

PRICES = Prices(
    "EUR", Price(Decimal("0.1"), Decimal("0.02"), Decimal("0.4")),
    {"acme/faq": Price(completion=Decimal(1))},
)  # fmt: skip
DAY = 86_400


class Clock:
    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("usage-*"))


def test_counts_are_kept_apart_by_tenant_prefix_version_and_hour(tmp_path: Path) -> None:
    sink = UsageSink(tmp_path, PRICES)
    for record in (
        finished(), finished(), finished(status=503, completion_tokens=0),
        finished(tenant="other"), finished(attached=Attached()), finished(time=NOW + 3600),
    ):  # fmt: skip
        sink.take(record)
    sink.take(loaded())
    sink.close()
    usage = read_usage(tmp_path)
    assert len(usage.rows) == 4
    key = Key("2026-09-21T14", "acme", "acme/support", "1.2.0", "EUR")
    counts = usage.rows[key]
    assert (counts.requests, counts.errors, counts.prompt_tokens) == (3, 1, 300)
    assert (counts.cached_tokens, counts.completion_tokens) == (180, 22)
    assert counts.seconds == pytest.approx(3.3)
    assert counts.cost == Decimal("0.0244")  # 3 * (40 * 0.1 + 60 * 0.02) / 1000 + 22 * 0.4 / 1000


def test_totals_are_of_a_tenant_and_since_an_hour(tmp_path: Path) -> None:
    sink = UsageSink(tmp_path, PRICES)
    for hours in range(3):
        sink.take(finished(time=NOW + hours * 3600))
    sink.take(finished(tenant="other", attached=Attached()))
    sink.close()
    usage = read_usage(tmp_path)
    assert [(t.tenant, t.prefix, t.counts.requests) for t in usage.totals()] == [
        ("acme", "acme/support", 3), ("other", "base", 1),
    ]  # fmt: skip
    since = datetime.fromtimestamp(NOW + 3600, UTC)
    (total,) = usage.totals("acme", since)
    assert total.counts.requests == 2
    assert total.currency == "EUR"
    assert usage.totals("nobody") == ()


def test_a_new_price_table_changes_nothing_that_was_counted(tmp_path: Path) -> None:
    for prices in (PRICES, Prices("USD", Price(prompt=Decimal(1)))):
        sink = UsageSink(tmp_path, prices)
        sink.take(finished())
        sink.close()
    costs = {total.currency: total.counts.cost for total in read_usage(tmp_path).totals()}
    assert costs == {"EUR": Decimal("0.0096"), "USD": Decimal("0.04")}


def test_replicas_are_added_up(tmp_path: Path) -> None:
    for name in ("a", "b"):
        sink = UsageSink(tmp_path / name)
        sink.take(finished())
        sink.close()
    (total,) = read_usage([tmp_path / "a", tmp_path / "b"]).totals()
    assert total.counts.requests == 2


def test_what_was_counted_is_written_after_the_interval_without_more_traffic(
    tmp_path: Path,
) -> None:
    clock = Clock()
    sink = UsageSink(tmp_path, interval=5, clock=clock)
    sink.take(finished())
    sink.rest()
    assert read_usage(tmp_path).rows == {}
    clock.now += 5
    sink.rest()
    assert len(read_usage(tmp_path).rows) == 1
    sink.close()


def test_a_day_is_folded_into_one_line_and_loses_nothing(tmp_path: Path) -> None:
    clock = Clock()
    sink = UsageSink(tmp_path, interval=1, clock=clock)
    for day in range(3):
        for minute in range(50):
            clock.now = NOW + day * DAY + minute * 60
            sink.take(finished(time=clock.now))
            sink.rest()
    assert files(tmp_path) == [
        "usage-00000001.jsonl", "usage-00000002.jsonl", "usage-00000003.open.jsonl",
    ]  # fmt: skip
    assert len((tmp_path / "usage-00000002.jsonl").read_bytes().splitlines()) == 1
    sink.close()
    (total,) = read_usage(tmp_path).totals()
    assert total.counts.requests == 150
    assert total.counts.prompt_tokens == 15_000


def test_only_one_process_counts_in_a_directory(tmp_path: Path) -> None:
    first = UsageSink(tmp_path)
    with pytest.raises(StorageError) as caught:
        UsageSink(tmp_path)
    assert caught.value.code == "storage.busy"
    first.close()
    UsageSink(tmp_path).close()


def test_a_torn_last_line_counts_for_nothing_and_nothing_is_put_behind_it(tmp_path: Path) -> None:
    sink = UsageSink(tmp_path)
    sink.take(finished())
    sink.close()
    torn = tmp_path / "usage-00000001.open.jsonl"
    with torn.open("ab") as file:
        file.write(torn.read_bytes()[:-20])
    assert read_usage(tmp_path).totals()[0].counts.requests == 1
    again = UsageSink(tmp_path)
    again.take(finished())
    again.close()
    usage = read_usage(tmp_path)
    assert (usage.totals()[0].counts.requests, usage.damaged) == (2, 0)


def test_a_damaged_line_is_told_and_its_file_is_left_as_it_is(tmp_path: Path) -> None:
    sink = UsageSink(tmp_path)
    sink.take(finished())
    sink.close()
    path = tmp_path / "usage-00000001.open.jsonl"
    path.write_bytes(b"\x00garbage\n" + path.read_bytes())
    before = path.read_bytes()
    UsageSink(tmp_path).close()
    assert path.read_bytes() == before
    usage = read_usage(tmp_path)
    assert (usage.damaged, usage.totals()[0].counts.requests) == (1, 1)


def test_a_fold_that_was_cut_short_counts_nothing_twice(tmp_path: Path) -> None:
    """At its worst moment: the closed file is there and the open one too."""
    sink = UsageSink(tmp_path)
    sink.take(finished())
    sink.close()
    open_file = tmp_path / "usage-00000001.open.jsonl"
    (tmp_path / "usage-00000001.jsonl").write_bytes(open_file.read_bytes())
    (tmp_path / "usage-00000007.tmp").write_bytes(b"half")
    assert read_usage(tmp_path).totals()[0].counts.requests == 1
    UsageSink(tmp_path).close()
    assert files(tmp_path) == ["usage-00000001.jsonl"]
    assert read_usage(tmp_path).totals()[0].counts.requests == 1


def test_a_full_disk_loses_nothing_that_was_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    sink = UsageSink(tmp_path, interval=1, clock=clock)
    sink.take(finished())
    write = os.write

    def half(file: int, data: bytes) -> int:
        if len(data) > 30:
            return write(file, data[:30])
        raise OSError(errno.ENOSPC, "No space left on device")

    clock.now += 1
    with monkeypatch.context() as full:
        full.setattr(os, "write", half)
        with pytest.raises(StorageError) as caught:
            sink.rest()
    assert caught.value.code == "storage.full"
    assert read_usage(tmp_path).rows == {}
    sink.take(finished())
    clock.now += 1
    sink.rest()
    sink.close()
    assert read_usage(tmp_path).totals()[0].counts.requests == 2


def test_kill_9_loses_at_most_what_was_not_written_and_counts_nothing_twice(
    tmp_path: Path,
) -> None:
    """Ten times in the same directory, at any moment: between, during and after writes."""
    directory, progress = tmp_path / "usage", tmp_path / "progress"
    before = 0
    for kill in range(10):
        progress.write_text("0 0")
        child = start(lambda: _count_for_ever(directory, progress))
        time.sleep(0.25 + kill * 0.013)
        os.kill(child, signal.SIGKILL)
        assert wait(child) == -signal.SIGKILL
        emitted, acknowledged = map(int, progress.read_text().split())
        counts = read_usage(directory).totals()[0].counts
        now = counts.requests - before
        assert acknowledged <= now <= emitted + 1
        assert counts.prompt_tokens == 100 * counts.requests
        assert counts.cost == counts.requests * Decimal("0.0096")
        before = counts.requests
    assert before > 100


def _count_for_ever(directory: Path, progress: Path) -> None:
    """A day a write, so that files are folded all the time as well."""
    clock = Clock()
    sink = UsageSink(directory, PRICES, interval=0, clock=clock)
    emitted = acknowledged = 0
    with progress.open("r+b", buffering=0) as file:

        def tell() -> None:
            os.pwrite(file.fileno(), f"{emitted:>12} {acknowledged:>12}".encode(), 0)

        while True:
            emitted += 1
            tell()
            sink.take(finished())
            if emitted % 7 == 0:
                clock.now += DAY / 2
                sink.rest()
                acknowledged = emitted
                tell()


def test_a_reader_beside_a_writer_sees_counts_that_only_grow(tmp_path: Path) -> None:
    directory, progress = tmp_path / "usage", tmp_path / "progress"
    progress.write_text("0 0")
    child = start(lambda: _count_for_ever(directory, progress))
    try:
        while not list(directory.glob("usage-*")):
            time.sleep(0.01)
        seen = []
        end = time.monotonic() + 0.7
        while time.monotonic() < end:
            emitted_before = int(progress.read_text().split()[1])
            totals = read_usage(directory).totals()
            seen.append(totals[0].counts.requests if totals else 0)
            assert seen[-1] >= emitted_before
        assert seen == sorted(seen)
        assert seen[-1] > 100
    finally:
        os.kill(child, signal.SIGKILL)
        wait(child)


def test_through_the_hub_all_is_there_after_close(tmp_path: Path) -> None:
    telemetry = Telemetry([UsageSink(tmp_path)])
    for _ in range(1000):
        telemetry.emit(finished())
    assert telemetry.close()
    assert read_usage(tmp_path).totals()[0].counts.requests == 1000


@given(
    st.dictionaries(
        st.builds(Key, *[st.text(max_size=8)] * 5),
        st.builds(
            Counts,
            *[st.integers(0, 2**60)] * 5,
            st.integers(0, 10**9).map(float),
            st.decimals(0, 10**9, places=7),
        ),
        max_size=5,
    )
)
def test_a_line_says_what_was_counted(rows: dict[Key, Counts]) -> None:
    assert decode(encode(rows)) == rows


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
@settings(max_examples=200)
def test_any_other_line_is_damaged(data: bytes) -> None:
    assert decode(data) in (None, {})


@pytest.mark.parametrize("line", [b'[{"hour":1}]', b"{}", b"[1]", b'[{"cost":"x"}]'])
def test_a_line_of_another_shape_is_damaged(line: bytes) -> None:
    assert decode(line) is None


def test_a_price_table_is_read_exactly(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(
        'currency = "EUR"\n[default]\nprompt = 0.1\ncached = 0.02\ncompletion = 0.4\n'
        '[prefixes."acme/faq"]\ncompletion = 1\n'
    )
    assert read_prices(path) == PRICES


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("currency = 3", "a short name"),
        ('[default]\nprompt = "1"', "a short name"),
        ('currency = "EUR"\n[default]\nprompt = "1"', "a price of 0 or more"),
        ('currency = "EUR"\n[default]\nprompt = -1', "a price of 0 or more"),
        ('currency = "EUR"\n[default]\nprompt = nan', "a price of 0 or more"),
        ('currency = "EUR"\n[default]\nprompt = true', "a price of 0 or more"),
        ('currency = "EUR"\n[default]\npromt = 1', "unknown 'promt'"),
        ('currency = "EUR"\nprefixes = 1', "a table"),
        ('currency = "EUR"\n[prefixes]\nbase = 1', "a table of prices"),
        ("currency =", "not valid TOML"),
    ],
)
def test_a_price_table_with_a_mistake_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_prices(path)
