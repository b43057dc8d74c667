"""One call and one delivery, told whole as far as their size goes."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import msgspec
from twisted.internet.defer import gatherResults

from cubehook.events import CallState
from cubehook.records import DeliveryStatus, Notification
from cubehook.store import Store, histories
from cubehook.store.histories import CallHistory, DeliveryHistory, call_history, delivery_history
from tests.store.support import NOON, SECOND, StoreCase

PENDING, DELIVERED = DeliveryStatus.PENDING, DeliveryStatus.DELIVERED


class HistoryCase(StoreCase):
    async def call(self, store: Store, id: int) -> CallHistory:
        found = await store.read(partial(call_history, id=id))
        assert found is not None
        return found

    async def delivery(self, store: Store, id: int) -> DeliveryHistory:
        found = await store.read(partial(delivery_history, id=id))
        assert found is not None
        return found


class CallTests(HistoryCase):
    async def test_a_call_is_told_with_all_that_came_of_it_in_order(self) -> None:
        store = await self.opened()
        call, other = self.made.call(connected_at=NOON), self.made.call()
        told: list[Notification] = []
        happened, owed, tried = [], [], []
        for state in (CallState.ALERTING, CallState.CONNECTED):
            told.append(self.made.notification(call, b"<SOAP:Envelope>%d</SOAP:Envelope>" % len(told)))
            happened.append(self.made.event(call, state))
            new = [self.made.delivery(happened[-1], webhook) for webhook in ("crm", "wallboard")]
            owed += new
            await store.accept(told[-1], [call], [happened[-1]], new)
            for each in new:
                for status in (PENDING, DELIVERED):
                    attempt, delivery = self.made.tried(each, status)
                    tried.append(attempt)
                    await store.record(attempt, delivery)
        # What is another call's, and a notification of none.
        [foreign] = self.made.deliveries(other, 1)
        await store.accept(self.made.notification(other), [other], [foreign.event], [foreign])
        await store.accept(self.made.notification(None), [], [], [])
        found = await self.call(store, call.id)
        self.assertEqual(found.call, call)
        self.assertEqual(found.notifications, told)
        self.assertEqual(found.events, happened)
        self.assertEqual([each.delivery.id for each in found.deliveries], [each.id for each in owed])
        self.assertEqual([attempt for each in found.deliveries for attempt in each.attempts], tried)
        self.assertEqual(found.left_out, histories.LeftOut())

    async def test_there_may_be_none(self) -> None:
        store = await self.opened()
        self.assertIsNone(await store.read(partial(call_history, id=5)))
        self.assertIsNone(await store.read(partial(delivery_history, id=5)))

    async def test_of_many_the_first_and_the_last_are_told(self) -> None:
        self.patch(histories, "ENDS", 3)
        store = await self.opened()
        call = self.made.call()
        told = [self.made.notification(call) for _ in range(10)]
        owed = self.made.deliveries(call, 7)
        await gatherResults([store.accept(each, [call], [], []) for each in told])
        await self.keep(store, owed)
        found = await self.call(store, call.id)
        self.assertEqual(found.notifications, told[:3] + told[-3:])
        self.assertEqual(found.events, [each.event for each in owed[:3] + owed[-3:]])
        self.assertEqual(
            [each.delivery.id for each in found.deliveries], [each.id for each in owed[:3] + owed[-3:]]
        )
        self.assertEqual(found.left_out, histories.LeftOut(notifications=4, events=1, deliveries=1))

    async def test_as_many_as_twice_the_ends_are_all_told(self) -> None:
        self.patch(histories, "ENDS", 3)
        store = await self.opened()
        call = self.made.call()
        told = [self.made.notification(call) for _ in range(6)]
        await gatherResults([store.accept(each, [call], [], []) for each in told])
        found = await self.call(store, call.id)
        self.assertEqual((found.notifications, found.left_out), (told, histories.LeftOut()))

    async def test_large_bodies_are_left_out_and_counted(self) -> None:
        self.patch(histories, "TEXT_BYTES", 2500)
        store = await self.opened()
        call = self.made.call()
        noise = random.Random(1)
        told = [self.made.notification(call, noise.randbytes(1000)) for _ in range(4)]
        await gatherResults([store.accept(each, [call], [], []) for each in told])
        found = await self.call(store, call.id)
        self.assertEqual([len(each.body) for each in found.notifications], [1000, 1000, 0, 0])
        self.assertEqual([each.id for each in found.notifications], [each.id for each in told])
        self.assertEqual(found.left_out, histories.LeftOut(bodies=2))

    async def test_of_too_many_attempts_the_last_are_told(self) -> None:
        self.patch(histories, "ATTEMPTS", 2)
        store = await self.opened()
        call = self.made.call()
        [first, second] = self.made.deliveries(call, 2)
        await store.accept(None, [call], [first.event, second.event], [first, second])
        tried = [await self.try_(store, first) for _ in range(3)]
        last = await self.try_(store, second, response_body="x" * 900)
        found = await self.call(store, call.id)
        self.assertEqual([each.attempts for each in found.deliveries], [tried[1:], [last]])
        self.assertEqual(found.left_out, histories.LeftOut(attempts=1))
        # Where there is no room for all, the last ones have it.
        room = sum(len(msgspec.json.encode(each)) for each in (last, tried[2]))
        self.patch(histories, "TEXT_BYTES", room)
        found = await self.call(store, call.id)
        self.assertEqual([each.attempts for each in found.deliveries], [[tried[2]], [last]])
        self.assertEqual(found.left_out, histories.LeftOut(attempts=2))

    async def try_(self, store: Store, delivery: Any, **given: Any) -> Any:
        delivery.attempts += 1
        attempt = self.made.attempt(delivery, **given)
        await store.record(attempt, delivery)
        return attempt

    async def test_what_cannot_be_read_back_does_not_hide_the_rest(self) -> None:
        store = await self.opened()
        call = self.made.call()
        told = [self.made.notification(call) for _ in range(2)]
        [first, second] = self.made.deliveries(call, 2)
        await gatherResults([store.accept(each, [call], [], []) for each in told])
        await self.keep(store, [first, second])
        for _ in range(2):
            await self.try_(store, first)
        await store._do(self.break_)
        found = await self.call(store, call.id)
        self.assertEqual([each.body for each in found.notifications], [b"", told[1].body])
        self.assertEqual(found.events, [second.event])
        self.assertEqual([len(each.attempts) for each in found.deliveries], [1, 0])
        self.assertEqual(found.left_out.attempts, 1)

    def break_(self, connection: Any) -> None:
        for table, column in (("notifications", "body"), ("events", "body"), ("attempts", "detail")):
            connection.exec_driver_sql(
                f"UPDATE {table} SET {column} = x'6e6f' WHERE id = (SELECT min(id) FROM {table})"
            )


class DeliveryTests(HistoryCase):
    async def test_a_delivery_is_told_with_every_attempt_its_event_and_its_call(self) -> None:
        store = await self.opened()
        call = self.made.call(disconnected_at=NOON + SECOND)
        [delivery, other] = self.made.deliveries(call, 2)
        await store.accept(None, [call], [delivery.event, other.event], [delivery, other])
        tried = []
        for status in (PENDING, PENDING, DELIVERED):
            attempt, _ = self.made.tried(delivery, status)
            tried.append(attempt)
            await store.record(attempt, delivery)
        await store.record(*self.made.tried(other, DELIVERED))
        found = await self.delivery(store, delivery.id)
        self.assertEqual((found.attempts, found.event), (tried, delivery.event))
        self.assertEqual((found.delivery.id, found.delivery.status), (delivery.id, DELIVERED))
        assert found.call is not None
        self.assertEqual((found.call.id, found.call.state), (call.id, CallState.DISCONNECTED))
        self.assertEqual(found.left_out, histories.LeftOut())

    async def test_event_and_call_may_be_gone(self) -> None:
        store = await self.opened()
        [delivery] = self.made.deliveries(self.made.call(), 1)
        await store.accept(None, [], [], [delivery])
        found = await self.delivery(store, delivery.id)
        self.assertEqual((found.event, found.call, found.attempts), (None, None, []))
