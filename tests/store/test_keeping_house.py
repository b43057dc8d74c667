"""Provisioning at a start, and sweeping what is old."""

from __future__ import annotations

import msgspec
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import SynchronousTestCase

from bench.bare import NOTIFICATION
from cubehook.config import Cube, Retention, Webhook
from cubehook.delivery.signing import decode_secret
from cubehook.events import CallState
from cubehook.records import DeliveryStatus, Registration, RegistrationState
from cubehook.store import store as store_module
from cubehook.store.errors import StoreError
from cubehook.store.packing import pack, unpack
from cubehook.store.sweeping import Swept
from tests.store.support import NOON, SECOND, StoreCase

HQ = Cube(
    id="hq",
    provider_url="http://192.0.2.1:8090/cisco_xcc",
    application_url="http://192.0.2.20:8090/xcc/hq",
)
CRM = Webhook(id="crm", url="https://api.yourcrm.example/calls", headers={"X-Key": "1"}, retry=(1.0, 2.5))
WRITTEN = "whsec_" + "QUJD" * 8
DAY = 86_400 * SECOND


class ProvisionTests(StoreCase):
    async def test_the_files_cubes_and_webhooks_are_there_with_secrets(self) -> None:
        store = await self.opened()
        found = await store.provision([HQ], [CRM, Webhook(id="audit", secret=WRITTEN)])
        self.assertEqual(found.cubes, (HQ,))
        audit, crm = found.webhooks
        self.assertEqual(audit, Webhook(id="audit", secret=WRITTEN))
        self.assertEqual(msgspec.structs.replace(crm, secret=None), CRM)
        self.assertEqual(len(decode_secret(crm.secret or "")), 32)
        self.assertEqual(found.disabled, {})

    async def test_a_made_secret_is_kept_and_a_written_one_wins(self) -> None:
        store = await self.opened()
        made = (await store.provision([], [CRM, Webhook(id="audit")])).webhooks
        self.assertNotEqual(made[0].secret, made[1].secret)
        self.assertEqual((await store.provision([], [CRM, Webhook(id="audit")])).webhooks, made)
        changed = msgspec.structs.replace(CRM, url="https://other.example/")
        [crm] = (await store.provision([], [changed])).webhooks
        self.assertEqual((crm.url, crm.secret), (changed.url, made[1].secret))
        [crm] = (await store.provision([], [msgspec.structs.replace(CRM, secret=WRITTEN)])).webhooks
        self.assertEqual(crm.secret, WRITTEN)
        # Taken out of the file again, it stays what it was.
        [crm] = (await store.provision([], [CRM])).webhooks
        self.assertEqual(crm.secret, WRITTEN)

    async def test_what_is_gone_from_the_file_goes_and_what_came_otherwise_stays(self) -> None:
        store = await self.opened()
        await store.provision([HQ, Cube(id="branch", provider_url="", application_url="")], [CRM])
        by_hand = Webhook(id="hand", url="https://hand.example/")
        await store._do(
            lambda connection: (
                connection.exec_driver_sql(
                    "INSERT INTO webhooks (id, provisioned, settings, secret) VALUES ('hand', 0, ?, ?)",
                    (msgspec.json.encode(by_hand).decode(), WRITTEN),
                ).rowcount
            )
        )
        found = await store.provision([HQ], [])
        self.assertEqual([cube.id for cube in found.cubes], ["hq"])
        self.assertEqual(found.webhooks, (msgspec.structs.replace(by_hand, secret=WRITTEN),))
        # Written into the file under the same name, it is the file's from then on.
        [hand] = (await store.provision([HQ], [by_hand])).webhooks
        self.assertEqual(hand.secret, WRITTEN)
        self.assertEqual((await store.provision([HQ], [])).webhooks, ())

    async def test_a_disabled_webhook_stays_so_until_its_settings_change(self) -> None:
        store = await self.opened()
        await store.provision([], [CRM])
        await store.disable_webhook("crm", "the receiver answered 410", NOON)
        await store.close()
        store = await self.opened()
        found = await store.provision([], [CRM])
        self.assertEqual(found.disabled, {"crm": "the receiver answered 410"})
        self.assertEqual(self.rows("SELECT disabled_at FROM webhooks"), [(NOON,)])
        changed = msgspec.structs.replace(CRM, states=(CallState.DISCONNECTED,))
        self.assertEqual((await store.provision([], [changed])).disabled, {})
        self.assertEqual((await store.provision([], [changed])).disabled, {})

    async def test_settings_that_cannot_be_read_back_are_named(self) -> None:
        store = await self.opened()
        await store._do(
            lambda connection: (
                connection.exec_driver_sql(
                    "INSERT INTO webhooks (id, provisioned, settings, secret) VALUES ('hand', 0, '{}', 'x')"
                ).rowcount
            )
        )
        with self.assertRaises(StoreError) as caught:
            await store.provision([], [])
        self.assertIn("webhook hand", str(caught.exception))

    async def test_deliveries_of_a_removed_webhook_fail_the_others_stay(self) -> None:
        self.patch(store_module, "_ORPHAN_LANES", 2)
        self.patch(store_module, "_ORPHAN_CHUNKS_AT_START", 2)
        store = await self.opened()
        await store.provision([], [CRM, Webhook(id="gone"), Webhook(id="went")])
        for webhook in ("crm", "gone", "went"):
            for _ in range(3):
                await self.keep(store, self.made.deliveries(self.made.call(), 2, webhook))
        delivered = self.made.deliveries(self.made.call(), 1, "gone")
        await self.keep(store, delivered)
        await store.record(*self.made.tried(delivered[0], DeliveryStatus.DELIVERED))
        await store.provision([], [CRM])
        count = "SELECT webhook, status, count(*) FROM deliveries GROUP BY 1, 2 ORDER BY 1, 2"
        # Two chunks of two calls at the start, the rest with the next sweep.
        self.assertEqual(
            self.rows(count),
            [
                ("crm", "pending", 6),
                ("gone", "delivered", 1),
                ("gone", "failed", 6),
                ("went", "pending", 6),
            ],
        )
        self.assertEqual(await store.pending("gone", NOON + DAY, [], 10), [])
        await store.sweep(Retention(), NOON)
        self.assertEqual(self.rows(count)[-1], ("went", "failed", 6))
        self.assertEqual(len(await store.pending("crm", NOON + DAY, [], 10)), 6)


class SweepTests(StoreCase):
    async def test_the_old_goes_the_young_the_open_and_the_owed_stay(self) -> None:
        self.patch(store_module, "_SWEEP_ROWS", 3)
        store = await self.opened()
        await store.provision([], [CRM])
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
            Swept(calls=10, notifications=12, events=10, deliveries=12, attempts=12, registration_changes=1),
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
