"""Copies of a database in use, and what an upgrade leaves for going back."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections import namedtuple
from contextlib import closing
from pathlib import Path

from sqlalchemy import create_engine
from sqlalchemy.pool import StaticPool
from twisted.trial.unittest import SynchronousTestCase

from cubehook.config import Webhook
from cubehook.records import DeliveryStatus
from cubehook.store import copying, keyfile, migrate, schema
from cubehook.store.copying import CopyError
from cubehook.store.errors import StoreError
from tests.store.support import NOON, SECOND, StoreCase, until

Usage = namedtuple("Usage", "total used free")
CRM = Webhook(id="crm", url="https://api.yourcrm.example/calls", secret="whsec_" + "QUFB" * 8)


def dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


class CopyTests(StoreCase):
    async def test_what_is_committed_is_in_it(self) -> None:
        store = await self.opened()
        await store.provision([], [CRM], at=NOON, overlap=0)
        call = self.made.call()
        await store.accept(None, [call], [], [])
        done, *pending = self.made.deliveries(call, 3)
        await self.keep(store, [done, *pending])
        await store.record(*self.made.tried(done, DeliveryStatus.DELIVERED))
        target = self.path.with_name("copy.db")
        copying.copy(self.path, target)
        self.assertEqual(target.stat().st_mode & 0o777, 0o600)
        self.assertEqual(dump(target), dump(self.path))
        copying.check(target)
        found = copying.facts(target)
        self.assertEqual((found.revision, found.calls, found.events), (schema.REVISION, 1, 3))
        self.assertEqual((found.deliveries, found.pending), (3, 2))
        self.assertEqual(found.last_event_at, pending[-1].event.at)
        copying.see_that_key_fits(target, self.path.with_name(keyfile.NAME))
        self.assertEqual(copying.forget_pending(target), 2)
        again = copying.facts(target)
        self.assertEqual((again.deliveries, again.pending), (3, 0))
        # And the service goes on with what it has.
        self.assertEqual((await store.pending_counts())["crm"], 2)

    async def test_it_is_of_one_moment_while_others_write(self) -> None:
        store = await self.opened()
        await store.close()
        stop = threading.Event()
        written = 0

        def write() -> None:
            nonlocal written
            with closing(sqlite3.connect(self.path, isolation_level=None, timeout=10)) as connection:
                while not stop.is_set():
                    # Both or none, as a call and its event are.
                    connection.execute("BEGIN IMMEDIATE")
                    for table in ("first", "second"):
                        connection.execute(f"INSERT INTO {table} VALUES (zeroblob(4000))")
                    connection.execute("COMMIT")
                    written += 1

        with closing(sqlite3.connect(self.path)) as connection:
            connection.executescript("CREATE TABLE first (x); CREATE TABLE second (x)")
        thread = threading.Thread(target=write)
        thread.start()
        try:
            for number in range(5):
                await until(lambda most=20 * (number + 1): written >= most)
                before = written
                target = self.path.with_name(f"{number}.db")
                copying.copy(self.path, target)
                copying.check(target)
                with closing(sqlite3.connect(target)) as connection:
                    counts = [
                        connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
                        for table in ("first", "second")
                    ]
                self.assertEqual(counts[0], counts[1])
                self.assertGreaterEqual(counts[0], before)
        finally:
            stop.set()
            thread.join()

    async def test_nothing_is_left_beside_a_database_that_nobody_uses(self) -> None:
        await (await self.opened()).close()
        copying.copy(self.path, self.path.with_name("copy.db"))
        names = sorted(path.name for path in self.path.parent.iterdir())
        self.assertEqual(names, ["copy.db", "cubehook.db", "cubehook.lock", "secret.key"])

    async def test_what_cannot_be_copied(self) -> None:
        with self.assertRaisesRegex(CopyError, "there is no database"):
            copying.copy(self.path, self.path.with_name("copy.db"))
        self.path.parent.mkdir(parents=True)
        self.path.write_bytes(b"certainly not a database " * 500)
        with self.assertRaisesRegex(CopyError, "cannot be copied"):
            copying.copy(self.path, self.path.with_name("copy.db"))
        self.assertEqual([path.name for path in self.path.parent.iterdir()], ["cubehook.db"])

    async def test_damage_is_found(self) -> None:
        store = await self.opened()
        for _ in range(200):
            call = self.made.call()
            await store.accept(None, [call], [], [])
        await store.close()
        data = bytearray(self.path.read_bytes())
        middle = len(data) // 2
        data[middle : middle + 20_000] = bytes(20_000)
        self.path.write_bytes(data)
        with self.assertRaisesRegex(CopyError, "is damaged"):
            copying.check(self.path)

    async def test_another_key_does_not_fit(self) -> None:
        store = await self.opened()
        await store.provision([], [CRM], at=NOON, overlap=0)
        await store.close()
        other = self.path.with_name("other.key")
        keyfile.keys(other, may_make=True)
        with self.assertRaisesRegex(CopyError, "other.key is not the key"):
            copying.see_that_key_fits(self.path, other)


class UpgradeTests(StoreCase):
    """A database of the revision before this one is opened."""

    def setUp(self) -> None:
        super().setUp()
        self.path.parent.mkdir(parents=True)
        self.before = copying.known_revisions()[-2]
        newest = schema.REVISION
        self.patch(schema, "REVISION", self.before)
        engine = create_engine("sqlite://", creator=lambda: sqlite3.connect(self.path), poolclass=StaticPool)
        with engine.begin() as connection:
            migrate.upgrade(connection, None, "old")
        engine.dispose()
        self.patch(schema, "REVISION", newest)
        self.sql("INSERT INTO cubes VALUES ('hq', 0, '{}')")
        self.sql("PRAGMA user_version = 1")

    def sql(self, statement: str) -> None:
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            connection.execute(statement)

    async def refused(self) -> str:
        with self.assertRaises(StoreError) as caught:
            await self.opened(now=lambda: NOON)
        return str(caught.exception)

    def copies(self) -> list[str]:
        return [path.name for path in copying.kept_copies(self.path)]

    async def test_a_copy_is_kept(self) -> None:
        old = dump(self.path)
        await self.opened(now=lambda: NOON)
        (copy,) = copying.kept_copies(self.path)
        self.assertEqual(copy.name, f"cubehook-{self.before}-20241123T120000Z.db")
        self.assertEqual(dump(copy), old)
        modes = [path.stat().st_mode & 0o777 for path in (copy.parent, copy)]
        self.assertEqual(modes, [0o700, 0o600])
        self.assertEqual(self.rows("SELECT version_num FROM alembic_version"), [(schema.REVISION,)])

    async def test_no_more_than_three_and_one_of_each_revision(self) -> None:
        folder = self.path.parent / copying.FOLDER
        folder.mkdir()
        for name in (
            "0000-20240101T000000Z",
            "0002-20240401T000000Z",
            "0001-20240301T000000Z",
            "0009-20240201T000000Z",
        ):
            (folder / f"cubehook-{name}.db").touch()
        (folder / "mine.db").touch()
        await self.opened(now=lambda: NOON)
        self.assertEqual(
            self.copies(),
            [
                "cubehook-0009-20240201T000000Z.db",
                "cubehook-0001-20240301T000000Z.db",
                f"cubehook-{self.before}-20241123T120000Z.db",
            ],
        )
        self.assertTrue((folder / "mine.db").exists())

    async def test_a_clock_that_is_behind_does_not_take_the_newest_for_the_oldest(self) -> None:
        folder = self.path.parent / copying.FOLDER
        folder.mkdir()
        for name in (
            f"{self.before}-20250101T000000Z",
            *(f"000{each}-2025020{each}T000000Z" for each in "789"),
        ):
            (folder / f"cubehook-{name}.db").touch()
        old = dump(self.path)
        await self.opened(now=lambda: NOON)
        self.assertEqual(
            sorted(self.copies()),
            [
                f"cubehook-{self.before}-20241123T120000Z.db",
                "cubehook-0008-20250208T000000Z.db",
                "cubehook-0009-20250209T000000Z.db",
            ],
        )
        self.assertEqual(dump(folder / f"cubehook-{self.before}-20241123T120000Z.db"), old)

    async def test_without_room_nothing_is_migrated(self) -> None:
        old = dump(self.path)
        self.patch(shutil, "disk_usage", lambda folder: Usage(10**9, 10**9 - 1_500_000, 1_500_000))
        text = await self.refused()
        self.assertRegex(
            text, r"before its migration needs [67]\d\.\d MB in \S+/backup, where 1\.5 MB are free"
        )
        self.assertIn("Nothing was migrated", text)
        self.assertEqual((dump(self.path), self.copies()), (old, []))

    async def test_one_that_breaks_halfway_leaves_all_as_it_was(self) -> None:
        # The last table that the migration makes is there already.
        made = [name for name in schema.metadata.tables if name not in self.tables()]
        self.sql(f"CREATE TABLE {made[-1]} (mine)")
        old = dump(self.path)
        text = await self.refused()
        self.assertIn(f"could not be migrated from schema {self.before} to {schema.REVISION}", text)
        self.assertRegex(text, r"already exists\. A copy of it is \S+/backup/cubehook-\S+\.db")
        self.assertEqual(dump(self.path), old)

    def tables(self) -> list[str]:
        return [name for (name,) in self.rows("SELECT name FROM sqlite_master WHERE type = 'table'")]

    async def test_a_newer_one_is_refused_and_the_way_back_is_told(self) -> None:
        await (await self.opened(now=lambda: NOON)).close()
        (copy,) = copying.kept_copies(self.path)
        (copy.parent / "cubehook-9998-20250101T000000Z.db").touch()
        self.sql("UPDATE alembic_version SET version_num = '9999'")
        text = await self.refused()
        self.assertIn(f"its schema is 9999, this version knows {schema.REVISION}", text)
        self.assertIn(f"cubehook restore --force --state-dir {self.path.parent} {copy}", text)

    async def test_one_with_plain_text_is_told_of(self) -> None:
        self.sql("PRAGMA user_version = 0")
        warned: list[str] = []
        self.patch(copying._log, "warn", lambda text, **values: warned.append(text))
        await self.opened(now=lambda: SECOND)
        self.assertEqual(len(warned), 1)
        self.assertIn("in plain text", warned[0])


class RevisionTests(SynchronousTestCase):
    def test_those_that_are_known(self) -> None:
        known = copying.known_revisions()
        self.assertEqual((known[0], known[-1]), ("0001", schema.REVISION))
