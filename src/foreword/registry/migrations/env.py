"""How Alembic runs here: on the connection it is given, inside the transaction that is open on it."""

from alembic import context

from foreword.registry.database import SCHEMA_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=SCHEMA_TABLE)
with context.begin_transaction():
    context.run_migrations()
