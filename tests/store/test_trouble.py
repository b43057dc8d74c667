"""The database locked, full or hanging; items it can never take; memory running out."""

from __future__ import annotations

import sqlite3
import sys
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from cubehook.interfaces import StoreFullError
from cubehook.records import DeliveryStatus
from cubehook.store import sqlite, writer
from cubehook.store import store as store_module
from cubehook.store.errors import StoreClosedError
from cubehook.store.store import Store
from tests.store.support import NOON, StoreCase, reactor, until


class TroubleCase(StoreCase):
    def setUp(self) -> None:
        super().setUp()
        self.patch(writer, "PATIENCE", 0.3)
        self.heard: list[tuple[bool, str]] = []

    async def watched(self, **options: Any) -> Store:
        return await self.opened(on_degraded=lambda *heard: self.heard.append(heard), **options)

    def locked(self) -> sqlite3.Connection:
        """Another connection that holds the write lock, until it is closed."""
        connection = sqlite3.connect(self.path, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        self.addCleanup(connection.close)
        return connection


class LockedTests(TroubleCase):
    async def test_work_is_held_and_written_in_order_once_the_lock_is_gone(self) -> None:
        store = await self.watched()
        await store.accept(None, [self.made.call()], [], [])
        lock = self.locked()
        call = self.made.call()
        [delivery] = self.made.deliveries(call, 1)
        waiting = [store.accept(None, [call], [delivery.event], [delivery])]
        await until(lambda: store.degraded)
        waiting.append(store.record(*self.made.tried(delivery, DeliveryStatus.DELIVERED)))
        call.called_number = "1002"
        waiting.append(store.accept(None, [call], [], []))
        await deferLater(reactor, 0.3, lambda: None)
        self.assertEqual([done.called for done in waiting], [False] * 3)
        [(degraded, reason)] = self.heard
        # Whichever is noticed first, on a busy machine.
        self.assertTrue(degraded)
        self.assertIn(reason, ("database is locked", "a commit has been taking longer than 0.3 s"))
        self.assertEqual(store.held_items, 3)
        # Reading goes on.
        self.assertEqual(len(await store.open_calls()), 1)
        lock.close()
        await gatherResults(waiting)
        self.assertFalse(store.degraded)
        self.assertEqual(self.heard, [(True, reason), (False, "")])
        self.assertEqual(self.rows("SELECT called_number FROM calls ORDER BY id"), [(None,), ("1002",)])
        self.assertEqual(self.rows("SELECT status, attempts FROM deliveries"), [("delivered", 1)])
        self.assertEqual(self.rows("SELECT count(*) FROM attempts"), [(1,)])

    async def test_a_refusing_database_is_nothing_that_a_restart_mends(self) -> None:
        self.patch(writer, "STUCK_SECONDS", 0.5)
        self.patch(writer, "_WAITS", (0.05,))
        store = await self.watched()
        await store.accept(None, [self.made.call()], [], [])
        lock = self.locked()
        waiting = store.accept(None, [self.made.call()], [], [])
        await until(lambda: store.degraded)
        await deferLater(reactor, 0.7, lambda: None)
        self.assertEqual((store.stuck(), waiting.called), ("", False))
        lock.close()
        await waiting

    async def test_a_lock_held_for_a_moment_is_no_alarm(self) -> None:
        self.patch(writer, "PATIENCE", 5.0)
        store = await self.watched()
        await store.accept(None, [self.made.call()], [], [])
        lock = self.locked()
        reactor.callLater(0.6, lock.close)
        await store.accept(None, [self.made.call()], [], [])
        self.assertEqual(self.heard, [])
        self.assertEqual(self.rows("SELECT count(*) FROM calls"), [(2,)])

    async def test_a_commit_that_hangs_is_told_of(self) -> None:
        self.patch(sqlite, "LOCK_WAIT", 30.0)
        self.patch(writer, "STUCK_SECONDS", 0.2)
        store = await self.watched()
        await store.accept(None, [self.made.call()], [], [])
        lock = self.locked()
        done = store.accept(None, [self.made.call()], [], [])
        self.assertEqual(store.stuck(), "")
        await until(lambda: store.degraded)
        self.assertEqual(self.heard, [(True, "a commit has been taking longer than 0.3 s")])
        self.assertIn("a commit makes no progress", store.stuck())
        self.patch(writer, "_waits_for_disk", lambda thread: True)
        self.assertEqual(store.stuck(), "")
        lock.close()
        await done
        self.assertEqual((store.degraded, store.stuck()), (False, ""))

    async def test_a_thread_that_ended_is_told_of(self) -> None:
        store = await self.watched()
        self.patch(writer.Writer, "_persist", lambda *_: sys.exit())
        lost = store.accept(None, [self.made.call()], [], [])
        await until(lambda: bool(store.stuck()))
        self.assertEqual(store.stuck(), "the thread that writes the database has ended")
        _ = lost.addErrback(lambda failure: failure.trap(StoreClosedError))
        self.patch(store_module, "_CLOSE_PATIENCE", 0.1)
        await store.close()
        self.assertEqual((lost.called, store.stuck()), (True, ""))

    async def test_work_with_a_transaction_of_its_own_waits_too(self) -> None:
        store = await self.watched()
        await store.provision([], [], at=NOON, overlap=0)
        [delivery] = self.made.deliveries(self.made.call(), 1)
        await self.keep(store, [delivery])
        lock = self.locked()
        settled = Deferred.fromCoroutine(store.settle(delivery.id, "failed"))
        await until(lambda: store.degraded)
        self.assertFalse(settled.called)
        lock.close()
        await settled
        self.assertEqual(self.rows("SELECT status FROM deliveries"), [("failed",)])

    async def test_reading_waits_for_what_was_handed_in(self) -> None:
        store = await self.watched()
        await store.accept(None, [self.made.call()], [], [])
        lock = self.locked()
        [delivery] = self.made.deliveries(self.made.call(), 1)
        accepted = store.accept(None, [], [delivery.event], [delivery])
        found = Deferred.fromCoroutine(store.pending("crm", delivery.due_at, [], 10))
        await until(lambda: store.degraded)
        self.assertFalse(found.called)
        lock.close()
        await accepted
        self.assertEqual(await found, [delivery])

    async def test_a_long_backlog_is_written_before_the_alarm_ends(self) -> None:
        self.patch(writer, "_GROUP_ITEMS", 10)
        store = await self.watched()
        await store.accept(None, [self.made.call()], [], [])
        lock = self.locked()
        waiting = [store.accept(None, [self.made.call()], [], []) for _ in range(95)]
        degraded_at: list[bool] = []
        for done in waiting:
            _ = done.addCallback(lambda _: degraded_at.append(store.degraded))
        await until(lambda: store.degraded)
        lock.close()
        await gatherResults(waiting)
        self.assertEqual(len(self.rows("SELECT id FROM calls")), 96)
        self.assertEqual(degraded_at[:80], [True] * 80)
        self.assertEqual(degraded_at[-5:], [False] * 5)
        self.assertEqual(len(self.heard), 2)

    async def test_closing_tries_for_a_while_then_says_what_was_lost(self) -> None:
        self.patch(store_module, "_CLOSE_PATIENCE", 0.5)
        store = await self.watched()
        await store.accept(None, [self.made.call()], [], [])
        self.locked()
        lost = [store.accept(None, [self.made.call()], [], []) for _ in range(3)]
        began = reactor.seconds()
        await store.close()
        self.assertLess(reactor.seconds() - began, 5.0)
        for done in lost:
            await self.assertFailure(done, StoreClosedError)

    async def test_closing_waits_for_a_lock_that_goes(self) -> None:
        store = await self.watched()
        await store.accept(None, [self.made.call()], [], [])
        lock = self.locked()
        done = store.accept(None, [self.made.call()], [], [])
        reactor.callLater(0.5, lock.close)
        await store.close()
        await done
        self.assertEqual(self.rows("SELECT count(*) FROM calls"), [(2,)])

    async def test_a_listener_that_fails_stops_nothing(self) -> None:
        def fail(*_: object) -> None:
            raise RuntimeError("metrics are broken")

        store = await self.opened(on_commit=fail, on_degraded=fail)
        await store.accept(None, [self.made.call()], [], [])
        await store.accept(None, [self.made.call()], [], [])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 2)


class GoneTests(TroubleCase):
    async def test_a_file_that_is_not_where_it_was_is_told_of_until_it_is_back(self) -> None:
        store = await self.watched()
        await store.accept(None, [self.made.call()], [], [])
        self.assertFalse(store.degraded)
        away = self.path.with_name("away")
        self.path.rename(away)
        await store.accept(None, [self.made.call()], [], [])
        self.assertEqual(self.heard, [(True, writer.GONE)])
        self.path.write_bytes(b"")
        await store.accept(None, [self.made.call()], [], [])
        self.assertTrue(store.degraded, "replaced is no better than deleted")
        away.rename(self.path)
        await store.accept(None, [self.made.call()], [], [])
        self.assertEqual(self.heard, [(True, writer.GONE), (False, "")])
        self.assertEqual(self.rows("SELECT count(*) FROM calls"), [(4,)])


class FullDiskTests(TroubleCase):
    async def test_what_finds_no_room_is_written_once_there_is_some(self) -> None:
        store = await self.watched()
        ballast = sqlite3.connect(self.path)
        with ballast:
            ballast.execute("CREATE TABLE ballast (data BLOB)")
            ballast.execute("INSERT INTO ballast VALUES (zeroblob(400000))")
        # As a full disk does, a limit makes writes fail with SQLITE_FULL; it is the connection's own.
        [pages] = self.rows("PRAGMA page_count")[0]
        await store._do(
            lambda connection: connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}").all()
        )
        call = self.made.call(called_number="x" * 30_000)
        waiting = [store.accept(None, [call], [], [])]
        await until(lambda: store.degraded)
        self.assertEqual(self.heard, [(True, "database or disk is full")])
        waiting.append(store.accept(None, [self.made.call()], [], []))
        with ballast:
            ballast.execute("DELETE FROM ballast")
        ballast.close()
        await gatherResults(waiting)
        self.assertEqual(self.heard[1:], [(False, "")])
        self.assertEqual(len(await store.open_calls()), 2)


class PoisonTests(TroubleCase):
    async def test_an_item_that_can_never_be_written_harms_no_other(self) -> None:
        store = await self.watched(pace=0.02)
        calls = [self.made.call() for _ in range(5)]
        notifications = [self.made.notification(call) for call in calls]
        event = self.made.event(calls[0])
        await store.accept(notifications[0], [calls[0]], [event], [])
        done = [store.accept(notifications[1], [calls[1]], [], [])]
        # The same event once more, and a number that no column takes.
        twice = store.accept(notifications[2], [calls[2]], [event], [])
        done.append(store.accept(notifications[3], [calls[3]], [], []))
        too_great = store.accept(None, [self.made.call(started_at=1 << 70)], [], [])
        done.append(store.accept(notifications[4], [calls[4]], [], []))
        await gatherResults(done)
        await self.assertFailure(twice, sqlite3.IntegrityError)
        await self.assertFailure(too_great, OverflowError)
        self.assertEqual(len(self.flushLoggedErrors(sqlite3.IntegrityError, OverflowError)), 2)
        # Whole or not at all: the call and the notification of the refused item are not there either.
        self.assertEqual(len(self.rows("SELECT id FROM notifications")), 4)
        kept = [call.id for call in await store.open_calls()]
        self.assertEqual(kept, [calls[0].id, calls[1].id, calls[3].id, calls[4].id])
        self.assertEqual(self.heard, [])
        self.assertEqual((store.held_items, store.held_bytes), (0, 0))

    async def test_a_value_that_is_no_text_is_refused_at_once(self) -> None:
        store = await self.watched()
        refused = store.accept(None, [self.made.call(called_number="\ud800")], [], [])
        self.assertTrue(refused.called)
        await self.assertFailure(refused, UnicodeEncodeError)
        await store.accept(None, [self.made.call()], [], [])

    async def test_work_that_fails_fails_alone(self) -> None:
        store = await self.watched()

        def work(connection: Any) -> None:
            connection.exec_driver_sql("INSERT INTO cubes VALUES ('hq', 1, '{}')")
            raise LookupError("no such thing")

        failing = Deferred.fromCoroutine(store._do(work))
        kept = store.accept(None, [self.made.call()], [], [])
        await self.assertFailure(failing, LookupError)
        await kept
        self.assertEqual(self.rows("SELECT * FROM cubes"), [])


class BoundTests(TroubleCase):
    async def test_past_the_bound_accept_refuses_and_records_keep_their_outcome(self) -> None:
        store = await self.watched(max_held_items=5)
        call = self.made.call()
        [delivery] = self.made.deliveries(call, 1)
        await self.keep(store, [delivery])
        lock = self.locked()
        held = [store.accept(None, [self.made.call()], [], []) for _ in range(5)]
        self.assertTrue(store.full)
        refused = store.accept(None, [self.made.call()], [], [])
        self.assertTrue(refused.called)
        await self.assertFailure(refused, StoreFullError)
        held.append(store.record(*self.made.tried(delivery, DeliveryStatus.PENDING, NOON)))
        held.append(store.record(*self.made.tried(delivery, DeliveryStatus.DELIVERED)))
        await until(lambda: store.degraded)
        lock.close()
        await gatherResults(held)
        self.assertFalse(store.full)
        self.assertEqual(store.attempts_dropped, 2)
        self.assertEqual(self.rows("SELECT status, attempts FROM deliveries"), [("delivered", 2)])
        self.assertEqual(self.rows("SELECT * FROM attempts"), [])
        self.assertEqual(len(await store.open_calls()), 5)
        await store.accept(None, [self.made.call()], [], [])

    async def test_bytes_are_bounded_too(self) -> None:
        store = await self.watched(max_held_bytes=100_000)
        await store.accept(None, [self.made.call()], [], [])
        lock = self.locked()
        held = [store.accept(None, [self.made.call(called_number="x" * 60_000)], [], [])]
        self.assertFalse(store.full)
        held.append(store.accept(None, [self.made.call(called_number="x" * 60_000)], [], []))
        self.assertTrue(store.full)
        lock.close()
        await gatherResults(held)
        self.assertFalse(store.full)
