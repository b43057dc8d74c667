"""What the database keeps secret, read as a thief would; and the key file that opens it."""

from __future__ import annotations

import base64
import os
import sqlite3
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from cubehook.config import Webhook
from cubehook.rotation import SigningSecrets
from cubehook.store import Store, StoreError, copying, keyfile, migrate, schema, sqlite
from cubehook.store.provisioning import Provisioned
from cubehook.store.sealing import Sealer, UnsealError
from tests.store.support import NOON, StoreCase

publisher: Any = globalLogPublisher
A, B = "whsec_" + "QUFB" * 8, "whsec_" + "QkJC" * 8
CRM = Webhook(
    id="crm",
    url="https://hooks.slack.com/services/T000/B000/t0ken-in-a-path",
    headers={"Authorization": "Bearer t0ken-in-a-header"},
    options={"auth": {"password": "t0ken-in-options"}},
    secret=A,
)
HIDDEN = (A[6:], B[6:], "t0ken-in-a-path", "t0ken-in-a-header", "t0ken-in-options")


def new_key() -> str:
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


class KeyFileTests(SynchronousTestCase):
    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        self.path = folder / keyfile.NAME

    def refused(self, content: bytes) -> str:
        """What is said of a file with this content, which stays as it is."""
        self.path.write_bytes(content)
        self.path.chmod(0o600)
        with self.assertRaises(keyfile.KeyFileError) as caught:
            keyfile.keys(self.path, may_make=True)
        self.assertEqual(self.path.read_bytes(), content)
        return str(caught.exception)

    def test_one_is_made_that_only_its_owner_reads_and_is_there_from_then_on(self) -> None:
        before = os.umask(0)
        try:
            made = keyfile.keys(self.path, may_make=True)
        finally:
            os.umask(before)
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)
        self.assertEqual(len(base64.urlsafe_b64decode(made[0])), 32)
        self.assertEqual(os.listdir(self.path.parent), [keyfile.NAME])
        for may_make in (True, False):
            self.assertEqual(keyfile.keys(self.path, may_make=may_make), made)

    def test_no_two_are_alike(self) -> None:
        other = self.path.with_name("other.key")
        self.assertNotEqual(keyfile.keys(self.path, may_make=True), keyfile.keys(other, may_make=True))

    def test_what_a_power_failure_left_half_made_is_made_anew(self) -> None:
        self.path.with_name(keyfile.NAME + ".new").write_text("hal")
        self.assertEqual(len(keyfile.keys(self.path, may_make=True)), 1)
        self.assertEqual(os.listdir(self.path.parent), [keyfile.NAME])

    def test_none_is_made_where_one_is_missed(self) -> None:
        with self.assertRaises(keyfile.KeyFileError) as caught:
            keyfile.keys(self.path, may_make=False)
        self.assertIn(f"{self.path} is missing", str(caught.exception))
        self.assertFalse(self.path.exists())

    def test_several_in_their_order_between_comments(self) -> None:
        one, two = new_key(), new_key()
        self.path.write_text(f"# of May\n{one}\n\n  {two}  \r\n")
        self.path.chmod(0o600)
        self.assertEqual(keyfile.keys(self.path, may_make=False), [one, two])

    def test_what_is_no_key_is_named_by_its_line_and_not_shown(self) -> None:
        for bad in (b"t0ps3cret", new_key().encode()[:-4], new_key().encode() + b"A", b"\xff\xfe\x00"):
            text = self.refused(new_key().encode() + b"\n" + bad + b"\n")
            self.assertIn(f"{self.path}, line 2", text)
            self.assertNotIn("t0ps", text)
        for empty in (b"", b"\n# nothing\n"):
            self.assertIn("holds no key", self.refused(empty))

    def test_one_that_others_can_read_is_closed_to_them_loudly(self) -> None:
        self.path.write_text(new_key())
        for mode in (0o644, 0o640, 0o602):
            self.path.chmod(mode)
            heard: list[LogEvent] = []
            publisher.addObserver(heard.append)
            try:
                keyfile.keys(self.path, may_make=False)
            finally:
                publisher.removeObserver(heard.append)
            self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)
            [told] = [formatEvent(event) for event in heard if event["log_namespace"].startswith("cubehook")]
            self.assertIn(f"(its mode was {mode:03o})", told)

    def test_one_that_cannot_be_closed_to_others_is_refused(self) -> None:
        self.path.write_text(new_key())
        self.path.chmod(0o644)

        def refuse(descriptor: int, mode: int) -> None:
            raise PermissionError(1, "Operation not permitted")

        self.patch(os, "fchmod", refuse)
        with self.assertRaises(StoreError) as caught:
            keyfile.keys(self.path, may_make=False)
        self.assertIn(f"{self.path} cannot be used: Operation not permitted", str(caught.exception))

    def test_one_that_is_no_file_or_cannot_be_made_is_refused(self) -> None:
        self.path.mkdir()
        with self.assertRaises(StoreError) as caught:
            keyfile.keys(self.path, may_make=True)
        self.assertIn(f"{self.path} cannot be used", str(caught.exception))
        nowhere = self.path.parent / "nowhere" / keyfile.NAME
        with self.assertRaises(StoreError) as caught:
            keyfile.keys(nowhere, may_make=True)
        self.assertIn(f"{nowhere} cannot be written", str(caught.exception))


class SealerTests(SynchronousTestCase):
    @given(st.text(alphabet=st.characters(codec="utf-8")))
    def test_any_text_comes_back_and_cannot_be_read_meanwhile(self, text: str) -> None:
        sealer = Sealer([new_key()])
        sealed = sealer.seal(text)
        self.assertEqual(sealer.unseal(sealed), text)
        if len(text) > 3:
            self.assertNotIn(text, sealed)
        self.assertNotEqual(sealer.seal(text), sealed)

    def test_the_first_key_seals_and_all_unseal(self) -> None:
        old, new = new_key(), new_key()
        sealed = Sealer([old]).seal("text")
        both = Sealer([new, old])
        self.assertEqual(both.unseal(sealed), "text")
        self.assertEqual([both.is_newest(sealed), both.is_newest(both.seal("text"))], [False, True])
        self.assertEqual(Sealer([new]).unseal(both.seal("text")), "text")

    def test_nothing_else_is_unsealed(self) -> None:
        sealer = Sealer([new_key()])
        sealed = sealer.seal("text")
        middle = len(sealed) // 2
        for other in (
            Sealer([new_key()]).seal("text"),
            sealed[:middle] + ("A" if sealed[middle] != "A" else "B") + sealed[middle + 1 :],
            sealed[:-9],
            "fernet:",
            "text",
            "",
        ):
            with self.assertRaises(UnsealError) as caught:
                sealer.unseal(other)
            self.assertNotIn("text", str(caught.exception))
            self.assertFalse(sealer.is_newest(other))


class AtRestCase(StoreCase):
    def setUp(self) -> None:
        super().setUp()
        self.key_file = self.path.with_name(keyfile.NAME)
        self.told: list[str] = []

        def hear(event: LogEvent) -> None:
            if event.get("log_namespace", "").startswith("cubehook"):
                self.told.append(formatEvent(event))

        publisher.addObserver(hear)
        self.addCleanup(publisher.removeObserver, hear)

    async def started(self, *webhooks: Webhook, at: int = NOON) -> tuple[Store, Provisioned]:
        store = await self.opened()
        return store, await store.provision([], webhooks, at=at, overlap=86_400)

    async def refused(self) -> str:
        store = self.store()
        with self.assertRaises(StoreError) as caught:
            await store.open()
        await store.close()
        return str(caught.exception)

    def hidden_in(self, data: bytes) -> list[str]:
        return [text for text in HIDDEN if text.encode() in data]

    def assert_hidden(self) -> None:
        """No secret is in any file beside the database's, its log and its lock included."""
        for file in self.path.parent.iterdir():
            if file.name == copying.FOLDER:
                continue  # Of plain text from before an upgrade a copy stays, and the log says so.
            self.assertEqual(self.hidden_in(file.read_bytes()), [], file.name)


class AtRestTests(AtRestCase):
    async def test_neither_the_files_nor_a_dump_hold_a_secret(self) -> None:
        store, _ = await self.started(CRM)
        await store.provision([], [msgspec.structs.replace(CRM, secret=B)], at=NOON, overlap=60)
        self.assertTrue(self.path.with_name("cubehook.db-wal").stat().st_size)
        self.assert_hidden()
        connection = sqlite3.connect(self.path)
        dump = "\n".join(connection.iterdump())
        connection.close()
        self.assertIn("INTO \"webhooks\" VALUES('crm',1,'fernet:", dump)
        self.assertEqual(self.hidden_in(dump.encode()), [])
        await store.close()
        self.assert_hidden()

    async def test_what_is_made_is_sealed_too(self) -> None:
        store, found = await self.started(Webhook(id="crm"))
        rotated = await store.rotate_secret("crm", NOON, 60)
        for secret in (found.secrets["crm"].current, rotated.current):
            for file in self.path.parent.iterdir():
                self.assertNotIn(secret[6:].encode(), file.read_bytes())

    async def test_a_new_database_needs_no_rewriting(self) -> None:
        def clean(engine: Any) -> None:
            self.fail("rewritten")

        self.patch(sqlite, "clean", clean)
        store, _ = await self.started(CRM)
        await store.close()
        await self.started(CRM)

    async def test_a_wrong_key_keeps_the_store_closed_until_the_right_one_is_back(self) -> None:
        store, found = await self.started(CRM, Webhook(id="audit"))
        await store.close()
        right = self.key_file.read_text()
        before = self.rows("SELECT * FROM webhooks")
        wrong = new_key()
        self.key_file.write_text(wrong)
        text = await self.refused()
        for part in (str(self.key_file), "webhooks audit, crm", "backup", "DELETE FROM webhooks"):
            self.assertIn(part, text)
        self.assertNotIn(wrong, text)
        self.assertEqual(self.rows("SELECT * FROM webhooks"), before)
        self.assertEqual(self.key_file.read_text(), wrong)
        self.key_file.write_text(right)
        _, again = await self.started(CRM, Webhook(id="audit"))
        self.assertEqual(again, msgspec.structs.replace(found, by_file={}))

    async def test_one_row_of_another_key_is_enough(self) -> None:
        store, _ = await self.started(CRM, Webhook(id="audit"))
        await store.close()
        connection = sqlite3.connect(self.path)
        with connection:
            connection.execute(
                "UPDATE webhooks SET secret = ? WHERE id = 'audit'", (Sealer([new_key()]).seal("{}"),)
            )
        connection.close()
        self.assertIn("that the webhooks audit were sealed with", await self.refused())

    async def test_a_lost_key_costs_no_call_nor_event(self) -> None:
        store, found = await self.started(CRM, Webhook(id="audit"))
        call = self.made.call()
        [delivery] = self.made.deliveries(call, 1)
        await store.accept(self.made.notification(call), [call], [delivery.event], [delivery])
        await store.close()
        self.key_file.unlink()
        text = await self.refused()
        self.assertIn(f"{self.key_file} is missing", text)
        self.assertFalse(self.key_file.exists())
        # As it says.
        remedy = text.partition("(sqlite3 ")[2].partition(")")[0]
        database, _, statement = remedy.partition(" ")
        self.assertEqual(database, str(self.path))
        connection = sqlite3.connect(self.path)
        with connection:
            connection.execute(statement.strip("'"))
        connection.close()
        store, again = await self.started(CRM, Webhook(id="audit"))
        self.assertEqual(again.webhooks, found.webhooks)
        self.assertEqual(again.secrets["crm"], found.secrets["crm"])
        self.assertNotEqual(again.secrets["audit"], found.secrets["audit"])
        self.assertEqual(await store.open_calls(), [call])
        self.assertEqual(await store.pending("crm", self.made.now, [], 10), [delivery])

    async def test_a_store_that_was_refused_can_be_opened_by_another(self) -> None:
        store, _ = await self.started(CRM)
        await store.close()
        right = self.key_file.read_text()
        self.key_file.write_text("nonsense")
        refusing = self.store()
        with self.assertRaises(StoreError):
            await refusing.open()
        self.key_file.write_text(right)
        await self.opened()

    async def test_the_key_is_never_logged(self) -> None:
        store, _ = await self.started(CRM)
        await store.close()
        key = self.key_file.read_text().strip()
        self.key_file.chmod(0o644)
        self.key_file.write_text(f"{new_key()}\n{key}\n")
        await self.started(CRM)
        told = "\n".join(self.told)
        self.assertIn(f"Made {self.key_file}", told)
        for line in self.key_file.read_text().split():
            self.assertNotIn(line, told)


class NewKeyTests(AtRestCase):
    async def test_a_key_put_in_front_takes_over_and_the_old_one_can_go(self) -> None:
        store, found = await self.started(CRM, Webhook(id="audit"))
        await store.close()
        old, new = self.key_file.read_text().strip(), new_key()
        self.key_file.write_text(f"{new}\n{old}\n")
        # Nothing tells the new key from the old ones before a start.
        store, again = await self.started(CRM, Webhook(id="audit"))
        self.assertEqual(again, msgspec.structs.replace(found, by_file={}))
        self.assertIn("the lines after the first can go", self.told[-1])
        for sealed in [text for row in self.rows("SELECT settings, secret FROM webhooks") for text in row]:
            Sealer([new]).unseal(sealed)
        await store.close()
        self.key_file.write_text(new)
        _, again = await self.started(CRM, Webhook(id="audit"))
        self.assertEqual(again, msgspec.structs.replace(found, by_file={}))

    async def test_an_old_key_left_in_the_file_is_no_work(self) -> None:
        store, _ = await self.started(CRM)
        await store.close()
        self.key_file.write_text(self.key_file.read_text() + new_key())
        before = self.rows("SELECT * FROM webhooks")
        await self.started(CRM)
        self.assertEqual(self.rows("SELECT * FROM webhooks"), before)


class PlainTextTests(AtRestCase):
    """A database of schema 0001, which kept everything in plain text."""

    def setUp(self) -> None:
        super().setUp()
        self.path.parent.mkdir(parents=True)
        engine = sqlite.writer_engine(self.path)
        newest = schema.REVISION
        self.patch(schema, "REVISION", "0001")
        with engine.begin() as connection:
            migrate.upgrade(connection, None, "it")
        self.patch(schema, "REVISION", newest)
        settings = msgspec.json.encode(msgspec.structs.replace(CRM, secret=None)).decode()
        # Longer than a page, and shorter: what is overwritten stays in other places of the file.
        long = settings.replace('"name":""', f'"name":"{"n" * 9000}"')
        database = sqlite3.connect(self.path)
        # Debian's SQLite is made to erase what it deletes, others are not.
        database.execute("PRAGMA secure_delete = OFF")
        for text in (long, settings, long, settings):
            with database:
                database.execute("DELETE FROM webhooks")
                row = (text, A)
                database.execute("INSERT INTO webhooks VALUES ('crm', 1, ?, ?, NULL, NULL)", row)
                database.execute("INSERT INTO webhooks VALUES ('old', 1, ?, ?, NULL, NULL)", (text, B))
        with database:
            database.execute("DELETE FROM webhooks WHERE id = 'old'")
            database.execute("INSERT INTO attempts VALUES (1, 1, '{}')")
        database.close()
        self.assertEqual(self.hidden_in(self.path.read_bytes()), list(HIDDEN))

    async def test_it_is_sealed_and_nothing_of_it_is_left(self) -> None:
        store, found = await self.started(CRM)
        self.assert_hidden()
        self.assertEqual(found.webhooks, (msgspec.structs.replace(CRM, secret=None),))
        self.assertEqual(found.secrets, {"crm": SigningSecrets(current=A, from_file=True)})
        await store.close()
        self.assert_hidden()
        self.assertEqual(self.rows("SELECT id FROM attempts"), [(1,)])

    async def test_also_if_no_webhook_is_left_of_it(self) -> None:
        connection = sqlite3.connect(self.path)
        connection.execute("PRAGMA secure_delete = OFF")
        with connection:
            connection.execute("DELETE FROM webhooks")
        connection.close()
        self.assertNotEqual(self.hidden_in(self.path.read_bytes()), [])
        await self.started()
        self.assert_hidden()

    async def test_also_what_a_kill_left_in_the_log(self) -> None:
        database = sqlite3.connect(self.path)
        database.execute("PRAGMA journal_mode = WAL")
        log = self.path.with_name("cubehook.db-wal")
        for number in range(500):
            with database:
                database.execute("UPDATE webhooks SET secret = ?", (B if number % 2 else A,))
        left = log.read_bytes()
        database.close()
        self.assertEqual({A[6:], B[6:]}, set(self.hidden_in(left)) & {A[6:], B[6:]})
        log.write_bytes(left)
        _, found = await self.started(msgspec.structs.replace(CRM, secret=None))
        self.assertEqual(found.secrets["crm"].current, B)
        self.assert_hidden()

    async def test_it_is_rewritten_once(self) -> None:
        store, _ = await self.started(CRM)
        await store.close()
        self.patch(sqlite, "clean", lambda engine: self.fail("rewritten again"))
        await self.started(CRM)

    async def test_a_rewriting_that_fails_is_told_and_done_at_the_next_start(self) -> None:
        def no_room(engine: Any) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        clean = sqlite.clean
        self.patch(sqlite, "clean", no_room)
        store, found = await self.started(CRM)
        self.assertEqual(found.secrets["crm"].current, A)
        [told] = [text for text in self.told if "could not be rewritten" in text]
        self.assertIn("disk is full", told)
        await store.close()
        self.patch(sqlite, "clean", clean)
        await self.started(CRM)
        self.assert_hidden()

    async def test_a_reader_that_keeps_the_log_alive_is_no_success(self) -> None:
        reader = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(reader.close)
        reader.execute("PRAGMA journal_mode = WAL")
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM webhooks").fetchall()
        store, _ = await self.started(CRM)
        self.assertIn("could not be rewritten", "\n".join(self.told))
        await store.close()
        reader.execute("COMMIT")
        reader.close()
        await self.started(CRM)
        self.assert_hidden()

    async def test_plain_text_put_in_later_goes_the_same_way(self) -> None:
        store, _ = await self.started(CRM)
        await store.close()
        connection = sqlite3.connect(self.path)
        with connection:
            connection.execute("UPDATE webhooks SET secret = ?", (B,))
        connection.close()
        _, found = await self.started(msgspec.structs.replace(CRM, secret=None))
        self.assertEqual(found.secrets["crm"].current, B)
        self.assert_hidden()
