"""Tokens, sessions and links: who gets in, for how long, and what is kept of it."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import IntegrityError
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import SynchronousTestCase

from cubehook.events import Micros
from cubehook.store import Store, StoreError, access
from cubehook.store.access import (
    ADMIN_FILE,
    LINK,
    SESSION,
    SESSION_TIME,
    TOKEN,
    USED_EVERY,
    Access,
    Entry,
    LastAdminError,
    NameTakenError,
    Session,
    Token,
    hash_of,
    new_secret,
)
from cubehook.store.lists import list_audit
from tests.store.support import NOON, SECOND, StoreCase, reactor

HOUR = 3600 * SECOND


class SecretTests(SynchronousTestCase):
    def test_one_has_256_random_bits_and_says_what_it_is(self) -> None:
        asked: list[int] = []

        def random_bytes(count: int) -> bytes:
            asked.append(count)
            return b"\xff" * count

        self.assertEqual(new_secret(TOKEN, random_bytes), "chk_" + "_" * 42 + "8")
        self.assertEqual(asked, [32])
        self.assertNotEqual(new_secret(LINK, os.urandom), new_secret(LINK, os.urandom))

    @given(st.text())
    def test_any_text_has_a_hash(self, text: str) -> None:
        self.assertEqual(len(hash_of(text)), 32)
        self.assertEqual(len(hash_of(text + "\udcff")), 32)


class AccessCase(StoreCase):
    def secret(self, kind: str = TOKEN) -> str:
        return new_secret(kind, os.urandom)

    def token(self, name: str = "ci", role: Any = "viewer") -> Token:
        return Token(id=self.made.id(), name=name, role=role, created_by="admin")

    def session(self, name: str = "ci", expires_at: Micros = NOON + HOUR) -> Session:
        return Session(name=name, role="viewer", created_at=NOON, expires_at=expires_at)

    def entry(self, action: str = "create_token") -> Entry:
        return Entry(id=self.made.id(), who="ann", action=action, subject="ci", detail={"role": "viewer"})

    async def recorded(self, store: Store) -> list[str]:
        return [each.action for each in (await store.read(list_audit)).items]

    def kept(self) -> bytes:
        """Every byte of the state folder."""
        return b"".join(file.read_bytes() for file in self.path.parent.iterdir())


class TokenTests(AccessCase):
    async def test_who_has_the_secret_has_the_token(self) -> None:
        store = await self.opened()
        token, secret = self.token(), self.secret()
        await store.access.add_token(token, secret)
        await store.access.add_token(self.token("other"), self.secret())
        found = await store.access.token(secret, NOON)
        self.assertEqual(found, token)
        for wrong in (self.secret(), secret[:-1], secret + "A", secret[4:], "", "chk_", "chk_\udcff"):
            self.assertIsNone(await store.access.token(wrong, NOON))
        self.assertEqual([each.name for each in await store.access.tokens()], ["other", "ci"])
        self.assertEqual(token.created_at, self.made.now - 1000)

    async def test_one_that_was_right_is_not_looked_up_again_until_any_is_removed(self) -> None:
        store = await self.opened()
        reads = 0

        def read(work: Any) -> Any:
            nonlocal reads
            reads += 1
            return store.read(work)

        access = Access(read, store._do, reactor)
        token, other, secret = self.token(), self.token("other"), self.secret()
        await access.add_token(token, secret)
        await access.add_token(other, self.secret())
        for _ in range(3):
            self.assertIsNotNone(await access.token(secret, NOON))
            self.assertIsNone(await access.token(secret + "x", NOON))
        self.assertEqual(reads, 4)
        await access.remove_token(other.id)
        self.assertIsNotNone(await access.token(secret, NOON))
        self.assertEqual(reads, 5)
        await access.remove_token(token.id)
        self.assertIsNone(await access.token(secret, NOON))

    async def test_one_that_is_removed_while_it_is_looked_up(self) -> None:
        store = await self.opened()
        was_read: Deferred[None] = Deferred()
        waits: Deferred[None] = Deferred()

        async def read(work: Any) -> Any:
            found = await store.read(work)
            if not was_read.called:
                was_read.callback(None)
                await waits
            return found

        access = Access(read, store._do, reactor)
        token, secret = self.token(), self.secret()
        await access.add_token(token, secret)
        asked = Deferred.fromCoroutine(access.token(secret, NOON))
        await was_read
        await access.remove_token(token.id)
        waits.callback(None)
        await asked
        self.assertIsNone(await access.token(secret, NOON))

    async def test_no_secret_is_kept(self) -> None:
        store = await self.opened()
        secrets = [self.secret(), self.secret(SESSION), self.secret(LINK), self.secret(SESSION)]
        await store.access.add_token(self.token(), secrets[0], self.entry())
        await store.access.begin_session(secrets[1], self.session(), self.entry())
        await store.access.add_link(secrets[2], self.session(), self.entry())
        await store.access.take_link(secrets[2], secrets[3], NOON, self.entry())
        kept = self.kept()
        self.assertIn(hash_of(secrets[0]), kept)
        for secret in secrets:
            self.assertNotIn(secret[4:].encode(), kept)

    async def test_two_cannot_have_one_name(self) -> None:
        store = await self.opened()
        await store.access.add_token(self.token(), self.secret())
        with self.assertRaises(NameTakenError):
            await store.access.add_token(self.token(), self.secret(), self.entry())
        self.assertEqual(len(await store.access.tokens()), 1)
        self.assertEqual(await self.recorded(store), [])

    async def test_the_only_one_of_an_administrator_stays(self) -> None:
        store = await self.opened()
        first, session = self.token("ann", "admin"), self.secret(SESSION)
        await store.access.add_token(first, self.secret())
        await store.access.add_token(self.token("wallboard"), self.secret())
        await store.access.begin_session(session, self.session("ann"))
        with self.assertRaises(LastAdminError):
            await store.access.remove_token(first.id, self.entry("delete_token"))
        self.assertEqual([each.name for each in await store.access.tokens()], ["wallboard", "ann"])
        self.assertIsNotNone(await store.access.session(session, NOON))
        self.assertEqual(await self.recorded(store), [])
        await store.access.add_token(self.token("bob", "admin"), self.secret())
        self.assertEqual(await store.access.remove_token(first.id), first)

    async def test_one_that_is_removed_lets_nobody_in_nor_do_its_sessions(self) -> None:
        store = await self.opened()
        token, secret, session, link = self.token(), self.secret(), self.secret(SESSION), self.secret(LINK)
        other = self.secret(SESSION)
        await store.access.add_token(token, secret)
        await store.access.begin_session(session, self.session())
        await store.access.add_link(link, self.session())
        await store.access.begin_session(other, self.session("other"))
        self.assertEqual(await store.access.remove_token(token.id, self.entry("delete_token")), token)
        self.assertIsNone(await store.access.token(secret, NOON))
        self.assertIsNone(await store.access.session(session, NOON))
        self.assertIsNone(await store.access.take_link(link, self.secret(SESSION), NOON))
        self.assertEqual(await store.access.session(other, NOON), self.session("other"))
        self.assertIsNone(await store.access.remove_token(token.id, self.entry("delete_token")))
        self.assertEqual(await self.recorded(store), ["delete_token"])

    async def test_its_use_is_written_down_once_a_minute(self) -> None:
        store = await self.opened()
        secret = self.secret()
        await store.access.add_token(self.token(), secret)
        written: list[Micros] = []
        note_use = access.note_use

        def note(connection: Any, token: int, at: Micros) -> None:
            written.append(at)
            note_use(connection, token, at)

        self.patch(access, "note_use", note)

        async def ask(now: Micros) -> Micros | None:
            found = await store.access.token(secret, now)
            await store.caught_up()
            assert found is not None
            return found.last_used_at

        self.assertEqual(await ask(NOON), None)
        self.assertEqual(await ask(NOON + 1), NOON)
        self.assertEqual(await ask(NOON + USED_EVERY - 1), NOON)
        await ask(NOON + USED_EVERY)
        self.assertEqual(await ask(NOON + USED_EVERY + 1), NOON + USED_EVERY)
        self.assertEqual(written, [NOON, NOON + USED_EVERY])
        # Also over a restart.
        await store.close()
        store = await self.opened()
        await ask(NOON + USED_EVERY + 2)
        self.assertEqual(len(written), 2)

    async def test_many_requests_at_once_write_once(self) -> None:
        store = await self.opened()
        secret = self.secret()
        await store.access.add_token(self.token(), secret)
        written: list[Micros] = []
        self.patch(access, "note_use", lambda connection, token, at: written.append(at))
        await gatherResults([Deferred.fromCoroutine(store.access.token(secret, NOON)) for _ in range(20)])
        await store.caught_up()
        self.assertEqual(written, [NOON])

    async def test_a_database_that_cannot_be_written_lets_people_in_all_the_same(self) -> None:
        store = await self.opened()
        token, secret = self.token(), self.secret()
        await store.access.add_token(token, secret)
        connection = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(connection.close)
        connection.execute("BEGIN IMMEDIATE")
        self.assertEqual(await store.access.token(secret, NOON), token)
        connection.execute("ROLLBACK")


class SessionTests(AccessCase):
    async def test_one_lasts_until_its_end(self) -> None:
        store = await self.opened()
        secret = self.secret(SESSION)
        await store.access.begin_session(secret, self.session(), self.entry("sign_in"))
        self.assertEqual(await store.access.session(secret, NOON + HOUR - 1), self.session())
        self.assertIsNone(await store.access.session(secret, NOON + HOUR))
        self.assertIsNone(await store.access.session(self.secret(SESSION), NOON))
        self.assertEqual(await self.recorded(store), ["sign_in"])

    async def test_one_that_was_ended_is_over(self) -> None:
        store = await self.opened()
        secret, other = self.secret(SESSION), self.secret(SESSION)
        for each in (secret, other):
            await store.access.begin_session(each, self.session())
        await store.access.end_session(secret)
        self.assertIsNone(await store.access.session(secret, NOON))
        self.assertEqual(await store.access.session(other, NOON), self.session())

    async def test_one_begins_also_while_the_database_cannot_be_written(self) -> None:
        self.patch(access, "BEGIN_SECONDS", 0.2)
        store = await self.opened()
        await store.access.add_token(self.token(), self.secret())
        with closing(sqlite3.connect(self.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            secret, ended = self.secret(SESSION), self.secret(SESSION)
            for each in (secret, ended):
                await store.access.begin_session(each, self.session(), self.entry("sign_in"))
            self.assertEqual(await store.access.session(secret, NOON), self.session())
            self.assertIsNone(await store.access.session(secret, NOON + HOUR))
            ending = Deferred.fromCoroutine(store.access.end_session(ended))
            self.assertIsNone(await store.access.session(ended, NOON))
            other.execute("ROLLBACK")
        await ending
        self.assertEqual(await store.access.session(secret, NOON), self.session())
        self.assertIsNone(await store.access.session(ended, NOON))
        self.assertEqual(self.rows("SELECT count(*) FROM sessions"), [(1,)])
        self.assertEqual(await self.recorded(store), ["sign_in", "sign_in"])

    async def test_a_link_begins_one_session(self) -> None:
        store = await self.opened()
        link, secrets = self.secret(LINK), [self.secret(SESSION) for _ in range(5)]
        await store.access.add_link(link, self.session())
        found = await gatherResults(
            [
                Deferred.fromCoroutine(store.access.take_link(link, each, NOON, self.entry("sign_in")))
                for each in secrets
            ]
        )
        begun = self.session(expires_at=NOON + SESSION_TIME)
        self.assertEqual(found, [begun, None, None, None, None])
        self.assertEqual(await store.access.session(secrets[0], NOON), begun)
        self.assertIsNone(await store.access.session(secrets[1], NOON))
        self.assertEqual(await self.recorded(store), ["sign_in"])

    async def test_an_old_link_is_none(self) -> None:
        store = await self.opened()
        link, secret = self.secret(LINK), self.secret(SESSION)
        await store.access.add_link(link, self.session(expires_at=NOON))
        self.assertIsNone(await store.access.take_link(link, secret, NOON, self.entry()))
        self.assertIsNone(await store.access.session(secret, NOON))
        self.assertEqual(await self.recorded(store), [])

    async def test_neither_stands_for_another_kind(self) -> None:
        store = await self.opened()
        random = self.secret()[4:]
        await store.access.add_link(LINK + random, self.session())
        await store.access.begin_session(SESSION + random, self.session())
        await store.access.add_token(self.token(), TOKEN + random)
        # Whatever is kept as one kind, and however it is written.
        for secret in (LINK + random, TOKEN + random):
            self.assertIsNone(await store.access.session(secret, NOON))
        for secret in (SESSION + random, TOKEN + random):
            self.assertIsNone(await store.access.take_link(secret, self.secret(SESSION), NOON))
        for secret in (SESSION + random, LINK + random):
            self.assertIsNone(await store.access.token(secret, NOON))


class FirstAdminTests(AccessCase):
    async def make(self, store: Store) -> tuple[str, Path | None]:
        secret = self.secret()
        return secret, await store.access.make_first_admin(
            self.path.parent, self.token("admin", "admin"), secret
        )

    async def test_its_secret_is_in_a_file_that_only_its_owner_reads(self) -> None:
        store = await self.opened()
        before = os.umask(0)
        try:
            secret, path = await self.make(store)
        finally:
            os.umask(before)
        self.assertEqual(path, self.path.parent / ADMIN_FILE)
        assert path is not None
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)
        self.assertEqual(path.read_text(), secret + "\n")
        found = await store.access.token(secret, NOON)
        assert found is not None
        self.assertEqual(found.role, "admin")

    async def test_there_is_one_at_the_first_start_only(self) -> None:
        store = await self.opened()
        await store.access.add_token(self.token(), self.secret())
        secret, path = await self.make(store)
        assert path is not None
        again, nothing = await self.make(store)
        self.assertIsNone(nothing)
        self.assertEqual(path.read_text(), secret + "\n")
        self.assertIsNone(await store.access.token(again, NOON))

    async def test_one_is_made_anew_once_there_is_no_administrator_left(self) -> None:
        store = await self.opened()
        secret, path = await self.make(store)
        # Nothing of ours removes the last one.
        with closing(sqlite3.connect(self.path)) as database, database:
            database.execute("DELETE FROM tokens")
        # What others may read is not written to.
        assert path is not None
        path.chmod(0o644)
        again, path = await self.make(store)
        assert path is not None
        self.assertEqual((path.read_text(), path.stat().st_mode & 0o777), (again + "\n", 0o600))
        self.assertNotEqual(again, secret)

    async def test_where_no_file_can_be_none_is_made(self) -> None:
        store = await self.opened()
        (self.path.parent / ADMIN_FILE).mkdir()
        with self.assertRaises(StoreError) as caught:
            await self.make(store)
        self.assertIn(f"{self.path.parent / ADMIN_FILE} cannot be written", str(caught.exception))
        self.assertEqual(await store.access.tokens(), [])


class RecordTests(AccessCase):
    async def test_a_change_is_told_whole_and_newest_first(self) -> None:
        store = await self.opened()
        entries = [self.entry(action) for action in ("create_cube", "delete_cube")]
        for each in entries:
            await store.access.keep(each)
        page = await store.read(list_audit)
        self.assertEqual(
            [(each.id, each.who, each.action, each.subject, each.detail) for each in page.items],
            [(each.id, each.who, each.action, each.subject, each.detail) for each in reversed(entries)],
        )
        self.assertEqual(page.items[1].at, NOON + 1000)
        self.assertEqual(await store.greatest_id(), entries[1].id)

    async def test_a_change_and_its_record_are_kept_together_or_not_at_all(self) -> None:
        store = await self.opened()
        entry = self.entry()
        await store.access.keep(entry)
        with self.assertRaises(IntegrityError):
            # The same id a second time.
            await store.access.add_token(self.token(), self.secret(), entry)
        self.assertEqual(await store.access.tokens(), [])
