"""Backups: what is in them, what is wrong with them, and what becomes of a folder."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tarfile
from contextlib import closing
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from cubehook import archive
from cubehook.archive import ArchiveError, Restored, Written
from cubehook.store import copying, keyfile, schema, sqlite
from cubehook.store.errors import StoreError
from cubehook.store.migrate import prepare
from cubehook.store.sealing import Sealer
from tests.store.support import NOON

STAMP = "20241123T120000Z"


class ArchiveCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.state = self.folder / "state"
        self.state.mkdir(parents=True)
        self.target = self.folder / "backup.tar"
        self.database = self.state / "cubehook.db"
        engine = sqlite.writer_engine(self.database)
        prepare(engine, self.database, NOON)
        engine.dispose()
        sealer = Sealer(keyfile.keys(self.state / keyfile.NAME, may_make=True))
        self.sql(
            "INSERT INTO webhooks (id, provisioned, settings, secret) VALUES ('crm', 0, ?, '')",
            sealer.seal("{}"),
        )
        for number, status in enumerate(("pending", "delivered", "pending"), 1):
            self.sql(
                "INSERT INTO deliveries (id, webhook, call, event, status, attempts, due_at, ready_at) "
                "VALUES (?, 'crm', 1, 1, ?, 0, 0, 0)",
                number,
                status,
            )
        for name, text in (
            ("admin-token", "cht_x"),
            ("ssh_host_ed25519_key", "a key"),
            ("out/events.jsonl", "{}\n"),
            ("log/cubehook.log", "said"),
            ("backup/cubehook-0002-20240101T000000Z.db", "old"),
            ("before-restore-20240101T000000Z/cubehook.db", "older"),
            ("admin-token.new", "half"),
            ("cubehook.lock", "1\n"),
        ):
            path = self.state / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
            path.chmod(0o600)

    def sql(self, statement: str, *values: Any, database: Path | None = None) -> list[Any]:
        with closing(sqlite3.connect(database or self.database, isolation_level=None)) as connection:
            return connection.execute(statement, values).fetchall()

    def write(self, *, logs: bool = False, key: bool = True, configuration: Path | None = None) -> Written:
        return archive.write(self.state, self.target, NOON, configuration=configuration, logs=logs, key=key)

    def restore(self, state: Path | None = None, **options: Any) -> Restored:
        return archive.restore(self.target, state or self.folder / "new", STAMP, **options)

    def names(self, folder: Path) -> list[str]:
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


class WriteTests(ArchiveCase):
    def test_what_is_in_it(self) -> None:
        written = self.write()
        self.assertEqual(self.target.stat().st_mode & 0o777, 0o600)
        self.assertEqual(
            sorted(written.manifest.files),
            [
                "state/admin-token",
                "state/cubehook.db",
                "state/out/events.jsonl",
                "state/secret.key",
                "state/ssh_host_ed25519_key",
            ],
        )
        self.assertEqual((written.size, written.left_out), (self.target.stat().st_size, []))
        self.assertEqual((written.manifest.facts.deliveries, written.manifest.facts.pending), (3, 2))
        self.assertEqual(self.names(self.folder)[0], "backup.tar")
        # Other programs can read it.
        with tarfile.open(self.target) as tar:
            names = tar.getnames()
        self.assertEqual(names[:2], ["backup.json", "state/cubehook.db"])
        self.assertEqual(set(names[1:]), set(written.manifest.files))

    def test_logs_and_no_key(self) -> None:
        written = self.write(logs=True, key=False)
        self.assertIn("state/log/cubehook.log", written.manifest.files)
        self.assertNotIn("state/secret.key", written.manifest.files)
        self.assertEqual(written.left_out, ["secret.key (as asked)"])

    def test_the_configuration_and_what_it_names(self) -> None:
        configuration = self.folder / "cubehook.toml"
        configuration.write_text(
            '[manhole]\nssh = "tcp:1"\nauthorized_keys = "keys"\npassword_file = "gone"\n'
        )
        (self.folder / "keys").write_text("ssh-ed25519 x")
        written = self.write(configuration=configuration)
        found = [name for name in written.manifest.files if name.startswith("configuration/")]
        self.assertEqual(found, ["configuration/cubehook.toml", "configuration/keys"])
        self.assertEqual(
            written.left_out, [f"{self.folder / 'gone'} (manhole.password_file: there is no such file)"]
        )

    def test_what_is_no_ordinary_file(self) -> None:
        (self.state / "link").symlink_to("/etc/passwd")
        os.mkfifo(self.state / "pipe")
        self.assertEqual(
            self.write().left_out, ["link (not an ordinary file)", "pipe (not an ordinary file)"]
        )

    def refused(self, words: str) -> None:
        before = self.names(self.folder)
        with self.assertRaisesRegex(ArchiveError, words):
            self.write()
        self.assertEqual(self.names(self.folder), before)

    def test_one_in_the_state_folder_itself_has_nothing_of_its_making(self) -> None:
        files = set(self.write().manifest.files)
        # Nor others that were made there, of which each would be twice as large as the last.
        for second in range(3):
            self.target = self.state / f"cubehook-20241123T12000{second}Z.tar"
            self.assertEqual(set(self.write().manifest.files), files)

    def test_nothing_is_written_over(self) -> None:
        self.target.write_text("mine")
        self.refused("is there already")
        self.assertEqual(self.target.read_text(), "mine")

    def test_no_room(self) -> None:
        self.patch(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(9, 9, 0))
        self.refused("a backup needs .* are free")

    def test_no_folder_and_no_database(self) -> None:
        self.target = self.folder / "nowhere" / "backup.tar"
        self.refused("nowhere")
        self.database.unlink()
        self.refused("no database in")

    def test_a_key_that_does_not_fit(self) -> None:
        (self.state / keyfile.NAME).unlink()
        keyfile.keys(self.state / keyfile.NAME, may_make=True)
        self.refused("secret.key is not the key")

    def test_what_was_not_written_as_it_should_be_is_no_backup(self) -> None:
        add = archive._add

        def ill(tar: Any, name: str, member: archive.Member, source: Any, at: int) -> None:
            if name.endswith("admin-token"):
                source = BytesIO(b"x" * member.size)
            add(tar, name, member, source, at)

        self.patch(archive, "_add", ill)
        self.refused("admin-token")

    def test_a_damaged_database(self) -> None:
        data = bytearray(self.database.read_bytes())
        data[8192:60000] = bytes(60000 - 8192)
        self.database.write_bytes(data)
        self.refused("damaged|malformed|not a cubehook database")


class RestoreTests(ArchiveCase):
    def test_there_and_back(self) -> None:
        self.write()
        new = self.folder / "new"
        restored = self.restore()
        self.assertEqual(
            self.names(new),
            [
                "admin-token",
                "cubehook.db",
                "cubehook.lock",
                "out/events.jsonl",
                "secret.key",
                "ssh_host_ed25519_key",
            ],
        )
        for name in ("admin-token", "secret.key", "out/events.jsonl"):
            self.assertEqual((new / name).read_bytes(), (self.state / name).read_bytes())
            self.assertEqual((new / name).stat().st_mode & 0o777, 0o600)
        self.assertEqual(
            (restored.made_at, restored.files, restored.aside, restored.forgotten, restored.migrates),
            (NOON, 5, None, 0, False),
        )
        query = "SELECT id, status FROM deliveries ORDER BY id"
        self.assertEqual(self.sql(query, database=new / "cubehook.db"), self.sql(query))

    def test_without_what_was_pending(self) -> None:
        self.write()
        self.assertEqual(self.restore(pending=False).forgotten, 2)
        query = "SELECT status, ready_at FROM deliveries ORDER BY id"
        self.assertEqual(
            self.sql(query, database=self.folder / "new" / "cubehook.db"),
            [("expired", None), ("delivered", 0), ("expired", None)],
        )

    def test_what_is_there_is_moved_only_if_that_was_asked_for(self) -> None:
        self.write()
        (self.state / "admin-token").write_text("later")
        before = self.names(self.state)
        with self.assertRaisesRegex(ArchiveError, "holds admin-token, .*--force.*before-restore-2024"):
            self.restore(self.state)
        self.assertEqual(self.names(self.state), before)
        restored = self.restore(self.state, force=True)
        aside = self.state / f"before-restore-{STAMP}"
        self.assertEqual(restored.aside, aside)
        self.assertEqual((aside / "admin-token").read_text(), "later")
        self.assertEqual((self.state / "admin-token").read_text(), "cht_x")
        # Logs and copies stay where they are.
        self.assertEqual((self.state / "log" / "cubehook.log").read_text(), "said")
        self.assertNotIn("log", os.listdir(aside))
        self.assertTrue((self.state / copying.FOLDER).is_dir())

    def test_a_folder_in_use(self) -> None:
        self.write()
        lock = sqlite.Lock(self.database)
        lock.acquire()
        self.addCleanup(lock.release)
        before = self.names(self.state)
        with self.assertRaisesRegex(StoreError, "in use by another cubehook"):
            self.restore(self.state, force=True)
        self.assertEqual(self.names(self.state), before)

    def test_the_configuration_goes_where_it_is_wanted(self) -> None:
        configuration = self.folder / "cubehook.toml"
        configuration.write_text("# mine\n")
        self.write(configuration=configuration)
        with self.assertRaisesRegex(ArchiveError, "is there already"):
            self.restore(configuration=configuration)
        self.assertEqual(self.names(self.folder / "new"), ["cubehook.lock"])
        self.restore(configuration=self.folder / "other.toml")
        self.assertEqual((self.folder / "other.toml").read_text(), "# mine\n")

    def test_a_copy_of_a_database_alone(self) -> None:
        copying.copy(self.database, self.target)
        self.sql("DELETE FROM deliveries")
        self.database.with_name("cubehook.db-wal").write_bytes(b"of the other")
        restored = self.restore(self.state, force=True)
        self.assertEqual((restored.made_at, restored.facts.pending), (None, 2))
        self.assertEqual(self.sql("SELECT count(*) FROM deliveries"), [(3,)])
        assert restored.aside is not None
        self.assertEqual(self.names(restored.aside), ["cubehook.db", "cubehook.db-wal"])
        self.assertEqual((self.state / "admin-token").read_text(), "cht_x")

    def test_a_copy_that_the_key_does_not_open(self) -> None:
        copying.copy(self.database, self.target)
        (self.state / keyfile.NAME).unlink()
        keyfile.keys(self.state / keyfile.NAME, may_make=True)
        before = self.names(self.state)
        self.refused("secret.key is not the key")
        self.assertEqual(self.names(self.state), before)

    def test_root_leaves_it_to_the_folders_owner(self) -> None:
        self.write()
        given: dict[str, tuple[int, int]] = {}

        def chown(path: Path, user: int, group: int, *, follow_symlinks: bool) -> None:
            self.assertFalse(follow_symlinks)
            given[path.name] = user, group

        self.patch(os, "geteuid", lambda: 0)
        self.patch(os, "chown", chown)
        restored = self.restore(self.state, force=True)
        assert restored.aside is not None
        mine = self.state.stat()
        for name in ("cubehook.db", "secret.key", "admin-token", "out", "cubehook.lock", restored.aside.name):
            self.assertEqual(given[name], (mine.st_uid, mine.st_gid), name)

    def test_a_database_with_a_log_beside_it_is_no_copy(self) -> None:
        with closing(sqlite3.connect(self.database)) as used:
            used.execute("PRAGMA journal_mode = WAL")
            used.execute("DELETE FROM deliveries")
            used.commit()
            shutil.copyfile(self.database, self.target)
            shutil.copyfile(f"{self.database}-wal", f"{self.target}-wal")
        self.refused("backup.tar-wal.* without which it is not whole")
        Path(f"{self.target}-wal").write_bytes(b"")
        self.restore(self.state, force=True)

    def test_what_fails_halfway_leaves_the_folder_as_it_was(self) -> None:
        configuration = self.folder / "cubehook.toml"
        configuration.write_text("# mine\n")
        self.write(configuration=configuration)
        (self.state / "admin-token").write_text("later")
        (self.state / "cubehook.lock").unlink()

        def digests() -> dict[str, str]:
            """Of all but the lock, which says whose it was last."""
            names = self.names(self.state)
            if "cubehook.lock" in names:
                names.remove("cubehook.lock")
            return {name: sha256((self.state / name).read_bytes()).hexdigest() for name in names}

        before = digests()

        def unchanged() -> None:
            self.assertEqual(digests(), before)

        nowhere = self.folder / "nowhere" / "cubehook.toml"
        with self.assertRaisesRegex(ArchiveError, "nowhere"):
            self.restore(self.state, force=True, configuration=nowhere)
        unchanged()
        rename, left = Path.rename, 0

        def break_off(path: Path, target: Path) -> Path:
            nonlocal left
            left -= 1
            if not left:
                raise OSError(5, "Input/output error", str(path))
            return rename(path, target)

        self.patch(Path, "rename", break_off)
        moves = 0
        other = self.folder / "other.toml"
        while True:
            moves += 1
            left = moves
            try:
                self.restore(self.state, force=True, configuration=other)
                break
            except ArchiveError as error:
                self.assertIn("Input/output error", str(error))
            unchanged()
            self.assertFalse(other.exists())
        # Each move broke off once.
        self.assertGreater(moves, 2 * 5)
        self.assertEqual((self.state / "admin-token").read_text(), "cht_x")

    def refused(self, words: str) -> None:
        with self.assertRaisesRegex(ArchiveError, words):
            self.restore(self.state, force=True)

    def test_an_older_and_a_newer_one(self) -> None:
        self.sql("UPDATE alembic_version SET version_num = '0002'")
        self.write()
        self.assertTrue(self.restore().migrates)
        self.sql("UPDATE alembic_version SET version_num = '9999'")
        self.target.unlink()
        copying.copy(self.database, self.target)
        before = self.names(self.state)
        self.refused("newer cubehook .its schema is 9999")
        self.assertEqual(self.names(self.state), before)

    def test_any_damage_is_found_before_anything_is_touched(self) -> None:
        self.write()
        whole = self.target.read_bytes()
        before = self.names(self.state)
        for at in range(0, len(whole) - 12_000, len(whole) // 40):
            self.target.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
            try:
                self.restore(self.folder / f"new{at}")
            except ArchiveError:
                continue
            # What stands between files is nobody's.
            with tarfile.open(self.target) as tar:
                self.assertNotIn(
                    at,
                    [
                        place
                        for entry in tar
                        for place in range(entry.offset_data, entry.offset_data + entry.size)
                    ],
                )
        for cut in (0, 100, 5_000, len(whole) // 2, len(whole) - 15_000):
            self.target.write_bytes(whole[:cut])
            self.refused("no backup|cut off|is missing")
        self.assertEqual(self.names(self.state), before)
        self.assertEqual(schema.REVISION, copying.known_revisions()[-1])

    def test_names_that_lead_out(self) -> None:
        written = self.write()
        for name in ("state/../../evil", "/state/evil", "evil", "state/..", "other/evil"):
            manifest = msgspec.structs.replace(written.manifest, files={name: archive.Member(1, "", 0o600)})
            self.forge(manifest, name)
            self.refused("names a file that no backup has")
        self.forge(written.manifest, "state/evil")
        self.refused("does not belong")
        self.forge(msgspec.structs.replace(written.manifest, format=2), "state/evil")
        self.refused("too old to read it")
        secret = self.folder / "secret"
        secret.write_text("of another user")
        member = archive.Member(1, sha256(b"x").hexdigest(), 0o600)
        for name in (str(secret), "../../../secret", "absent.toml"):
            files = {f"configuration/{name}": member} if name.startswith("/") else {"state/x": member}
            self.forge(
                msgspec.structs.replace(written.manifest, files=files, configuration=name), next(iter(files))
            )
            self.refused("names a configuration that it does not have")
        self.assertFalse((self.folder / "evil").exists())

    def forge(self, manifest: archive.Manifest, name: str) -> None:
        text = msgspec.json.encode(manifest)
        source = self.folder / "forged"
        source.write_bytes(text)
        with tarfile.open(self.target, "w") as tar:
            tar.add(source, "backup.json")
            source.write_text("x")
            tar.add(source, name)
        source.unlink()
