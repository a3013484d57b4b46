"""A registry is made once, found again, and its file holds no secrets."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from foreword.errors import ConfigError, NotFound, RegistryError
from foreword.registry.layout import FILE, Layout, init, registry_path
from foreword.registry.registry import Registry
from tests.registry.children import start, wait
from tests.registry.samples import BASE, by


def test_making_a_registry_twice_changes_nothing(place: Layout) -> None:
    with Registry.open(place.directory) as registry:
        entry = registry.declare_base(BASE, by=by())
    written = (place.directory / FILE).read_bytes()
    assert init(place) == place
    assert (place.directory / FILE).read_bytes() == written
    assert Layout.load(place.directory) == place
    with Registry.open(place.directory) as registry:
        assert registry.refresh().head == entry.head


def test_a_registry_with_other_settings_is_not_replaced(tmp_path: Path) -> None:
    made = init(Layout(tmp_path / "registry"))
    for other in (replace(made, approvals=2), replace(made, blobs="elsewhere")):
        with pytest.raises(RegistryError) as caught:
            init(other)
        assert caught.value.code == "registry.exists"
    assert Layout.load(made.directory) == made
    assert not (made.directory / "elsewhere").exists()


def test_two_machines_share_a_database(tmp_path: Path, postgres_url: str) -> None:
    settings = {"database": postgres_url, "blobs": str(tmp_path / "blobs")}
    first, second = (init(Layout(tmp_path / name, **settings)) for name in ("a", "b"))
    with Registry.open(first.directory) as a, Registry.open(second.directory) as b:
        entry = a.declare_base(BASE, by=by())
        assert b.refresh().head == entry.head


def test_making_it_does_not_migrate_what_others_use(tmp_path: Path, postgres_url: str) -> None:
    layout = init(Layout(tmp_path / "a", database=postgres_url))
    database = layout.open_database()
    database.run(
        lambda c: c.exec_driver_sql("UPDATE foreword_schema SET version_num = '0000'") and None
    )
    with pytest.raises(RegistryError, match="foreword registry migrate") as caught:
        init(replace(layout, directory=tmp_path / "b"))
    assert caught.value.code == "registry.schema_old"
    database.close()


def test_where_a_registry_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOREWORD_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("FOREWORD_REGISTRY", raising=False)
    assert registry_path() == tmp_path / "home" / "registry"
    with pytest.raises(NotFound, match="foreword registry init") as caught:
        Registry.open()
    assert caught.value.code == "registry.missing"
    init(Layout(tmp_path / "named"))
    monkeypatch.setenv("FOREWORD_REGISTRY", str(tmp_path / "named"))
    with Registry.open() as registry:
        assert registry.database.path == tmp_path / "named" / "journal.db"
    assert not (tmp_path / "home").exists()


def test_looking_for_a_registry_makes_none(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        Registry.open(tmp_path / "registry")
    assert list(tmp_path.iterdir()) == []


SECRET = "hunter2-hunter2"  # noqa: S105  that is the point


@pytest.mark.parametrize(
    "settings",
    [
        {"database": f"postgresql://user:{SECRET}@host/name"},
        {"database": f"postgresql://host/name?password={SECRET}"},
        {"blobs": f"s3://user:{SECRET}@bucket/x"},
        {"blobs": f"s3://bucket/x?secret={SECRET}"},
    ],
)
def test_a_secret_is_refused_and_not_written(settings: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        init(Layout(tmp_path / "registry", **settings))
    assert SECRET not in str(caught.value)
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes()


def test_a_secret_that_somebody_wrote_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(f'schema = 1\ndatabase = "postgresql://u:{SECRET}@h/n"\n')
    with pytest.raises(ConfigError) as caught:
        Layout.load(tmp_path)
    assert caught.value.code == "registry.secret"
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "code", "hint"),
    [
        ("schema = 1\ndatabse = 'x'", "config.unknown_key", "did you mean 'database'"),
        ("schema = 2", "registry.layout", "another version"),
        ("", "registry.layout", "schema = 1"),
        ("schema = 1\napprovals = '2'", "registry.layout", "expected int"),
        ("schema = 1\napprovals = true", "registry.layout", "expected int"),
        ("schema = 1\napprovals = -1", "registry.approvals", "0 to 16"),
        ("schema = 1\nblobs = 7", "registry.layout", "expected str"),
        ("schema = ", "registry.layout", "TOML"),
        ("\udcff", "registry.layout", "TOML"),
        ("schema = 1\ndatabase = 'oracle://h/n'", "registry.database", "no support"),
        ("schema = 1\n'\\u001b[31m' = 1", "config.unknown_key", "known are"),
    ],
)
def test_a_malformed_file_says_what_is_wrong(
    text: str, code: str, hint: str, tmp_path: Path
) -> None:
    (tmp_path / FILE).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError, match=hint) as caught:
        Layout.load(tmp_path)
    assert caught.value.code == code
    assert "\x1b" not in str(caught.value)


def test_settings_of_any_letters_are_read_back(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "registry", blobs='bl öbs "\U0001d54f" \\ #', approvals=3)
    init(layout)
    assert Layout.load(layout.directory) == layout
    assert (tmp_path / "registry" / layout.blobs).is_dir()


def test_a_making_that_was_killed_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Killed at each sync: that is where something became durable and the next did not.
    real, kills = os.fsync, 0
    while True:
        layout = Layout(tmp_path / str(kills) / "registry")
        left = kills

        def count(descriptor: int) -> None:
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            real(descriptor)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", count)
            killed = wait(start(lambda layout=layout: init(layout)))  # type: ignore[misc]
        if killed == 0:
            break
        assert killed == -signal.SIGKILL
        with contextlib.suppress(NotFound):  # it is not there yet, or it is whole
            Registry.open(layout.directory).close()
        init(layout)
        with Registry.open(layout.directory) as registry:
            registry.declare_base(BASE, by=by())
        kills += 1
    assert kills >= 5
