"""What a store opens, what it makes, and what it refuses with words."""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
from pathlib import Path
from typing import Any

from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, insert
from sqlalchemy.exc import OperationalError
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import SynchronousTestCase

from cubehook.store import migrate, schema, sqlite
from cubehook.store.errors import StoreError
from tests.store.support import NOON, StoreCase, until


class OpeningTests(StoreCase):
    async def refused(self) -> str:
        """What opening the store says."""
        with self.assertRaises(StoreError) as caught:
            await self.store().open()
        return str(caught.exception)

    async def test_makes_its_folder_and_a_file_that_only_its_user_reads(self) -> None:
        store = await self.opened()
        await store.accept(None, [self.made.call()], [], [])
        for name in ("cubehook.db", "cubehook.db-wal"):
            self.assertEqual((self.path.parent / name).stat().st_mode & 0o777, 0o600)

    async def test_nothing_is_touched_before_it_opens(self) -> None:
        store = self.store()
        await store.close()
        self.assertFalse(self.path.parent.exists())

    async def test_opens_again_what_it_closed(self) -> None:
        store = await self.opened()
        call = self.made.call()
        await store.accept(None, [call], [], [])
        await store.close()
        # Everything is in the one file then.
        self.assertEqual(sorted(os.listdir(self.path.parent)), ["cubehook.db", "cubehook.lock", "secret.key"])
        self.assertEqual(await (await self.opened()).open_calls(), [call])

    async def test_another_store_on_the_same_file_is_refused_until_this_one_closes(self) -> None:
        store = await self.opened()
        text = await self.refused()
        self.assertIn(f"in use by another cubehook (process {os.getpid()})", text)
        self.assertIn("state_dir", text)
        await store.close()
        await self.opened()

    async def test_another_process_is_refused_and_a_dead_one_leaves_no_lock(self) -> None:
        store = await self.opened()
        lock = "from pathlib import Path; import sys, os; from cubehook.store.sqlite import Lock; "
        take = lock + "Lock(Path(sys.argv[1])).acquire(); print('taken'); os._exit(0)"
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

        async def other() -> tuple[bytes, bytes, int]:
            arguments = ["-c", take, str(self.path)]
            found: tuple[bytes, bytes, int] = await getProcessOutputAndValue(
                sys.executable, arguments, env=environment
            )
            return found

        output, errors, status = await other()
        self.assertEqual((output, status), (b"", 1))
        self.assertIn(b"in use by another cubehook", errors)
        await store.close()
        output, errors, status = await other()
        self.assertEqual((output, status), (b"taken\n", 0), errors)
        await self.opened()

    async def test_a_folder_that_cannot_be_made_is_named(self) -> None:
        self.path.parent.parent.mkdir(parents=True, exist_ok=True)
        self.path.parent.write_text("a file")
        text = await self.refused()
        self.assertIn(f"the state folder {self.path.parent} cannot be used", text)

    async def test_files_that_are_no_database_are_refused_and_left_alone(self) -> None:
        self.path.parent.mkdir(parents=True)
        for content in (b"short", b"not a database. " * 1000):
            self.path.write_bytes(content)
            text = await self.refused()
            self.assertIn(f"{self.path} cannot be opened: file is not a database", text)
            self.assertEqual(self.path.read_bytes(), content)

    async def test_a_folder_in_its_place_is_refused(self) -> None:
        self.path.mkdir(parents=True)
        self.assertIn(f"{self.path} cannot be opened", await self.refused())

    async def test_a_database_of_another_program_is_refused(self) -> None:
        self.path.parent.mkdir(parents=True)
        connection = sqlite3.connect(self.path)
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
        connection.close()
        self.assertIn("is not a cubehook database", await self.refused())
        self.assertEqual(self.rows("SELECT name FROM sqlite_master"), [("bookmarks",)])

    async def test_a_newer_schema_is_refused(self) -> None:
        await (await self.opened()).close()
        connection = sqlite3.connect(self.path)
        with connection:
            connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.close()
        text = await self.refused()
        self.assertIn("was written by a newer cubehook (its schema is 9999", text)
        self.assertEqual(self.rows("SELECT version_num FROM alembic_version"), [("9999",)])

    async def test_a_locked_database_is_refused_with_the_reason(self) -> None:
        self.path.parent.mkdir(parents=True)
        self.patch(sqlite, "LOCK_WAIT", 0.05)
        connection = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(connection.close)
        connection.execute("BEGIN EXCLUSIVE")
        self.assertIn("locked", await self.refused())
        connection.close()
        await self.opened()

    async def test_can_be_closed_while_it_opens(self) -> None:
        store = self.store()
        opening = Deferred.fromCoroutine(store.open())
        opening.cancel()
        _ = opening.addErrback(lambda _: None)
        await store.close()
        await self.opened()

    async def test_gives_its_threads_back(self) -> None:
        store = await self.opened()
        await gatherResults([Deferred.fromCoroutine(store.open_calls()) for _ in range(5)])
        await store.accept(None, [self.made.call()], [], [])
        await store.close()
        await until(lambda: not [each for each in threading.enumerate() if each.name.startswith("cubehook")])

    async def test_neither_a_new_nor_a_current_database_needs_alembic(self) -> None:
        check = (
            "import sys; from pathlib import Path; from cubehook.store import migrate, sqlite; "
            "path = Path(sys.argv[1]); migrate.prepare(sqlite.writer_engine(path), path, 0); "
            "print('alembic' in sys.modules, 'cubehook.store.copying' in sys.modules)"
        )
        self.path.parent.mkdir(parents=True)
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        for _ in range(2):
            output, errors, _ = await getProcessOutputAndValue(
                sys.executable, ["-c", check, str(self.path)], env=environment
            )
            self.assertEqual(output, b"False False\n", errors)

    async def test_reading_cannot_write(self) -> None:
        store = await self.opened()

        def write(connection: Any) -> None:
            connection.execute(insert(schema.cubes).values(id="hq", provisioned=True, settings="{}"))

        with self.assertRaises(StoreError) as caught:
            await store.read(write)
        self.assertIn("readonly", str(caught.exception))
        self.assertIsInstance(caught.exception.__cause__, OperationalError)


class MigrationTests(SynchronousTestCase):
    def engine(self) -> Engine:
        path = Path(self.mktemp())
        path.mkdir()
        engine = sqlite.writer_engine(path / "cubehook.db")
        self.addCleanup(engine.dispose)
        return engine

    def tables(self, engine: Engine) -> dict[str, Any]:
        """Every table and index, with its SQL free of layout and its columns."""
        with engine.connect() as connection:
            found = connection.exec_driver_sql(
                "SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"
            ).all()
            return {
                name: (
                    " ".join(sql.split()),
                    connection.exec_driver_sql(f"PRAGMA table_info({name})").all(),
                )
                for name, sql in found
                if name != "alembic_version"
            }

    def test_migrating_from_nothing_makes_what_a_new_database_has(self) -> None:
        new, migrated = self.engine(), self.engine()
        migrate.prepare(new, Path("new"), NOON)
        with migrated.begin() as connection:
            migrate.upgrade(connection, None, "migrated")
        expected = self.tables(new)
        indexes = {index.name for table in schema.metadata.tables.values() for index in table.indexes}
        self.assertEqual(set(expected), {*schema.metadata.tables, *indexes})
        self.assertEqual(self.tables(migrated), expected)
        # And what migrations made is current.
        migrate.prepare(migrated, Path("migrated"), NOON)

    def test_the_revision_is_the_newest_migration(self) -> None:
        config = Config()
        config.set_main_option("script_location", str(migrate.MIGRATIONS))
        config.set_main_option("path_separator", "os")
        self.assertEqual(ScriptDirectory.from_config(config).get_heads(), [schema.REVISION])

    def test_a_migration_that_fails_leaves_the_database_as_it_was(self) -> None:
        engine = self.engine()
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE attempts (id INTEGER)")
        with self.assertRaises(OperationalError), engine.begin() as connection:
            migrate.upgrade(connection, None, "it")
        self.assertEqual(list(self.tables(engine)), ["attempts"])
