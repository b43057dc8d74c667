"""Alembic's entry: runs migrations on the connection that `cubehook.store.migrate` hands over."""

from alembic import context

from cubehook.store.schema import metadata

connection = context.config.attributes["connection"]
# SQLite's DDL takes part in transactions; ours is begun, and committed, by whoever called.
context.configure(connection=connection, target_metadata=metadata, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
