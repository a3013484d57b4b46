"""The database behind the journal: SQLite in a file by default, PostgreSQL by URL.

Every statement is its own transaction, and one that was acknowledged is on disk: SQLite writes a log
ahead (WAL) and syncs it at each commit (`synchronous=FULL`), PostgreSQL is told not to skip that.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from foreword.artifact.disk import sync_directory
from foreword.errors import ConfigError, RegistryError, StorageError
from foreword.registry.directory import make

SCHEMA = "0001"
"""The newest migration, which this code reads and writes."""
SCHEMA_TABLE = "foreword_schema"
MIGRATIONS = Path(__file__).parent / "migrations"

_T = TypeVar("_T")
_BUSY_SECONDS = 10
"""How long to wait for another writer of a SQLite file."""
_ATTEMPTS = 3
_PAUSE_SECONDS = 0.2
_MIGRATION_LOCK = 0x666F7265776F7264
"""An advisory lock of PostgreSQL is a number; this one spells foreword."""

# A dead network is noticed within half a minute, a stuck statement as well.
_POSTGRES = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    "application_name": "foreword",
}
_SETTLE = """
SELECT set_config('statement_timeout', '30s', false),
       set_config('synchronous_commit', CASE setting WHEN 'off' THEN 'on' ELSE setting END, false)
FROM pg_settings WHERE name = 'synchronous_commit'
"""

_SQLITE_CODES = {
    "SQLITE_FULL": ("storage.full", "free some space and try again"),
    # There was no room for the index of the log, which is needed even to read.
    "SQLITE_IOERR_SHMSIZE": ("storage.full", "free some space and try again"),
    "SQLITE_BUSY": ("storage.busy", "somebody else is writing; try again"),
    "SQLITE_CORRUPT": ("storage.damaged", "restore it from a backup"),
    "SQLITE_NOTADB": ("storage.damaged", "restore it from a backup"),
}
_POSTGRES_CODES = {
    "53100": ("storage.full", "free some space on the server and try again"),
    "57014": ("storage.busy", "the statement took longer than 30 s; try again"),
    "55P03": ("storage.busy", "somebody else is writing; try again"),
}


class Database:
    """A pool of connections. Nothing is opened before it is used."""

    def __init__(self, url: str) -> None:
        """
        Raises:
            ConfigError: the URL is for neither database, or the driver is not installed.
        """
        self._url = parse_url(url)
        self.is_sqlite = self._url.get_backend_name() == "sqlite"
        self._engine = _sqlite(self.path) if self.is_sqlite else _postgres(self._url)

    def __repr__(self) -> str:
        return f"Database({self.shown})"

    @property
    def shown(self) -> str:
        """The URL for people, without a password."""
        return self._url.render_as_string(hide_password=True)

    @property
    def path(self) -> Path:
        """The file of a SQLite database."""
        return Path(self._url.database or "")

    def run(self, work: Callable[[sa.Connection], _T]) -> _T:
        """Do `work` on a connection, and again on another one if the first turned out to be dead.

        So `work` must bear being done twice; its first try may have been committed.

        Raises:
            StorageError: the database could not be reached, or refused.
            IntegrityError: a row that has to be unique is there already.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with self._engine.connect() as connection:
                    return work(connection)
            except IntegrityError:
                raise
            except DBAPIError as e:
                if attempt == _ATTEMPTS or not e.connection_invalidated:
                    raise self._failure(e.orig) from e
                time.sleep(_PAUSE_SECONDS * attempt)
            except PoolTimeout as e:
                raise StorageError(
                    f"all connections to {self.shown} are in use; try again", code="storage.busy"
                ) from e
        raise AssertionError("the last attempt returns or raises")

    def run_whole(self, work: Callable[[sa.Connection], _T]) -> _T:
        """As `run`, with all statements of `work` in one transaction: all of them count, or none.

        Raises:
            StorageError, IntegrityError: as `run`.
        """

        def transaction(connection: sa.Connection) -> _T:
            # Begun by hand because every statement is its own otherwise.
            connection.exec_driver_sql("BEGIN IMMEDIATE" if self.is_sqlite else "BEGIN")
            try:
                result = work(connection)
                connection.exec_driver_sql("COMMIT")
            except BaseException:
                connection.invalidate()  # closing it rolls back, whatever state it is in
                raise
            return result

        return self.run(transaction)

    def create(self) -> None:
        """Make the file of a SQLite database if it is not there; a PostgreSQL database has to exist.

        Raises:
            StorageError: the disk refused.
        """
        if not self.is_sqlite:
            return
        try:
            make(self.path.parent)
            _connect_sqlite(self.path, "rwc").close()
            sync_directory(self.path.parent)
        except (OSError, sqlite3.Error) as e:
            raise self._failure(e) from e

    def schema(self) -> str | None:
        """The newest migration that was applied; None if there is no journal.

        Raises:
            StorageError: the database could not be read.
        """

        def read(connection: sa.Connection) -> str | None:
            if not sa.inspect(connection).has_table(SCHEMA_TABLE):
                return None
            version: str | None = connection.exec_driver_sql(
                f"SELECT version_num FROM {SCHEMA_TABLE}"  # noqa: S608  a constant
            ).scalar()
            return version

        return self.run(read)

    def check(self) -> None:
        """
        Raises:
            RegistryError: the schema is older or newer than this code (`registry.schema_old`,
                `registry.schema_new`).
            StorageError: the database could not be read.
        """
        found = self.schema()
        if found == SCHEMA:
            return
        if found is None or found < SCHEMA:
            raise RegistryError(
                f"the database {self.shown} has schema {found or 'none'}, this Foreword needs {SCHEMA}; "
                "run `foreword registry migrate`",
                code="registry.schema_old",
            )
        raise RegistryError(
            f"the database {self.shown} has schema {found[:40]!r}, this Foreword knows {SCHEMA} and "
            "`foreword registry migrate` does not go back; install the newer Foreword that made it",
            code="registry.schema_new",
        )

    def migrate(self) -> None:
        """Bring the schema up to date, all of it or nothing; a schema that is current stays as it is.

        Raises:
            RegistryError: the schema is newer than this code, or none that Foreword ever had.
            StorageError: the database refused; it is as it was.
        """
        from alembic.util import CommandError  # inside: only this needs Alembic, which loads slowly

        found = self.schema()
        if found is not None and found > SCHEMA:
            self.check()
        try:
            self.run_whole(self._upgrade)
        except CommandError as e:
            raise RegistryError(
                f"the database {self.shown} has schema {str(found)[:40]!r}, which is none of Foreword's; it "
                "belongs to something else",
                code="registry.schema_unknown",
            ) from e

    def close(self) -> None:
        self._engine.dispose()

    def _upgrade(self, connection: sa.Connection) -> None:
        from alembic import command
        from alembic.config import Config

        # A second process waits here (SQLite: where the transaction begins), and then finds nothing to do.
        if not self.is_sqlite:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        command.upgrade(config, SCHEMA)

    def _failure(self, cause: BaseException | None) -> StorageError:
        code, hint = "storage.database", "see that it runs and may be used"
        if isinstance(cause, sqlite3.Error):
            name = getattr(cause, "sqlite_errorname", "")
            code, hint = _SQLITE_CODES.get(
                name, (code, "see that the file may be read and written")
            )
        elif state := getattr(cause, "sqlstate", None):
            code, hint = _POSTGRES_CODES.get(state, (code, hint))
        said = str(cause).strip().splitlines() or ["no reason given"]
        # The server's words may quote what somebody put into the database.
        reason = "".join(c if c.isprintable() else "?" for c in said[0][:200])
        if self._url.password:
            reason = reason.replace(str(self._url.password), "***")
        return StorageError(f"the database {self.shown} refused ({reason}); {hint}", code=code)


def parse_url(text: str) -> sa.URL:
    """The URL of a database that can hold a journal.

    Raises:
        ConfigError: with code `registry.database`; the text is not repeated, it may hold a password.
    """
    try:
        url = sa.make_url(text)
    except ArgumentError as e:
        raise _unusable("it is not a URL") from e
    kind = url.get_backend_name()
    if kind == "sqlite":
        if not url.database or url.database == ":memory:":
            raise _unusable("a journal in memory would be lost")
        return url.set(drivername="sqlite")
    if kind in ("postgresql", "postgres"):
        if any("password" in key.lower() for key in url.query):
            raise _unusable("a password does not belong into its parameters; set PGPASSWORD")
        return url.set(drivername="postgresql+psycopg")
    raise _unusable(f"there is no support for {kind[:40]!r}")


def _unusable(why: str) -> ConfigError:
    return ConfigError(
        f"expected a database as sqlite:///PATH or postgresql://USER@HOST/NAME: {why}",
        code="registry.database",
    )


def _sqlite(path: Path) -> sa.Engine:
    return sa.create_engine(
        "sqlite://",
        creator=lambda: _connect_sqlite(path, "rw"),  # rw: looking at a registry makes none
        poolclass=sa.QueuePool,
        isolation_level="AUTOCOMMIT",
        hide_parameters=True,
    )


def _connect_sqlite(path: Path, mode: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"file:{quote(str(path.absolute()))}?mode={mode}",
        uri=True,
        timeout=_BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,  # the pool hands a connection to one thread at a time
    )
    try:
        (kept,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
        if kept != "wal":
            raise sqlite3.OperationalError(
                f"the file system cannot hold a WAL ({kept} was given); use a local disk"
            )
        connection.execute("PRAGMA synchronous=FULL")
    except BaseException:
        connection.close()
        raise
    return connection


def _postgres(url: sa.URL) -> sa.Engine:
    try:
        engine = sa.create_engine(
            url, isolation_level="AUTOCOMMIT", hide_parameters=True, connect_args=_POSTGRES
        )
    except ImportError as e:
        raise ConfigError(
            "a registry in PostgreSQL needs its driver: pip install 'foreword[postgres]'",
            code="registry.driver",
        ) from e
    event.listen(engine, "connect", _settle)
    return engine


def _settle(connection: Any, _record: Any) -> None:
    """A commit that was acknowledged must be on disk, and no statement waits for ever."""
    with connection.cursor() as cursor:
        cursor.execute(_SETTLE)
    connection.commit()
