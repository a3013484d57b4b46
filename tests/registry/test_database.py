"""Databases: durable, of the right schema, made whole or not at all, silent about passwords."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import traceback
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.config import Config
from alembic.script import ScriptDirectory

from foreword.errors import ConfigError, RegistryError, StorageError
from foreword.registry.database import MIGRATIONS, SCHEMA, SCHEMA_TABLE, Database, parse_url
from foreword.registry.entries import GENESIS, Approved
from foreword.registry.journal import Journal
from tests.registry import servers
from tests.registry.children import start, wait
from tests.registry.samples import NAME, by, facts

ROOT = Path(__file__).parents[2]
EVENT = Approved(NAME, facts().digest)


@pytest.fixture
def empty(database_url: str) -> Database:
    """A database without a schema."""
    database = Database(database_url)
    database.create()
    return database


def ask(database: Database, statement: str) -> object:
    return database.run(lambda connection: connection.exec_driver_sql(statement).scalar())


def do(database: Database, statement: str) -> None:
    database.run(lambda connection: connection.exec_driver_sql(statement))


def test_the_code_reads_the_newest_schema() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_heads() == [SCHEMA]


def test_a_new_database_has_no_schema_and_migrating_gives_it_one(empty: Database) -> None:
    assert empty.schema() is None
    with pytest.raises(RegistryError, match="foreword registry migrate") as caught:
        empty.check()
    assert caught.value.code == "registry.schema_old"
    for _ in range(3):
        empty.migrate()
        empty.check()
    assert empty.schema() == SCHEMA
    Journal(empty).append(GENESIS, EVENT, by())


@pytest.mark.parametrize(
    ("found", "code", "otherwise"),
    [("0000", "schema_old", "schema_unknown"), ("0042", "schema_new", "schema_new")],
)
def test_another_schema_is_refused_with_what_to_do(
    database: Database, found: str, code: str, otherwise: str
) -> None:
    Journal(database).append(GENESIS, EVENT, by())
    do(database, f"UPDATE {SCHEMA_TABLE} SET version_num = '{found}'")  # noqa: S608  constants
    with pytest.raises(RegistryError, match="foreword registry migrate") as caught:
        database.check()
    assert caught.value.code == f"registry.{code}"
    with pytest.raises(RegistryError) as caught:
        database.migrate()
    assert caught.value.code == f"registry.{otherwise}"
    assert len(list(Journal(database).read())) == 1


def test_two_who_migrate_at_once_both_succeed(empty: Database, database_url: str) -> None:
    children = [start(lambda: Database(database_url).migrate()) for _ in range(4)]
    assert [wait(child) for child in children] == [0, 0, 0, 0]
    empty.check()


def test_migrating_may_be_killed_before_any_statement(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    killed = 0
    urls = [f"sqlite:///{tmp_path / 'journal.db'}", request.getfixturevalue("postgres_url")]
    for url in urls:
        database = Database(url)
        database.create()
        while wait(start(partial(migrate_a_little, url, statements=killed))) == -signal.SIGKILL:
            killed += 1
            assert database.schema() is None
            assert not database.run(lambda c: sa.inspect(c).has_table("journal"))
        database.check()
        Journal(database).append(GENESIS, EVENT, by())
        assert killed > 6
        killed = 0


def migrate_a_little(url: str, statements: int) -> None:
    """Migrate, and die before the statement after so many."""
    left = statements

    def count(*_: object) -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    sa.event.listen(sa.Engine, "before_cursor_execute", count)
    Database(url).migrate()


def test_what_is_acknowledged_is_synced(database: Database) -> None:
    if database.is_sqlite:
        assert ask(database, "PRAGMA journal_mode") == "wal"
        assert ask(database, "PRAGMA synchronous") == 2  # FULL
    else:
        assert ask(database, "SHOW synchronous_commit") == "on"
        assert ask(database, "SHOW statement_timeout") == "30s"


def test_a_server_that_does_not_sync_is_told_to(postgres_url: str) -> None:
    for setting, expected in (("off", "on"), ("local", "local"), ("remote_apply", "remote_apply")):
        url = f"{postgres_url}%20-csynchronous_commit%3D{setting}"
        with contextlib.closing(Database(url)) as database:
            assert ask(database, "SHOW synchronous_commit") == expected


def test_looking_makes_no_database(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'none.db'}")
    with pytest.raises(StorageError):
        database.schema()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "journal.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(StorageError) as caught:
        Database(f"sqlite:///{tmp_path / 'journal.db'}").check()
    assert caught.value.code == "storage.damaged"


def test_a_writer_that_does_not_finish_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foreword.registry.database._BUSY_SECONDS", 0.2)
    path = tmp_path / "journal.db"
    database = Database(f"sqlite:///{path}")
    database.create()
    database.migrate()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError) as caught:
            Journal(database).append(GENESIS, EVENT, by())
        assert caught.value.code == "storage.busy"
        assert list(Journal(database).read()) == []  # readers do not wait
    Journal(database).append(GENESIS, EVENT, by())


def test_a_full_database_says_so(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    database = Database(f"sqlite:///{path}")
    database.create()
    database.migrate()
    do(database, f"PRAGMA max_page_count = {ask(database, 'PRAGMA page_count')}")
    head, written = GENESIS, 0
    code = None
    while code is None:
        try:
            head = Journal(database).append(head, EVENT, by(reason="x" * 2000)).head
            written += 1
        except StorageError as e:
            code = e.code
    assert code == "storage.full"
    database.close()
    assert len(list(Journal(Database(f"sqlite:///{path}")).read())) == written


def test_a_server_that_comes_back_is_used_again(tmp_path: Path) -> None:
    with servers.postgres() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGPASSWORD", server.password)
        with contextlib.closing(Database(server.url)) as database:
            database.migrate()
            journal = Journal(database)
            first = journal.append(GENESIS, EVENT, by())
            # Every connection in the pool is dead now, and nobody has told it.
            server.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'foreword'"
            )
            assert list(journal.read()) == [first]
            server.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'foreword'"
            )
            second = journal.append(first.head, EVENT, by())
            server.process.send_signal(signal.SIGQUIT)
            server.process.wait()
            with pytest.raises(StorageError) as caught:
                journal.append(second.head, EVENT, by())
            assert caught.value.code == "storage.database"


# Secrets.

SECRET = "hunter2-hunter2"  # noqa: S105  that is the point


def test_a_password_is_never_shown() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    database = Database(f"postgresql://user:{SECRET}@127.0.0.1:{port}/name")
    assert SECRET not in repr(database) + database.shown
    with pytest.raises(StorageError) as caught:
        database.check()
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert "user:***@127.0.0.1" in str(caught.value)


def test_a_wrong_password_is_not_repeated(postgres_url: str) -> None:
    url = postgres_url.replace("postgres@", f"postgres:{SECRET}@")
    with pytest.raises(StorageError) as caught:
        Database(url).check()
    assert "authentication" in str(caught.value)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "url",
    [
        f"mysql://user:{SECRET}@host/name", f"not a url {SECRET}", "sqlite://", "sqlite:///:memory:",
        f"postgresql://host/name?password={SECRET}", f"postgresql://host/name?sslpassword={SECRET}", "",
    ],
)  # fmt: skip
def test_other_databases_are_refused_without_repeating_the_url(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_url(url)
    assert caught.value.code == "registry.database"
    assert SECRET not in str(caught.value)


def test_without_the_driver_it_says_what_to_install() -> None:
    script = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from foreword.errors import ConfigError\n"
        "from foreword.registry.database import Database\n"
        "try: Database('postgresql://host/name')\n"
        "except ConfigError as e: print(e.code, e)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment
    )
    assert "registry.driver" in run.stdout, run.stderr
    assert "foreword[postgres]" in run.stdout
