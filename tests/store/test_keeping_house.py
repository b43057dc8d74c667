"""Sweeping what is old, and how bodies are packed."""

from __future__ import annotations

from functools import partial

from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import SynchronousTestCase

from bench.bare import NOTIFICATION
from cubehook.config import Retention, Webhook
from cubehook.events import CallState
from cubehook.records import DeliveryStatus, Registration, RegistrationState
from cubehook.store import store as store_module
from cubehook.store.access import Entry, Session
from cubehook.store.packing import pack, unpack
from cubehook.store.sweeping import Swept, sweep_numbers_chunk
from tests.store.support import NOON, SECOND, StoreCase

CRM = Webhook(id="crm", url="https://api.yourcrm.example/calls")
DAY = 86_400 * SECOND


class SweepTests(StoreCase):
    async def test_the_old_goes_the_young_the_open_and_the_owed_stay(self) -> None:
        self.patch(store_module, "_SWEEP_ROWS", 3)
        self.patch(store_module, "_SWEEP_NUMBERS", 3)
        store = await self.opened()
        await store.provision([], [CRM], at=NOON, overlap=0)
        kept: dict[str, list[int]] = {"calls": [], "notifications": [], "events": [], "deliveries": []}
        gone = 0

        async def history(stays: bool, *, ended: bool = True, owed: bool = False) -> None:
            nonlocal gone
            call = self.made.call(disconnected_at=NOON if ended else None)
            notification = self.made.notification(call)
            [delivery] = self.made.deliveries(call, 1)
            await store.accept(notification, [call], [delivery.event], [delivery])
            status = DeliveryStatus.PENDING if owed else DeliveryStatus.DELIVERED
            await store.record(*self.made.tried(delivery, status))
            if stays or not ended or owed:
                kept["events"].append(delivery.event.id)
                kept["calls"].append(call.id)
            if stays or not ended:
                kept["notifications"].append(notification.id)
            if stays or owed:
                kept["deliveries"].append(delivery.id)
            gone += 1

        for _ in range(10):
            await history(False)
        await history(False, ended=False)
        await history(False, owed=True)
        await store.accept(self.made.notification(None), [], [], [])
        await store.registration(
            Registration(cube="hq", state=RegistrationState.REGISTERED, since=self.made.now)
        )
        self.made.now += 50 * DAY
        await history(True)
        await store.registration(Registration(cube="hq", state=RegistrationState.SILENT, since=self.made.now))
        now = self.made.now + 45 * DAY
        swept = await store.sweep(Retention(), now)
        for table, expected in kept.items():
            if table == "deliveries":
                expected = expected[:1]
            self.assertEqual(
                self.rows(f"SELECT id FROM {table} ORDER BY id"), [(id,) for id in expected], table
            )
        self.assertEqual(
            swept,
            Swept(
                calls=10,
                notifications=12,
                events=10,
                deliveries=12,
                attempts=12,
                registration_changes=1,
                numbers=20,
            ),
        )
        self.assertEqual(
            self.rows("SELECT DISTINCT call FROM numbers ORDER BY call"), [(id,) for id in kept["calls"]]
        )
        # The attempt of what is still owed is there, as is the young registration.
        self.assertEqual(len(self.rows("SELECT id FROM attempts")), 1)
        self.assertEqual(self.rows("SELECT state FROM registration_changes"), [("silent",)])
        self.assertEqual(len(await store.pending("crm", now, [], 10)), 1)
        self.assertEqual(len(await store.open_calls()), 1)
        self.assertEqual(
            await store.sweep(Retention(), now),
            Swept(calls=0, notifications=0, events=0, deliveries=0, attempts=0, registration_changes=0),
        )

    async def test_commits_go_on_between_its_chunks(self) -> None:
        self.patch(store_module, "_SWEEP_ROWS", 1)
        store = await self.opened()
        calls = [self.made.call(disconnected_at=NOON) for _ in range(10)]
        await gatherResults([store.accept(None, [call], [], []) for call in calls])
        sweep = Deferred.fromCoroutine(store.sweep(Retention(), self.made.now + 100 * DAY))
        for _ in range(5):
            await store.accept(None, [self.made.call()], [], [])
            self.assertFalse(sweep.called)
        self.assertEqual((await sweep).calls, 10)

    async def test_what_is_not_of_calls_has_a_time_of_its_own(self) -> None:
        store = await self.opened()
        minute = NOON // (60 * SECOND)
        for day in (0, 1, 50):
            await store.sample(minute + day * 1440, {"hq": day, "branch": 1})
        for days in (0, 1):
            self.made.now = NOON + days * DAY
            id = self.made.id()
            await store.access.keep(Entry(id=id, who="ann", action="create_cube", subject="hq"))
            session = Session(name="ann", role="admin", created_at=NOON, expires_at=NOON + days * DAY)
            await store.access.begin_session(f"chs_{days}", session)
        swept = await store.sweep(Retention(), NOON + 90 * DAY + 3600 * SECOND)
        self.assertEqual((swept.samples, swept.sessions, swept.audit), (3, 2, 0))
        swept = await store.sweep(Retention(), NOON + 91 * DAY + 3600 * SECOND)
        self.assertEqual((swept.samples, swept.sessions, swept.audit), (3, 0, 0))
        left = self.rows("SELECT minute, active FROM samples ORDER BY active")
        self.assertEqual(left, [(minute + 72000, 1), (minute + 72000, 50), (minute + 72000, 51)])
        swept = await store.sweep(Retention(), NOON + 366 * DAY + 3600 * SECOND)
        self.assertEqual((swept.samples, swept.audit), (3, 1))
        self.assertEqual(len(self.rows("SELECT id FROM audit")), 1)

    async def test_numbers_are_deleted_a_few_at_a_time(self) -> None:
        store = await self.opened()
        for _ in range(5):
            await store.accept(None, [], [self.made.event(self.made.call())], [])
        gone = []
        after: tuple[str, int] | None = ("", 0)
        while after is not None:
            chunk = partial(sweep_numbers_chunk, before=(1 << 63) - 1, after=after, rows=3)
            count, after = await store._do(chunk)
            gone.append(count)
        self.assertEqual(gone, [3, 3, 3, 1])

    async def test_a_session_lasts_until_it_is_over(self) -> None:
        store = await self.opened()
        await store.access.begin_session(
            "chs_1", Session(name="ann", role="admin", created_at=0, expires_at=NOON)
        )
        self.assertEqual((await store.sweep(Retention(), NOON - 1)).sessions, 0)
        self.assertEqual((await store.sweep(Retention(), NOON)).sessions, 1)

    async def test_sums_of_hours_outlive_their_calls(self) -> None:
        store = await self.opened()
        call = self.made.call(disconnected_at=NOON)
        ended = self.made.event(call, CallState.DISCONNECTED)
        await store.accept(None, [call], [ended], [])
        swept = await store.sweep(Retention(), NOON + 399 * DAY)
        self.assertEqual((swept.calls, swept.numbers, swept.hourly), (1, 2, 0))
        swept = await store.sweep(Retention(), NOON + 401 * DAY)
        self.assertEqual((swept.hourly, self.rows("SELECT * FROM hourly")), (1, []))

    async def test_sums_of_hours_stay_as_long_as_calls(self) -> None:
        store = await self.opened()
        call = self.made.call(disconnected_at=NOON)
        await store.accept(None, [call], [self.made.event(call, CallState.DISCONNECTED)], [])
        swept = await store.sweep(Retention(calls=500 * 86_400), NOON + 499 * DAY)
        self.assertEqual((swept.calls, swept.hourly), (0, 0))

    async def test_a_retention_longer_than_time_deletes_nothing(self) -> None:
        store = await self.opened()
        await store.accept(None, [self.made.call(disconnected_at=NOON)], [], [])
        swept = await store.sweep(Retention(calls=10**9, deliveries=10**9), 10 * SECOND)
        self.assertEqual(swept.calls, 0)


class PackingTests(SynchronousTestCase):
    def test_any_body_comes_back_as_it_was(self) -> None:
        for body in (b"", b"\x00\xff" * 9, b"<a/>", bytes(range(256)) * 5000):
            self.assertEqual(unpack(pack(body)), body)

    def test_a_captured_message_becomes_small(self) -> None:
        body = NOTIFICATION.replace(b"546CF8:25", b"A30F11:7184").replace(b">25<", b">4711<")
        self.assertLess(len(pack(body)), len(body) / 5)

    def test_what_was_packed_once_can_be_read_for_ever(self) -> None:
        # Written by the first version: the dictionary may never change.
        self.assertEqual(unpack(bytes.fromhex(FIRST)), b"<event><alerting/></event>, 2026")


FIRST = "482c5eb1a603c36d9e8e829181911900bc950a7d"
