"""The database itself: can it be read, is it whole, does it still refuse to change the past."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import sqlalchemy as sa

from foreword.errors import ForewordError
from foreword.registry.database import Database
from foreword.registry.fsck.finding import Finding, broken
from foreword.registry.tagged import tagged

RESTORE = "stop all writers and restore a backup"
_MOST = 20
"""Lines of one damaged database that are worth reading."""

# Name and text of every trigger on the journal, and of every rule, which could take its place.
_SQLITE = """
SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'journal'
"""
_POSTGRES = """
SELECT t.tgname::text, concat_ws(' ', t.tgtype, t.tgenabled, t.tgqual, p.prosrc)
FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
WHERE t.tgrelid = 'journal'::regclass AND NOT t.tgisinternal
UNION ALL
SELECT rulename::text, definition FROM pg_rules
WHERE schemaname = current_schema() AND tablename = 'journal'
"""
# Hashes of what migration 0001 makes; a test compares them with a fresh database.
_ON_SQLITE = {
    "journal_no_update": "bd5e778147bccc4155db919c799c7efdbdeb2f089f67feac91113d569244257b",
    "journal_no_delete": "ec8a3a2eb04d6b3906d76b0e8463aacc1f4f902bee266b7c9712fccaf9262977",
    "journal_next": "94dee48b1ad090e7b0c864457bd05d54bb4aa23862747862e8bfc3583f661cee",
}
_ON_POSTGRES = {
    "journal_no_change": "5e363c6b1a009cb73f7711bd51aa744092ad84c5709dbeadc22a26036bfc37aa",
    "journal_next": "d885743602cc8e741f5eefe735430b12460100e6f952ee08a6c6796828a50bfe",
}


def unreadable(database: Database) -> Finding | None:
    """Why there is no journal to look at, or None if there is one."""
    try:
        database.check()
    except ForewordError as e:
        code = "schema" if e.code.startswith("registry.schema") else "database"
        return broken(code, database.shown, str(e).partition("; ")[0], _mend(database, e.code))
    return None


def damage(database: Database) -> Iterator[Finding]:
    """What SQLite says about its own file. PostgreSQL keeps checksums itself, if told to at initdb."""
    if not database.is_sqlite:
        return
    for said in database.run(_integrity):
        if said != "ok":
            yield broken("database", database.shown, f"SQLite says {said[:200]!r}", RESTORE)


def guards(database: Database) -> Iterator[Finding]:
    """The triggers that make the journal append-only, whoever writes to it."""
    query, expected = (_SQLITE, _ON_SQLITE) if database.is_sqlite else (_POSTGRES, _ON_POSTGRES)
    found = {
        str(name): tagged("guard", str(text).encode()).hex()
        for name, text in database.run(lambda c: list(c.exec_driver_sql(query).fetchall()))
    }
    for name in sorted({*expected, *found}):
        if found.get(name) != expected.get(name):
            yield _guard(database, name, found, expected)


def _guard(
    database: Database, name: str, found: Mapping[str, str], expected: Mapping[str, str]
) -> Finding:
    what = "was changed" if name in found else "is gone"
    if name not in expected:
        what = "is not one of Foreword's"
    return broken(
        "guard",
        database.shown,
        f"the trigger {name[:80]!r} on the journal {what}, so the past can be rewritten",
        "find out who did it and what they wrote since; then `export` and `restore` into a new database, "
        "which has its triggers",
    )


def _mend(database: Database, code: str) -> str:
    if code == "registry.schema_old" and database.schema() is None:
        return (
            "see that the URL in registry.toml is right; if there was a journal restore a backup, else "
            "`foreword registry migrate` makes an empty one"
        )
    return {
        "registry.schema_old": "run `foreword registry migrate`",
        "registry.schema_new": "install the Foreword that made it",
    }.get(code, "see that it runs and may be read; if it is damaged, restore a backup")


def _integrity(connection: sa.Connection) -> list[str]:
    rows = connection.exec_driver_sql(f"PRAGMA integrity_check({_MOST})")
    return [str(row[0]) for row in rows]
