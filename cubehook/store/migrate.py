"""
A database brought to this version's schema.

Alembic costs a fifth of a second and ten megabytes to import, so it is imported only for a
database that an older cubehook wrote.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, Engine, insert, inspect, select
from twisted.logger import Logger

from cubehook.store import schema, sqlite
from cubehook.store.errors import StoreError

MIGRATIONS = Path(__file__).parent / "migrations"

_log = Logger()


def prepare(engine: Engine, name: str) -> None:
    """
    Create the tables, or migrate them, in one transaction; nothing if they are up to date.

    Raises StoreError for a database of another program or of a newer cubehook.  `name` is
    what messages call the database.
    """
    with engine.connect() as connection:
        found = _version(connection, name)
        if found == schema.REVISION:
            return
    with engine.begin() as connection:
        if found is None:
            schema.metadata.create_all(connection)
            schema.version.create(connection)
            connection.execute(insert(schema.version).values(version_num=schema.REVISION))
            sqlite.mark_clean(connection)
        else:
            upgrade(connection, found, name)


def _version(connection: Connection, name: str) -> str | None:
    """The revision the database is at, None if it has no tables."""
    tables = inspect(connection).get_table_names()
    if not tables:
        return None
    found: str | None = (
        connection.scalar(select(schema.version.c.version_num)) if schema.version.name in tables else None
    )
    if found is None:
        raise StoreError(f"{name} is not a cubehook database: it holds tables of another program")
    return found


def upgrade(connection: Connection, found: str | None, name: str) -> None:
    """Run every migration after `found` (None: all of them) in the transaction of `connection`."""
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    if found is not None:
        try:
            ScriptDirectory.from_config(config).get_revision(found)
        except CommandError:
            raise StoreError(
                f"{name} was written by a newer cubehook (its schema is {found}, this version knows "
                f"{schema.REVISION}): run that version, or start with another state_dir"
            ) from None
        _log.info(
            "Migrating {name} from schema {found} to {wanted}", name=name, found=found, wanted=schema.REVISION
        )
    command.upgrade(config, schema.REVISION)
