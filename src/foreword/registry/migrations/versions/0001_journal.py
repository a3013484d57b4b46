"""The journal: one row for each entry, in a chain that can only grow at its end."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_NOT_NEXT = (  # seq and previous of a new row against the last one; sixty-four zeros before the first
    "NEW.seq <> (SELECT coalesce(max(seq), 0) + 1 FROM journal) OR NEW.previous <> coalesce("
    "(SELECT hash FROM journal ORDER BY seq DESC LIMIT 1), "
    "'0000000000000000000000000000000000000000000000000000000000000000')"
)


def upgrade() -> None:
    op.create_table(
        "journal",
        # On SQLite only INTEGER makes the key the row's own number.
        sa.Column(
            "seq",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("previous", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False, unique=True),
        sa.Column("time", sa.String(20), nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("name", sa.String(127), nullable=True),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_index("journal_name", "journal", ["name", "seq"])
    guard = _on_postgres if op.get_bind().dialect.name == "postgresql" else _on_sqlite
    guard()


def _on_sqlite() -> None:
    for verb in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER journal_no_{verb.lower()} BEFORE {verb} ON journal "
            "BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END"
        )
    # Also stops INSERT OR REPLACE, which deletes without asking the trigger above.
    op.execute(
        f"CREATE TRIGGER journal_next BEFORE INSERT ON journal WHEN {_NOT_NEXT} "
        "BEGIN SELECT RAISE(ABORT, 'the entry does not follow the last one'); END"
    )


def _on_postgres() -> None:
    op.execute(
        "CREATE FUNCTION journal_append_only() RETURNS trigger LANGUAGE plpgsql AS $$ "
        "BEGIN RAISE EXCEPTION 'the journal is append-only'; END $$"
    )
    op.execute(
        "CREATE TRIGGER journal_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON journal "
        "FOR EACH STATEMENT EXECUTE FUNCTION journal_append_only()"
    )
    op.execute(
        "CREATE FUNCTION journal_next() RETURNS trigger LANGUAGE plpgsql AS $$ "
        f"BEGIN IF {_NOT_NEXT} THEN RAISE EXCEPTION 'the entry does not follow the last one' "
        "USING ERRCODE = 'integrity_constraint_violation'; END IF; "
        "RETURN NEW; END $$"
    )
    op.execute(
        "CREATE TRIGGER journal_next BEFORE INSERT ON journal "
        "FOR EACH ROW EXECUTE FUNCTION journal_next()"
    )
