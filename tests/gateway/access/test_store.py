"""The table in a file: changes are whole, none is lost, and damage leaves the last good table in use."""

from __future__ import annotations

import json
import os
import signal
import stat
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from foreword.errors import ConfigError, Conflict, StorageError
from foreword.registry.entries import By
from foreword.serving.gateway.access.form import table_from_bytes, table_to_bytes
from foreword.serving.gateway.access.issuers import Issuer
from foreword.serving.gateway.access.keys import believe, issue
from foreword.serving.gateway.access.kills import Kill
from foreword.serving.gateway.access.store import FILE, LOG, AccessStore
from foreword.serving.gateway.access.table import AccessTable
from foreword.serving.gateway.access.tenants import Limits, Tenant
from tests.gateway.access.samples import BY, NOW, table_of, with_key
from tests.registry.children import start, wait

WRITERS, CHANGES = 4, 15


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def add(name: str) -> Callable[[AccessTable], AccessTable]:
    return lambda table: table.with_tenant(Tenant(name))


def full() -> AccessTable:
    table = table_of(
        Tenant(
            "acme", ("other/*", "third/x"), True, "acme/safe", Limits(10, 0, None), note="größe"
        ),
        Tenant("other", enabled=False),
    )
    table, _, _ = with_key(table, "acme", only=("acme/x", "base"), expires=NOW, note="ci")
    table, _, key_id = with_key(table, "", limits=Limits(streams=1))
    table = table.with_revoked(key_id, NOW).with_kill("acme/x@1.0.0", Kill("leak", "me", NOW))
    table = table.with_killed_tenant("gone", Kill("spam", "me", NOW))
    issuer = Issuer("https://id.example.com", "foreword", ("acme",), leeway=0)
    return replace(table, issuers={issuer.url: issuer}, generation=7)


def test_a_table_comes_back_as_it_was_written() -> None:
    table = full()
    assert table_from_bytes(table_to_bytes(table)) == table
    assert table_to_bytes(table_from_bytes(table_to_bytes(table))) == table_to_bytes(table)


def test_the_first_change_begins_the_file_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    store = AccessStore(tmp_path / "gateway")
    assert store.table() == AccessTable()
    assert store.change(add("acme"), BY).generation == 1
    for name in (FILE, LOG):
        assert stat.S_IMODE((tmp_path / "gateway" / name).stat().st_mode) == 0o600
    assert AccessStore(tmp_path / "gateway").table() == store.table()


def test_a_change_holds_here_at_once_and_elsewhere_within_a_second(tmp_path: Path) -> None:
    clock = Clock()
    here = AccessStore(tmp_path, clock)
    here.change(add("acme"), BY)
    there = AccessStore(tmp_path, clock)
    here.change(add("other"), BY)
    assert "other" in here.table().tenants
    clock.now = 0.9  # nobody asked for so long, so this one waits for the file
    assert "other" in there.table().tenants


def test_a_busy_process_reads_the_file_beside_its_requests(tmp_path: Path) -> None:
    here, there = AccessStore(tmp_path), AccessStore(tmp_path)
    here.change(add("acme"), BY)
    since = time.monotonic()
    while "acme" not in there.table().tenants:
        assert time.monotonic() - since < 1.0
        time.sleep(0.01)


def test_a_change_that_changes_nothing_writes_nothing(tmp_path: Path) -> None:
    store = AccessStore(tmp_path)
    store.change(add("acme"), BY)
    before = store.path.stat().st_mtime_ns, (tmp_path / LOG).read_bytes()
    assert store.change(add("acme"), BY).generation == 1
    assert (store.path.stat().st_mtime_ns, (tmp_path / LOG).read_bytes()) == before


def test_a_change_of_what_somebody_changed_since_is_refused(tmp_path: Path) -> None:
    one, two = AccessStore(tmp_path), AccessStore(tmp_path)
    seen = one.change(add("acme"), BY).generation
    two.change(add("other"), BY, expect=seen)
    with pytest.raises(Conflict) as refused:
        one.change(add("third"), BY, expect=seen)
    assert refused.value.code == "access.conflict"
    assert set(one.change(add("third"), BY).tenants) == {"acme", "other", "third"}


def test_a_change_that_refuses_leaves_everything(tmp_path: Path) -> None:
    store = AccessStore(tmp_path)
    store.change(add("acme"), BY)
    before = store.path.read_bytes()
    with pytest.raises(ConfigError):
        store.change(lambda table: table.with_kill("no such thing!", Kill("x", "me", NOW)), BY)
    assert store.path.read_bytes() == before
    assert store.state().code == ""


def test_many_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    def write(who: int) -> None:
        store = AccessStore(tmp_path)
        for i in range(CHANGES):
            store.change(add(f"t{who}-{i}"), By(f"w{who}", NOW))

    children = [start(lambda who=who: write(who)) for who in range(WRITERS)]  # type: ignore[misc]
    assert [wait(child) for child in children] == [0] * WRITERS
    table = AccessStore(tmp_path).table()
    assert table.generation == WRITERS * CHANGES
    assert len(table.tenants) == WRITERS * CHANGES
    log = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert [line["generation"] for line in log] == list(range(1, WRITERS * CHANGES + 1))
    assert {(line["actor"], *line["changed"]) for line in log} == {
        (f"w{who}", f"tenants.t{who}-{i}") for who in range(WRITERS) for i in range(CHANGES)
    }


def test_a_writer_that_is_killed_leaves_a_whole_table_and_what_it_acknowledged(
    tmp_path: Path,
) -> None:
    acknowledged = tmp_path / "acknowledged"
    acknowledged.touch()

    def write() -> None:
        store = AccessStore(tmp_path / "gateway")
        with acknowledged.open("a") as told:
            for i in range(len(store.table().tenants), 100_000):
                store.change(add(f"t{i}"), BY)
                print(f"t{i}", file=told, flush=True)

    for kills in range(1, 6):
        child = start(write)
        time.sleep(0.15)
        os.kill(child, signal.SIGKILL)
        assert wait(child) == -signal.SIGKILL
        table = AccessStore(tmp_path / "gateway").table()
        told = acknowledged.read_text().split()
        assert set(told) <= set(table.tenants)
        assert table.generation == len(table.tenants) <= len(told) + kills
    assert told


DAMAGE = [
    (b"", "access.form"),
    (b"{", "access.form"),
    (b"[]", "access.form"),
    (b"\xff", "access.form"),
    (b"[" * 100_000, "access.form"),
    (b'{"schema": "foreword.access/2"}', "access.form"),
]


@pytest.mark.parametrize(("data", "code"), DAMAGE)
def test_a_damaged_file_leaves_the_last_good_table_and_is_told(
    tmp_path: Path, data: bytes, code: str
) -> None:
    clock = Clock()
    store = AccessStore(tmp_path, clock)
    store.change(lambda table: with_key(add("acme")(table), "acme")[0], BY)
    good, whole = store.table(), store.path.read_bytes()
    store.path.write_bytes(data)
    clock.now += 1
    assert store.table() == good
    assert store.state().code == code
    with pytest.raises(ConfigError):  # what cannot be read cannot be changed without losing it
        store.change(add("other"), BY)
    with pytest.raises(ConfigError):
        AccessStore(tmp_path)
    assert store.table() == good
    assert store.path.read_bytes() == data
    store.path.write_bytes(whole)
    clock.now += 1
    assert store.table() == good
    assert store.state().code == ""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"base": true', '"base": true, "base": false'),
        ('"base": true', '"base": 1'),
        ('"base": true', '"bas": true'),
        ('"generation": 7', '"generation": -1'),
        ('"generation": 7', '"generation": true'),
        ('"scopes": ["admin"]', '"scopes": ["admin", "generate"]'),
        ('"requests": 10', '"requests": 10.5'),
        ("2026-03-01T12:00:00Z", "2026-03-01"),
        ('"acme": {', '"Acme": {'),
        ('"leeway": 0', '"leeway": 61'),
        ('["RS256", "ES256"]', '["HS256"]'),
        ("https://id.example.com", "http://id.example.com"),
        ('"issuers": {', '"issuer": {'),
        ('"tenant": "acme"', '"tenant": "nobody"'),
    ],
)  # fmt: skip
def test_a_file_that_says_what_cannot_be_is_refused(old: str, new: str) -> None:
    text = table_to_bytes(full()).decode()
    assert old in text
    with pytest.raises(ConfigError) as refused:
        table_from_bytes(text.replace(old, new, 1).encode())
    assert refused.value.code in {"access.form", "access.value"}


def test_a_file_that_is_gone_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    clock = Clock()
    store = AccessStore(tmp_path, clock)
    store.change(add("acme"), BY)
    store.path.unlink()
    clock.now += 1
    assert "acme" in store.table().tenants
    assert store.state().code == "access.missing"
    with pytest.raises(ConfigError) as refused:
        store.change(add("other"), BY)
    assert refused.value.code == "access.missing"


def test_a_link_to_the_file_is_followed_as_mounted_settings_are(tmp_path: Path) -> None:
    AccessStore(tmp_path / "real").change(add("acme"), BY)
    (tmp_path / "mounted").mkdir()
    (tmp_path / "mounted" / FILE).symlink_to(tmp_path / "real" / FILE)
    assert "acme" in AccessStore(tmp_path / "mounted").table().tenants


def test_a_disk_that_refuses_leaves_the_table_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    store, other = AccessStore(tmp_path, clock), AccessStore(tmp_path, clock)
    other.change(add("acme"), BY)
    read = Path.stat

    def broken(path: Path, **how: bool) -> os.stat_result:
        if path.name == FILE:
            raise OSError(5, "Input/output error")
        return read(path, **how)

    monkeypatch.setattr(Path, "stat", broken)
    clock.now += 1
    assert store.table() == AccessTable()
    assert store.state().code == "storage.read"
    monkeypatch.setattr(Path, "stat", read)
    clock.now += 1
    assert "acme" in store.table().tenants
    assert store.state().code == ""


def test_a_directory_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        AccessStore(tmp_path / "file" / "gateway").change(add("acme"), BY)


def test_neither_the_file_nor_the_log_holds_what_a_key_is_used_with(tmp_path: Path) -> None:
    store = AccessStore(tmp_path)
    text, record = issue("acme", NOW)
    store.change(lambda table: add("acme")(table).with_key(record), BY)
    store.change(lambda table: table.with_revoked(record.id, NOW), BY)
    written = store.path.read_text() + (tmp_path / LOG).read_text()
    assert text.split("_", 2)[2] not in written
    assert record.sha256 not in (tmp_path / LOG).read_text()
    assert record.id in (tmp_path / LOG).read_text()


def test_a_revocation_in_another_process_ends_a_key(tmp_path: Path) -> None:
    clock = Clock()
    here, there = AccessStore(tmp_path, clock), AccessStore(tmp_path, clock)
    text, record = issue("acme", NOW)
    here.change(lambda table: add("acme")(table).with_key(record), BY)
    clock.now += 1
    assert believe(there.table(), f"Bearer {text}", NOW).key_id == record.id
    here.change(lambda table: table.with_revoked(record.id, NOW), BY)
    clock.now += 1
    with pytest.raises(Exception, match="revoked"):
        believe(there.table(), f"Bearer {text}", NOW)
