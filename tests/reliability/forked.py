"""Processes for tests, forked from a server that has imported everything already: milliseconds each."""

from __future__ import annotations

from multiprocessing import get_context

FORKED = get_context("forkserver")

# Also what the registry imports late, so that a traced operation opens no files but its own.
FORKED.set_forkserver_preload([
    "pytest", "_strptime", "numpy", "psycopg", "alembic.command", "alembic.config",
    "sqlalchemy.dialects.postgresql.psycopg", "sqlalchemy.dialects.sqlite.pysqlite",
    "tests.reliability.driver", "tests.reliability.clients",
])  # fmt: skip
