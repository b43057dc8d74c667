"""
A database brought to this version's schema.

Alembic costs a fifth of a second and ten megabytes to import, so it is imported only for a
database that an older cubehook wrote.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import Connection, Engine, insert, inspect, select
from twisted.logger import Logger

from cubehook.events import Micros
from cubehook.store import schema, sqlite
from cubehook.store.errors import StoreError

MIGRATIONS = Path(__file__).parent / "migrations"

_log = Logger()


def prepare(engine: Engine, database: Path, now: Micros) -> None:
    """
    Create the tables in the file `database`, or migrate them, in one transaction; nothing if that was done.

    A copy is made before a migration (`cubehook.store.copying`).  Raises StoreError for a database of
    another program or of a newer cubehook, and when it could not be copied or migrated; then it is as it was.
    """
    name = str(database)
    with engine.connect() as connection:
        found = _version(connection, name)
    if found == schema.REVISION:
        return
    if found is None:
        with engine.begin() as connection:
            schema.metadata.create_all(connection)
            schema.version.create(connection)
            connection.execute(insert(schema.version).values(version_num=schema.REVISION))
            sqlite.mark_clean(connection)
        return

    from cubehook.store import copying

    known = copying.known_revisions()
    if found not in known:
        raise StoreError(_newer(database, found, copying.kept_copies(database, known)))
    copy = copying.before_migration(database, found, now)
    try:
        with engine.begin() as connection:
            upgrade(connection, found, name)
    except Exception as error:
        raise StoreError(
            f"{name} could not be migrated from schema {found} to {schema.REVISION}, and is as it was: "
            f"{sqlite.advice(error)}. A copy of it is {copy}"
        ) from error


def _newer(database: Path, found: str, copies: Sequence[Path]) -> str:
    """What to do about a database of a newer cubehook."""
    words = (
        f"{database} was written by a newer cubehook (its schema is {found}, this version knows "
        f"{schema.REVISION}): run that version, or start with another state_dir"
    )
    if not copies:
        return words
    return (
        f"{words}. Or go back to how it was before the upgrade, without what happened since: "
        f"cubehook restore --force --state-dir {database.parent} {copies[-1]}"
    )


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

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    if found is not None:
        _log.info(
            "Migrating {name} from schema {found} to {wanted}", name=name, found=found, wanted=schema.REVISION
        )
    command.upgrade(config, schema.REVISION)
