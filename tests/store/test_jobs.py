"""Sending again in the store: what is meant, what becomes pending, and how far a job is."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.event import listen
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from cubehook.config import Retention, Webhook
from cubehook.ids import first_id
from cubehook.interfaces import DeliveryPendingError, EventNotKeptError, IJobStore, NotFoundError
from cubehook.records import Delivery, DeliveryStatus, Job, JobState
from cubehook.store import Store, jobs, queries
from cubehook.store.jobs import Jobs, make_pending
from cubehook.store.rows import Accepted, Item, Recorded, Rows
from tests.store.support import NOON, SECOND, Made, StoreCase
from tests.store.test_deliveries import schema_in_memory

FAILED, DELIVERED, EXPIRED, PENDING = (
    DeliveryStatus.FAILED,
    DeliveryStatus.DELIVERED,
    DeliveryStatus.EXPIRED,
    DeliveryStatus.PENDING,
)
LATER = NOON + 3600 * SECOND
LEADERS = "SELECT id, ready_at FROM deliveries WHERE ready_at IS NOT NULL ORDER BY id"


def ids(deliveries: list[Delivery]) -> list[int]:
    return [delivery.id for delivery in deliveries]


class JobCase(StoreCase):
    def meant(self, *statuses: DeliveryStatus, webhook: str = "crm", **given: Any) -> Job:
        values: dict[str, Any] = {
            "id": self.made.id(),
            "webhook": webhook,
            "since": NOON,
            "until": LATER,
            "statuses": statuses or (FAILED,),
            "per_second": 50.0,
            "total": 0,
            "asked_by": "an operator",
        }
        return Job(**values | given)

    async def over(self, store: Store, deliveries: list[Delivery], *statuses: DeliveryStatus) -> None:
        """Have `deliveries` been tried, with `statuses` in turn."""
        await self.keep(store, deliveries)
        for number, delivery in enumerate(deliveries):
            await store.record(*self.made.tried(delivery, statuses[number % len(statuses)]))

    async def found(self, finder: Jobs, job: Job, most: int = 100) -> list[int]:
        """All that `finder` finds for `job`, step by step."""
        found: list[int] = []
        after: int | None = job.cursor
        while after is not None:
            more, after = await finder.find(job, after, most)
            self.assertLessEqual(len(more), most)
            found += more
        return found

    async def handed_over(self, store: Store, job: Job, most: int, steps: int = 100) -> list[int]:
        """Take up to `steps` steps with the job kept as `job`."""
        handed = []
        job = await store.jobs.get(job.id)
        for _ in range(steps):
            if job.state is not JobState.RUNNING:
                break
            found, through = await store.jobs.find(job, job.cursor, most)
            job, again = await store.jobs.hand_over(job.id, found, through, LATER)
            handed += ids(again)
        return handed

    async def execute(self, store: Store, statement: str) -> None:
        await store._do(lambda connection: connection.exec_driver_sql(statement).rowcount)


class FindTests(JobCase):
    async def test_the_store_keeps_its_promise(self) -> None:
        verifyObject(IJobStore, (await self.opened()).jobs)

    async def test_finds_what_is_over_in_one_of_the_ways_of_one_webhook_oldest_first(self) -> None:
        store = await self.opened()
        calls = [self.made.deliveries(self.made.call(), 3) for _ in range(4)]
        for each in calls:
            await self.over(store, each, DELIVERED, FAILED, EXPIRED)
        await self.over(store, self.made.deliveries(self.made.call(), 2, "audit"), FAILED)
        await self.keep(store, self.made.deliveries(self.made.call(), 2))
        failed = [each[1].id for each in calls]
        expired = [each[2].id for each in calls]
        self.assertEqual(await self.found(store.jobs, self.meant(FAILED)), failed)
        both = self.meant(EXPIRED, FAILED)
        self.assertEqual(await self.found(store.jobs, both), sorted(failed + expired))
        self.assertEqual(await self.found(store.jobs, both, most=3), sorted(failed + expired))
        self.assertEqual(await store.jobs.count(both), 8)
        self.assertEqual(await store.jobs.find(both, 0, 8), (sorted(failed + expired), None))
        # However few rows are looked at in one read.
        for rows in (1, 2, 7):
            little = Jobs(store.read, store._do, rows=rows)
            self.assertEqual(await self.found(little, both, most=2), sorted(failed + expired))
            self.assertEqual(await little.count(both), 8)

    async def test_from_since_up_to_but_without_until_and_none_made_after_the_job(self) -> None:
        store = await self.opened()
        deliveries = self.made.deliveries(self.made.call(), 6)
        job = self.meant(until=LATER)
        await self.over(store, [*deliveries, *self.made.deliveries(self.made.call(), 2)], FAILED)
        self.assertEqual(await self.found(store.jobs, job), ids(deliveries))
        self.assertEqual(await store.jobs.count(job), 6)
        since, until = deliveries[1].id >> 12, deliveries[4].id >> 12
        job = self.meant(since=since, until=until, cursor=first_id(since) - 1)
        self.assertEqual(await self.found(store.jobs, job), ids(deliveries[1:4]))
        self.assertEqual(await store.jobs.count(job), 3)
        # The first id of a time belongs to it.
        edge = self.made.delivery(self.made.event(self.made.call()))
        edge.id = first_id(self.made.now)
        await self.over(store, [edge], FAILED)
        self.assertNotIn(edge.id, await self.found(store.jobs, self.meant(until=edge.id >> 12)))
        since_then = self.meant(since=edge.id >> 12, cursor=edge.id - 1)
        self.assertEqual(await self.found(store.jobs, since_then), [edge.id])
        self.assertEqual(await store.jobs.count(since_then), 1)
        # A range that ends in a year whose ids no database takes.
        for_ever = self.meant(until=250_000_000_000_000_000)
        self.assertEqual(len(await self.found(store.jobs, for_ever)), 9)
        never = self.meant(since=250_000_000_000_000_000, until=260_000_000_000_000_000)
        self.assertEqual(await store.jobs.count(never), 0)

    async def test_what_has_no_event_any_more_is_not_counted(self) -> None:
        store = await self.opened()
        deliveries = self.made.deliveries(self.made.call(), 3)
        await self.over(store, deliveries, FAILED)
        await self.execute(store, f"DELETE FROM events WHERE id = {deliveries[1].event.id}")
        self.assertEqual(await store.jobs.count(self.meant()), 2)


class HandOverTests(JobCase):
    async def test_pending_again_due_at_once_and_marked_with_all_attempts_to_come(self) -> None:
        store = await self.opened()
        [delivery] = self.made.deliveries(self.made.call(), 1)
        delivery.spent = 3
        await self.over(store, [delivery], FAILED)
        job = self.meant()
        await store.jobs.add(job)
        [found], through = await store.jobs.find(job, 0, 10)
        self.assertIs(through, None)
        job, [again] = await store.jobs.hand_over(job.id, [found], through, LATER)
        expected = msgspec.structs.replace(
            delivery, status=PENDING, redelivery=True, spent=0, due_at=LATER, attempts=1
        )
        self.assertEqual(again, expected)
        self.assertEqual(await store.pending("crm", LATER, [], 10), [expected])
        self.assertEqual((job.state, job.done, job.ended_at), (JobState.DONE, 1, LATER))
        self.assertEqual(await store.jobs.get(job.id), job)
        # It stays marked when it is over, and what it has spent is counted anew.
        again.spent = 1
        await store.record(*self.made.tried(again, DELIVERED))
        self.assertEqual(
            self.rows("SELECT status, attempts, spent, redelivery, ready_at FROM deliveries"),
            [("delivered", 2, 1, 1, None)],
        )

    async def test_what_is_no_longer_so_when_its_turn_comes_stays_as_it_is(self) -> None:
        store = await self.opened()
        deliveries = self.made.deliveries(self.made.call(), 3)
        await self.over(store, deliveries, FAILED)
        job = self.meant()
        await store.jobs.add(job)
        found, through = await store.jobs.find(job, 0, 10)
        once = await store.jobs.send_again(deliveries[0].id, NOON)
        await store.jobs.send_again(deliveries[1].id, NOON)
        await store.record(*self.made.tried(once, DELIVERED))
        job, again = await store.jobs.hand_over(job.id, found, through, LATER)
        self.assertEqual(ids(again), [deliveries[2].id])
        self.assertEqual((job.done, job.skipped), (1, 0))

    async def test_what_cannot_be_read_back_is_skipped_and_counted(self) -> None:
        store = await self.opened()
        deliveries = self.made.deliveries(self.made.call(), 4)
        await self.over(store, deliveries, FAILED)
        await self.execute(store, f"DELETE FROM events WHERE id = {deliveries[1].event.id}")
        await self.execute(store, f"UPDATE events SET body = '{{}}' WHERE id = {deliveries[2].event.id}")
        job = self.meant()
        await store.jobs.add(job)
        self.assertEqual(await self.handed_over(store, job, 10), [deliveries[0].id, deliveries[3].id])
        job = await store.jobs.get(job.id)
        self.assertEqual((job.done, job.skipped, job.state), (2, 2, JobState.DONE))
        # Pending, it would spoil every read.
        self.assertEqual(ids(await store.pending("crm", LATER, [], 10)), [deliveries[0].id, deliveries[3].id])
        for unreadable in deliveries[1:3]:
            with self.assertRaisesRegex(EventNotKeptError, "no longer kept"):
                await store.jobs.send_again(unreadable.id, LATER)

    async def test_the_oldest_pending_of_a_call_leads_it_and_no_other(self) -> None:
        store = await self.opened()
        call = self.made.call()
        old = self.made.deliveries(call, 3)
        await self.over(store, old, FAILED)
        young = self.made.delivery(self.made.event(call), due_at=LATER + SECOND)
        other = self.made.deliveries(self.made.call(), 1, "audit")
        await self.keep(store, other)
        await self.keep(store, [young])
        leader = (young.id, young.due_at)
        self.assertEqual(self.rows(LEADERS), sorted([(other[0].id, other[0].due_at), leader]))
        for delivery in (old[1], old[0], old[2]):
            again = await store.jobs.send_again(delivery.id, LATER)
            self.assertEqual(again.id, delivery.id)
        self.assertEqual(self.rows(LEADERS), sorted([(other[0].id, other[0].due_at), (old[0].id, LATER)]))
        self.assertEqual(ids(await store.pending("crm", LATER, [], 10)), ids([*old, young]))
        # The young one was on its way meanwhile: it is over, and another try of it leads nothing.
        await store.record(*self.made.tried(young, PENDING, NOON))
        self.assertEqual(self.rows(LEADERS), sorted([(other[0].id, other[0].due_at), (old[0].id, LATER)]))
        await store.record(*self.made.tried(young, DELIVERED))
        self.assertEqual(ids(await store.pending("crm", LATER, [], 10)), ids(old))

    async def test_a_job_ends_once_and_does_nothing_after_that(self) -> None:
        store = await self.opened()
        deliveries = self.made.deliveries(self.made.call(), 4)
        await self.over(store, deliveries, FAILED)
        job = self.meant()
        await store.jobs.add(job)
        self.assertEqual(await self.handed_over(store, job, 2, steps=1), ids(deliveries[:2]))
        ended = await store.jobs.end(job.id, JobState.CANCELLED, None, LATER)
        self.assertEqual((ended.state, ended.done, ended.ended_at), (JobState.CANCELLED, 2, LATER))
        self.assertEqual(await store.jobs.end(job.id, JobState.FAILED, "removed", LATER + 1), ended)
        after = await store.jobs.hand_over(job.id, ids(deliveries[2:]), None, LATER)
        self.assertEqual((after.job, after.deliveries), (ended, []))
        self.assertEqual(await store.jobs.running(), [])

    async def test_one_step_is_never_taken_twice(self) -> None:
        store = await self.opened()
        deliveries = self.made.deliveries(self.made.call(), 4)
        await self.over(store, deliveries, FAILED)
        job = self.meant()
        await store.jobs.add(job)
        found, through = await store.jobs.find(job, 0, 2)
        _, again = await store.jobs.hand_over(job.id, found, through, LATER)
        for delivery in again:
            await store.record(*self.made.tried(delivery, FAILED))
        once_more = await store.jobs.hand_over(job.id, found, through, LATER)
        self.assertEqual((once_more.deliveries, once_more.job.done), ([], 2))
        self.assertEqual(await self.handed_over(store, job, 2), ids(deliveries[2:]))

    async def test_after_a_kill_it_goes_on_where_it_was(self) -> None:
        store = await self.opened()
        deliveries = [each for _ in range(5) for each in self.made.deliveries(self.made.call(), 2)]
        await self.over(store, deliveries, FAILED)
        job = self.meant(total=10)
        await store.jobs.add(job)
        handed = await self.handed_over(store, job, 3, steps=2)
        # Found, and killed before it was handed over.
        kept = await store.jobs.get(job.id)
        await store.jobs.find(kept, kept.cursor, 3)
        self.kill(store)
        store = await self.opened()
        [resumed] = await store.jobs.running()
        self.assertEqual((resumed.id, resumed.done, resumed.total), (job.id, 6, 10))
        self.assertEqual(ids(await store.pending("crm", LATER, [], 100)), handed)
        handed += await self.handed_over(store, resumed, 3)
        self.assertEqual(handed, ids(deliveries))
        self.assertEqual((await store.jobs.get(job.id)).done, 10)

    def kill(self, store: Store) -> None:
        """As if its process had died: nothing it holds is written, and its file is free."""
        store._writer._abandon()
        store._writer._inbox.put(None)
        store._lock.release()


class OneTests(JobCase):
    async def test_one_is_sent_again_whatever_way_it_was_over(self) -> None:
        store = await self.opened()
        deliveries = self.made.deliveries(self.made.call(), 3)
        await self.over(store, deliveries, FAILED, DELIVERED, EXPIRED)
        for delivery in deliveries:
            again = await store.jobs.send_again(delivery.id, LATER)
            self.assertEqual((again.id, again.status, again.redelivery), (delivery.id, PENDING, True))
            self.assertEqual(await store.jobs.webhook_of(delivery.id), "crm")
            with self.assertRaisesRegex(DeliveryPendingError, "pending already"):
                await store.jobs.send_again(delivery.id, LATER)

    async def test_what_there_is_not(self) -> None:
        store = await self.opened()
        with self.assertRaisesRegex(NotFoundError, "no delivery 0000000000001"):
            await store.jobs.send_again(1, LATER)
        with self.assertRaisesRegex(NotFoundError, "no delivery 0000000000001"):
            await store.jobs.webhook_of(1)
        for asked in (
            store.jobs.get(1),
            store.jobs.end(1, JobState.CANCELLED, None, LATER),
            store.jobs.hand_over(1, [], None, LATER),
        ):
            with self.assertRaisesRegex(NotFoundError, "no job 0000000000001"):
                await asked
        self.assertFalse(await store.jobs.knows_webhook("crm"))
        await store.provision([], [Webhook(id="crm")], at=NOON, overlap=0.0)
        self.assertTrue(await store.jobs.knows_webhook("crm"))


class KeptTests(JobCase):
    async def test_pages_newest_first(self) -> None:
        store = await self.opened()
        kept = [self.meant(webhook=webhook) for webhook in ("crm", "audit", "crm", "crm")]
        for job in kept:
            await store.jobs.add(job)
        self.assertEqual(await store.jobs.page(None, None, 10), kept[::-1])
        self.assertEqual(await store.jobs.page(None, None, 2), kept[:1:-1])
        self.assertEqual(await store.jobs.page(None, kept[2].id, 10), kept[1::-1])
        self.assertEqual(await store.jobs.page("crm", kept[3].id, 10), [kept[2], kept[0]])
        self.assertEqual(await store.jobs.running(), kept)

    async def test_ids_go_on_after_that_of_a_job(self) -> None:
        store = await self.opened()
        job = self.meant()
        await store.jobs.add(job)
        self.assertEqual(await store.greatest_id(), job.id)

    async def test_old_ones_are_swept_once_they_have_ended(self) -> None:
        store = await self.opened()
        ended, running, young = (self.meant() for _ in range(3))
        for job in (ended, running):
            await store.jobs.add(job)
        self.made.now += 2 * 86_400 * SECOND
        young = self.meant()
        await store.jobs.add(young)
        for job in (ended, young):
            await store.jobs.end(job.id, JobState.DONE, None, self.made.now)
        swept = await store.sweep(Retention(deliveries=86_400), self.made.now)
        self.assertEqual(swept.jobs, 1)
        self.assertEqual([job.id for job in await store.jobs.page(None, None, 10)], [young.id, running.id])


_steps = st.lists(
    st.one_of(
        st.tuples(st.just("event"), st.integers(0, 2), st.sampled_from(["a", "b"])),
        st.tuples(
            st.just("try"),
            st.integers(0, 9),
            st.sampled_from([PENDING, DELIVERED, FAILED]),
            st.integers(0, 50),
        ),
        st.tuples(
            st.just("again"), st.sampled_from(["a", "b"]), st.sets(st.integers(0, 9)), st.integers(0, 50)
        ),
    ),
    min_size=10,
    max_size=60,
)


class LeaderTests(SynchronousTestCase):
    """In every lane the oldest pending delivery leads, and nothing else, whatever is made pending again."""

    @settings(max_examples=150, suppress_health_check=list(HealthCheck))
    @given(_steps)
    def test_any_history(self, steps: list[tuple[Any, ...]]) -> None:
        made = Made()
        engine = schema_in_memory()
        calls = [made.call() for _ in range(3)]
        made_deliveries: list[Delivery] = []
        with engine.connect() as connection:
            database: Any = connection.connection.dbapi_connection
            for kind, *what in steps:
                group: list[Item] = []
                if kind == "event":
                    event = made.event(calls[what[0]])
                    made_deliveries.append(made.delivery(event, what[1]))
                    group.append(Accepted(None, [], [event], made_deliveries[-1:]))
                elif kind == "try":
                    pending = [each for each in made_deliveries if each.status is PENDING]
                    if pending:
                        tried = pending[what[0] % len(pending)]
                        group.append(Recorded(*made.tried(tried, what[1], NOON + what[2] * SECOND)))
                else:
                    webhook, chosen, at = what
                    over = [each for each in made_deliveries if each.status is not PENDING]
                    wanted = [over[number].id for number in chosen if number < len(over)]
                    again, skipped = make_pending(
                        connection, webhook, wanted, [DELIVERED, FAILED], NOON + at * SECOND
                    )
                    expected = {
                        each.id: each for each in over if each.id in wanted and each.webhook == webhook
                    }
                    self.assertEqual((ids(again), skipped), (sorted(expected), 0))
                    for each in again:
                        made_deliveries[made_deliveries.index(expected[each.id])] = each
                Rows(group).write(database.executemany)
                self.check(connection, made_deliveries)
        engine.dispose()

    def check(self, connection: Any, made_deliveries: list[Delivery]) -> None:
        leaders: dict[tuple[int, str], Delivery] = {}
        for each in made_deliveries:
            if each.status is PENDING:
                leaders.setdefault((each.event.call, each.webhook), each)
        found = connection.exec_driver_sql(LEADERS).all()
        self.assertEqual(found, sorted((each.id, each.due_at) for each in leaders.values()))
        for webhook in ("a", "b"):
            expected = sorted(
                each.id for each in made_deliveries if each.status is PENDING and each.webhook == webhook
            )
            everything = queries.pending(connection, webhook, LATER, [], 1000)
            self.assertEqual(sorted(ids(everything)), expected)


class PlanTests(SynchronousTestCase):
    """Nothing looks at more of the table than its range, nor at any other index than it should."""

    def test_no_statement_scans_a_table(self) -> None:
        made = Made()
        engine = schema_in_memory()
        self.addCleanup(engine.dispose)
        over = made.deliveries(made.call(), 3)
        for each in over:
            each.status = FAILED
        job = Job(
            id=made.id(),
            webhook="crm",
            since=NOON,
            until=LATER,
            statuses=(FAILED, EXPIRED),
            per_second=1.0,
            total=3,
            asked_by="an operator",
        )
        plans: list[list[str]] = []

        def explain(_: Any, cursor: Any, statement: str, values: Any, *__: Any) -> None:
            cursor.execute(f"EXPLAIN QUERY PLAN {statement}", values)
            plans.append([row[3] for row in cursor.fetchall()])

        with engine.connect() as connection:
            database: Any = connection.connection.dbapi_connection
            Rows([Accepted(None, [], [each.event], [each]) for each in over]).write(database.executemany)
            listen(engine, "before_cursor_execute", explain)
            self.assertEqual(jobs.count(connection, job, 0, 10)[0], 3)
            found, _ = jobs.find(connection, job, 0, 2, 10)
            self.assertEqual(len(make_pending(connection, "crm", found, job.statuses, LATER)[0]), 2)
            jobs.send_again(connection, over[2].id, LATER)
        in_range = "SEARCH deliveries USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"
        of_webhook = "SEARCH deliveries USING INDEX deliveries_webhook (webhook=? AND id>? AND id<?)"
        self.assertEqual([plan[0] for plan in plans[:4]], [in_range, of_webhook] * 2)
        for plan in plans:
            for step in plan:
                self.assertFalse(step.startswith("SCAN"), plan)
        by_lane = "deliveries_call (call=? AND webhook=?)"
        self.assertIn(by_lane, plans[6][0])
        self.assertEqual(len(plans), 11)
