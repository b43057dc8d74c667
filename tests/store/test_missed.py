"""Events that a webhook missed: which these are, and how they become deliveries."""

from __future__ import annotations

from typing import Any

import msgspec

from cubehook.events import CallState, Event, Granularity
from cubehook.interfaces import EventNotKeptError
from cubehook.records import Delivery, DeliveryStatus, Job, JobState, Wants
from cubehook.store import Store
from cubehook.store.jobs import Jobs
from cubehook.store.lists import list_deliveries
from tests.store.support import NOON, SECOND
from tests.store.test_jobs import DELIVERED, FAILED, LATER, LEADERS, PENDING, JobCase, ids

DAY = 86_400 * SECOND
ALL = tuple(CallState)


class MissedCase(JobCase):
    def missing(self, *statuses: DeliveryStatus, **given: Any) -> Job:
        wants: dict[str, Any] = {"granularity": Granularity.CALL, "states": ALL, "cubes": (), "kept": DAY}
        wants |= {name: given.pop(name) for name in tuple(wants) if name in given}
        given |= {"statuses": statuses, "missed": Wants(**wants)}
        return self.meant(**given)

    async def happened(self, store: Store, *events: Event) -> list[int]:
        """Events that nobody was owed."""
        for event in events:
            await store.accept(None, [], [event], [])
        return [event.id for event in events]

    async def begun(self, store: Store, job: Job) -> Job:
        await store.jobs.add(job)
        return job


class FindTests(MissedCase):
    async def test_events_that_it_wants_and_has_no_delivery_of(self) -> None:
        store = await self.opened()
        call, other = self.made.call(), self.made.call(cube="lab")
        missed = await self.happened(store, *(self.made.event(call, state) for state in CallState))
        theirs = await self.happened(store, self.made.event(other))
        had = self.made.deliveries(call, 2)
        await self.over(store, had, DELIVERED, FAILED)
        # What another webhook was owed, this one may have missed.
        audit = self.made.deliveries(call, 1, "audit")
        await self.keep(store, audit)
        every = [*missed, *theirs, audit[0].event.id]
        job = self.missing()
        self.assertEqual(await self.found(store.jobs, job), every)
        self.assertEqual(await store.jobs.count(job), 5)
        with_failed = self.missing(FAILED)
        both = sorted([*every, had[1].event.id])
        self.assertEqual(await self.found(store.jobs, with_failed), both)
        # However little is looked at in one read.
        for rows in (1, 3):
            little = Jobs(store.read, store._do, rows=rows)
            self.assertEqual(await self.found(little, with_failed, most=2), both)
            self.assertEqual(await little.count(with_failed), 6)

    async def test_only_such_as_it_wants(self) -> None:
        store = await self.opened()
        here, there = self.made.call(), self.made.call(cube="lab")
        events = [self.made.event(call, state) for call in (here, there) for state in CallState]
        alerting, connected, ended, *_ = await self.happened(store, *events)
        leg = msgspec.structs.replace(self.made.event(here), granularity=Granularity.CONNECTION)
        await self.happened(store, leg)
        wanted = self.missing(cubes=("hq", "none"), states=(CallState.CONNECTED, CallState.DISCONNECTED))
        self.assertEqual(await self.found(store.jobs, wanted), [connected, ended])
        self.assertEqual(await store.jobs.count(wanted), 2)
        legs = self.missing(granularity=Granularity.CONNECTION)
        self.assertEqual(await self.found(store.jobs, legs), [leg.id])
        until = self.missing(until=connected >> 12)
        self.assertEqual(await self.found(store.jobs, until), [alerting])

    async def test_none_that_happened_after_the_job(self) -> None:
        store = await self.opened()
        before = await self.happened(store, self.made.event(self.made.call()))
        job = self.missing()
        await self.happened(store, self.made.event(self.made.call()))
        self.assertEqual(await self.found(store.jobs, job), before)


class HandOverTests(MissedCase):
    async def test_they_are_owed_from_then_on_in_their_order(self) -> None:
        store = await self.opened()
        call = self.made.call()
        events = [self.made.event(call, state) for state in CallState]
        await self.happened(store, *events)
        job = await self.begun(store, self.missing())
        found, through = await store.jobs.find(job, job.cursor, 10)
        handed, again = await store.jobs.hand_over(job.id, found, through, LATER)
        self.assertEqual((handed.state, handed.done, handed.skipped), (JobState.DONE, 3, 0))
        expected = [
            Delivery(id=event.id + 1, webhook="crm", event=event, due_at=LATER, redelivery=True)
            for event in events
        ]
        self.assertEqual(again, expected)
        self.assertEqual(await store.pending("crm", LATER, [], 10), expected)
        self.assertEqual(self.rows(LEADERS), [(expected[0].id, LATER)])
        # Nothing of that is missed any more, whatever becomes of it.
        for delivery in again:
            await store.record(*self.made.tried(delivery, FAILED))
        self.assertEqual(await self.found(store.jobs, self.missing()), [])

    async def test_together_with_what_failed_each_once(self) -> None:
        store = await self.opened()
        call = self.made.call()
        failed = self.made.deliveries(call, 1)
        await self.over(store, failed, FAILED)
        missed = self.made.event(call, CallState.CONNECTED)
        await self.happened(store, missed)
        job = await self.begun(store, self.missing(FAILED))
        handed = []
        for _ in range(4):
            found, through = await store.jobs.find(job, job.cursor, 1)
            job, again = await store.jobs.hand_over(job.id, found, through, LATER)
            handed += ids(again)
            # It is tried at once, in vain.
            for delivery in again:
                await store.record(*self.made.tried(delivery, FAILED))
            if job.state is JobState.DONE:
                break
        self.assertEqual(handed, [failed[0].id, missed.id + 1])
        self.assertEqual((job.state, job.done), (JobState.DONE, 2))

    async def test_what_became_owed_or_over_before_its_turn(self) -> None:
        store = await self.opened()
        events = [self.made.event(self.made.call()) for _ in range(2)]
        await self.happened(store, *events)
        first, second = await self.begun(store, self.missing()), await self.begun(store, self.missing())
        found, through = await store.jobs.find(first, 0, 10)
        await store.jobs.hand_over(first.id, found, through, LATER)
        job, again = await store.jobs.hand_over(second.id, found, through, LATER)
        self.assertEqual((job.done, again), (0, []))
        self.assertEqual(len(self.rows("SELECT id FROM deliveries")), 2)

    async def test_ids_that_are_taken(self) -> None:
        store = await self.opened()
        event = self.made.event(self.made.call())
        others = []
        for place in range(70):
            other = self.made.delivery(event, f"other-{place}")
            other.id = event.id + 1 + place
            others.append(other)
        await store.accept(None, [], [event], others)
        job = await self.begun(store, self.missing())
        self.assertEqual(await self.handed_over(store, job, 10), [event.id + 71])

    async def test_what_is_too_old_to_know_whether_it_was_sent(self) -> None:
        store = await self.opened()
        await self.happened(store, self.made.event(self.made.call()))
        job = await self.begun(store, self.missing(kept=10 * SECOND))
        self.assertEqual(await self.handed_over(store, job, 10), [])
        self.assertEqual((await store.jobs.get(job.id)).state, JobState.DONE)
        self.assertEqual(self.rows("SELECT id FROM deliveries"), [])

    async def test_one_that_cannot_be_read_back(self) -> None:
        store = await self.opened()
        event = self.made.event(self.made.call())
        await self.happened(store, event)
        await self.execute(store, "UPDATE events SET body = '{}'")
        job = await self.begun(store, self.missing())
        self.assertEqual(await self.handed_over(store, job, 10), [])
        job = await store.jobs.get(job.id)
        self.assertEqual((job.done, job.skipped), (0, 1))
        self.assertEqual(await store.pending("crm", LATER, [], 10), [])
        with self.assertRaises(EventNotKeptError):
            await store.jobs.send_again(event.id + 1, LATER)

    async def test_a_list_shows_it_where_its_event_was(self) -> None:
        store = await self.opened()
        event = self.made.event(self.made.call())
        await self.happened(store, event)
        job = await self.begun(store, self.missing())
        [made] = await self.handed_over(store, job, 10)
        page = await store.read(lambda connection: list_deliveries(connection, cube="hq", until=NOON + DAY))
        self.assertEqual(
            [(item.id, item.status, item.at) for item in page.items], [(made, PENDING, event.at)]
        )
