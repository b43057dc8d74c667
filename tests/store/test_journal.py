"""What is handed in is on disk when its Deferred fires, whole, in order, as it was."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import update
from twisted.internet.defer import gatherResults
from twisted.internet.utils import getProcessOutputAndValue
from zope.interface.verify import verifyObject

from cubehook.events import CallState, Granularity, Outcome, full_body
from cubehook.interfaces import IDeliveryStore, IJournal
from cubehook.records import DeliveryStatus, Registration, RegistrationState
from cubehook.store import schema, sqlite
from cubehook.store.errors import StoreClosedError
from cubehook.store.packing import unpack
from tests.store.support import NOON, SECOND, StoreCase, until


class AcceptTests(StoreCase):
    async def test_offers_its_interfaces(self) -> None:
        store = await self.opened()
        verifyObject(IJournal, store)
        verifyObject(IDeliveryStore, store)

    async def test_everything_of_a_notification_is_committed_when_it_fires(self) -> None:
        store = await self.opened()
        call = self.made.call()
        event = self.made.event(call)
        delivery = self.made.delivery(event)
        notification = self.made.notification(call, body=b"<a>\xff\x00 as received</a>")
        await store.accept(notification, [call], [event], [delivery])
        [(id, cube, of_call, at, message, body)] = self.rows("SELECT * FROM notifications")
        self.assertEqual(
            (id, cube, of_call, at, message, unpack(body)),
            (notification.id, "hq", call.id, notification.at, "alerting", notification.body),
        )
        self.assertEqual(
            self.rows("SELECT * FROM events"),
            [(event.id, call.id, "hq", "call", "ALERTING", event.at, full_body(event.call_event).decode())],
        )
        self.assertEqual(
            self.rows("SELECT * FROM deliveries"),
            [(delivery.id, "crm", call.id, event.id, "pending", 0, event.at, event.at, 0, 0, None, None)],
        )
        self.assertEqual(await store.open_calls(), [call])

    async def test_does_not_fire_before_it_is_committed(self) -> None:
        store = await self.opened()
        call = self.made.call()
        done = store.accept(None, [call], [], [])
        self.assertFalse(done.called)
        self.assertEqual(store.held_items, 1)
        self.assertGreater(store.held_bytes, 0)
        await done
        self.assertEqual((store.held_items, store.held_bytes), (0, 0))

    async def test_values_are_taken_at_the_call(self) -> None:
        store = await self.opened()
        call = self.made.call(called_number="1001")
        delivery = self.made.delivery(self.made.event(call))
        done = store.accept(None, [call], [delivery.event], [delivery])
        call.called_number = "1002"
        delivery.attempts = 9
        await done
        self.assertEqual([call.called_number for call in await store.open_calls()], ["1001"])
        self.assertEqual(self.rows("SELECT attempts FROM deliveries"), [(0,)])

    async def test_saves_of_one_call_in_a_group_are_written_once_the_last_wins(self) -> None:
        store = await self.opened()
        call = self.made.call()
        saves = []
        for number in range(100):
            call.called_number = str(number)
            saves.append(store.accept(None, [call], [], []))
        await gatherResults(saves)
        self.assertEqual(self.rows("SELECT called_number FROM calls"), [("99",)])

    async def test_a_call_is_saved_again_with_its_columns(self) -> None:
        store = await self.opened()
        call = self.made.call()
        await store.accept(None, [call], [], [])
        call.guid = "694646BC1D2311E7A8D2826ACB31D85A"
        call.alerting_at, call.connected_at, call.disconnected_at = NOON + 1, NOON + 2, NOON + 3
        call.outcome = Outcome.ANSWERED
        call.called_number = "+12512501663"
        await store.accept(None, [call], [], [])
        self.assertEqual(
            self.rows(
                "SELECT guid, calling_number, called_number, outcome, alerting_at, connected_at, "
                "disconnected_at, ended FROM calls"
            ),
            [(call.guid, call.calling_number, "+12512501663", "answered", NOON + 1, NOON + 2, NOON + 3, 1)],
        )
        self.assertEqual(await store.open_calls(), [])

    async def test_any_number_of_rows_is_written(self) -> None:
        store = await self.opened()
        for count in (1, 2, 3, 63, 64, 65, 200, 700):
            before = len(self.rows("SELECT id FROM notifications"))
            done = []
            for _ in range(count):
                call = self.made.call()
                done.append(store.accept(self.made.notification(call), [call], [], []))
            await gatherResults(done)
            self.assertEqual(len(self.rows("SELECT id FROM notifications")) - before, count)
        self.assertEqual(len(await store.open_calls()), 1 + 2 + 3 + 63 + 64 + 65 + 200 + 700)

    async def test_nothing_changed_is_no_error(self) -> None:
        store = await self.opened()
        await store.accept(None, [], [], [])

    async def test_groups_share_commits_and_pace_spaces_them(self) -> None:
        commits: list[float] = []
        store = await self.opened(on_commit=commits.append, pace=0.2)
        await store.accept(None, [self.made.call()], [], [])
        done = [store.accept(None, [self.made.call()], [], []) for _ in range(50)]
        await gatherResults(done)
        self.assertEqual(len(commits), 2)
        self.assertTrue(all(seconds > 0 for seconds in commits))

    async def test_the_greatest_id_is_that_of_any_table(self) -> None:
        store = await self.opened()
        self.assertEqual(await store.greatest_id(), 0)
        call = self.made.call()
        delivery = self.made.delivery(self.made.event(call))
        notification = self.made.notification(call)
        await store.accept(notification, [call], [delivery.event], [delivery])
        self.assertEqual(await store.greatest_id(), notification.id)
        attempt, _ = self.made.tried(delivery, DeliveryStatus.DELIVERED)
        await store.record(attempt, delivery)
        self.assertEqual(await store.greatest_id(), attempt.id)

    async def test_calls_that_ended_of_late_come_back_in_the_order_they_ended(self) -> None:
        store = await self.opened()
        old, *ended, still_open = [self.made.call() for _ in range(5)]
        since = 0
        for call in (old, ended[1], ended[2], ended[0]):
            self.made.now += SECOND
            since = since or self.made.now + SECOND // 2
            call.disconnected_at = self.made.now
            events = [self.made.event(call, state) for state in (CallState.CONNECTED, CallState.DISCONNECTED)]
            legs = [
                msgspec.structs.replace(each, id=self.made.id(), granularity=Granularity.CONNECTION)
                for each in events
            ]
            await store.accept(None, [call], events + legs, [])
        await store.accept(None, [still_open], [self.made.event(still_open)], [])
        self.assertEqual(await store.ended_calls(since, 10), [ended[1], ended[2], ended[0]])
        self.assertEqual(await store.ended_calls(since, 2), [ended[2], ended[0]])
        self.assertEqual(await store.ended_calls(self.made.now + SECOND, 10), [])

    async def test_an_open_call_that_cannot_be_read_back_keeps_no_other_from_it(self) -> None:
        store = await self.opened()
        calls = [self.made.call() for _ in range(3)]
        await store.accept(None, calls, [], [])
        await store._do(
            lambda connection: (
                connection.execute(
                    update(schema.calls).where(schema.calls.c.id == calls[1].id).values(detail='{"id": "x"}')
                ).rowcount
            )
        )
        self.assertEqual(await store.open_calls(), [calls[0], calls[2]])

    async def test_the_log_beside_the_database_does_not_grow_with_what_is_written(self) -> None:
        self.patch(sqlite, "CHECKPOINT_PAGES", 50)
        store = await self.opened()
        greatest = 0
        for _ in range(60):
            done = [
                store.accept(self.made.notification(None, os.urandom(900)), [], [], []) for _ in range(20)
            ]
            await store.open_calls()
            await gatherResults(done)
            greatest = max(greatest, self.path.with_name("cubehook.db-wal").stat().st_size)
        self.assertGreater(self.path.stat().st_size, 1_000_000)
        self.assertLess(greatest, 100 * 4096)

    async def test_a_closed_store_refuses(self) -> None:
        store = await self.opened()
        await store.close()
        await self.assertFailure(store.accept(None, [self.made.call()], [], []), StoreClosedError)
        with self.assertRaises(StoreClosedError):
            await store.open_calls()

    async def test_closing_commits_what_is_held(self) -> None:
        store = await self.opened(pace=60.0)
        await store.accept(None, [self.made.call()], [], [])
        done = [store.accept(None, [self.made.call()], [], []) for _ in range(20)]
        await store.close()
        await gatherResults(done)
        self.assertEqual(self.rows("SELECT count(*) FROM calls"), [(21,)])


class RegistrationTests(StoreCase):
    def registration(self, state: RegistrationState, **given: Any) -> Registration:
        self.made.now += 1
        values: dict[str, Any] = {"cube": "hq", "state": state, "since": self.made.now}
        return Registration(**values | given)

    async def test_the_last_stands_and_only_changes_make_history(self) -> None:
        store = await self.opened()
        first = self.registration(RegistrationState.REGISTERING, reason="the service started")
        second = self.registration(RegistrationState.REGISTERED, registration_id="4CA5E4:XCC:myapp:4")
        third = self.registration(RegistrationState.REGISTERED, last_message_at=NOON, since=second.since)
        fourth = self.registration(RegistrationState.REJECTED, last_error="no such application")
        # In one group, then in groups of their own: both ways must tell the changes.
        await gatherResults([store.registration(first), store.registration(second)])
        await store.registration(third)
        self.assertEqual(await store.registrations(), [third])
        await store.registration(fourth)
        self.assertEqual(await store.registrations(), [fourth])
        self.assertEqual(
            self.rows("SELECT cube, at, state, reason, last_error FROM registration_changes ORDER BY id"),
            [
                ("hq", first.since, "registering", "the service started", None),
                ("hq", second.since, "registered", "", None),
                ("hq", fourth.since, "rejected", "", "no such application"),
            ],
        )

    async def test_cubes_do_not_mix(self) -> None:
        store = await self.opened()
        both = [self.registration(RegistrationState.SILENT, cube=cube) for cube in ("branch", "hq")]
        await gatherResults([store.registration(each) for each in both])
        self.assertEqual(await store.registrations(), both)


_CHILD = """
import os, sys
from pathlib import Path
from typing import Any
from twisted.internet import reactor
import msgspec
from sqlalchemy import update
from twisted.internet.defer import Deferred
from cubehook.store import Store
from tests.store.support import Made

async def work():
    store = Store(Path(sys.argv[1]), reactor)
    await store.open()
    made = Made()
    for _ in range(20):
        call = made.call()
        await store.accept(made.notification(call), [call], [], [])
        os.write(1, b"%d\\n" % call.id)
    store.accept(None, [made.call()], [], [])
    os._exit(9)

def failed(failure):
    failure.printTraceback()
    os._exit(1)

reactor.callWhenRunning(lambda: Deferred.fromCoroutine(work()).addErrback(failed))
reactor.run()
"""


class CrashTests(StoreCase):
    async def test_what_was_told_committed_survives_a_sudden_end(self) -> None:
        output, errors, status = await getProcessOutputAndValue(
            sys.executable,
            ["-c", _CHILD, str(self.path)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        self.assertEqual(status, 9, errors.decode())
        told = [int(line) for line in output.split()]
        self.assertEqual(len(told), 20)
        store = await self.opened()
        kept = [call.id for call in await store.open_calls()]
        self.assertEqual(kept[:20], told)

    async def test_a_copy_of_the_files_at_any_moment_holds_what_was_told_committed(self) -> None:
        store = await self.opened(pace=0.0)
        told: list[int] = []
        for round_ in range(5):
            for _ in range(40):
                call = self.made.call()
                done = store.accept(self.made.notification(call), [call], [], [])
                _ = done.addCallback(lambda _, id: told.append(id), call.id)
            await until(lambda wanted=round_ * 40 + 5: len(told) > wanted)
            # So little does not fill the log: the database itself stands still meanwhile.
            promised = list(told)
            copy = Path(self.mktemp()) / "cubehook.db"
            copy.parent.mkdir()
            shutil.copy(f"{self.path}-wal", f"{copy}-wal")
            shutil.copy(self.path, copy)
            other = await self.opened(copy)
            kept = {call.id for call in await other.open_calls()}
            self.assertEqual([id for id in promised if id not in kept], [])
            await other.close()
        await store.close()
