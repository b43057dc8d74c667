"""Which deliveries may be sent next, whatever happened before."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.pool import StaticPool
from twisted.internet.defer import gatherResults
from twisted.trial.unittest import SynchronousTestCase

from cubehook.events import CallState, Micros
from cubehook.records import Delivery, DeliveryStatus
from cubehook.store import queries, schema, statements
from cubehook.store import store as store_module
from cubehook.store.rows import Accepted, Item, Recorded, Rows
from tests.store.support import NOON, SECOND, Made, StoreCase

LATER = NOON + 3600 * SECOND
FAILED, DELIVERED, PENDING = DeliveryStatus.FAILED, DeliveryStatus.DELIVERED, DeliveryStatus.PENDING


def ids(deliveries: list[Delivery]) -> list[int]:
    return [delivery.id for delivery in deliveries]


class PendingTests(StoreCase):
    async def test_a_delivery_comes_back_whole(self) -> None:
        store = await self.opened()
        call = self.made.call()
        event = self.made.event(call, CallState.CONNECTED, called_number=None, talk_seconds=1.5)
        delivery = self.made.delivery(event)
        await self.keep(store, [delivery])
        self.assertEqual(await store.pending("crm", LATER, [], 10), [delivery])

    async def test_only_due_heads_with_all_that_follows_them_oldest_due_first(self) -> None:
        store = await self.opened()
        first, second, waiting = (self.made.deliveries(self.made.call(), 3) for _ in range(3))
        await self.keep(store, first + second + waiting)
        await store.record(*self.made.tried(first[0], PENDING, NOON + 20 * SECOND))
        await store.record(*self.made.tried(second[0], PENDING, NOON + 10 * SECOND))
        await store.record(*self.made.tried(waiting[0], PENDING, NOON + 60 * SECOND))
        found = await store.pending("crm", NOON + 20 * SECOND, [], 100)
        self.assertEqual(ids(found), ids(second + first))
        self.assertEqual(found[0].attempts, 1)
        self.assertEqual(await store.next_due("crm", NOON + 20 * SECOND), NOON + 60 * SECOND)
        self.assertEqual(await store.next_due("crm", NOON + 60 * SECOND), None)

    async def test_what_is_added_behind_a_waiting_head_waits_too(self) -> None:
        store = await self.opened()
        call = self.made.call()
        [head] = self.made.deliveries(call, 1)
        await self.keep(store, [head])
        await store.record(*self.made.tried(head, PENDING, LATER))
        followers = self.made.deliveries(call, 2)
        await self.keep(store, followers)
        self.assertEqual(await store.pending("crm", LATER - 1, [], 100), [])
        self.assertEqual(ids(await store.pending("crm", LATER, [], 100)), ids([head, *followers]))

    async def test_the_next_of_a_call_takes_the_place_of_one_settled(self) -> None:
        for status in (DELIVERED, FAILED, DeliveryStatus.EXPIRED):
            path = self.path.with_name(f"{status}.db")
            store = await self.opened(path)
            deliveries = self.made.deliveries(self.made.call(), 3)
            await self.keep(store, deliveries)
            await store.record(*self.made.tried(deliveries[0], status))
            self.assertEqual(ids(await store.pending("crm", LATER, [], 100)), ids(deliveries[1:]))
            await store.close()

    async def test_pages_hold_whole_calls_and_are_full_while_there_is_more(self) -> None:
        store = await self.opened()
        calls = [self.made.deliveries(self.made.call(), 3) for _ in range(5)]
        await self.keep(store, [delivery for call in calls for delivery in call])
        page = await store.pending("crm", LATER, [], 4)
        self.assertEqual(ids(page), ids(calls[0] + calls[1]))
        resident = [calls[number][0].event.call for number in (0, 1, 3)]
        self.assertEqual(ids(await store.pending("crm", LATER, resident, 4)), ids(calls[2] + calls[4]))
        self.assertEqual(len(await store.pending("crm", LATER, [], 1000)), 15)

    async def test_many_calls_fill_a_page(self) -> None:
        store = await self.opened()
        many = [self.made.delivery(self.made.event(self.made.call())) for _ in range(300)]
        await gatherResults([store.accept(None, [], [each.event], [each]) for each in many])
        self.assertEqual(ids(await store.pending("crm", LATER, [], 200)), ids(many[:200]))

    async def test_webhooks_do_not_mix(self) -> None:
        store = await self.opened()
        call = self.made.call()
        event = self.made.event(call)
        crm, wallboard = self.made.delivery(event, "crm"), self.made.delivery(event, "wallboard")
        await store.accept(None, [call], [event], [crm, wallboard])
        await store.record(*self.made.tried(crm, DELIVERED))
        self.assertEqual(await store.pending("crm", LATER, [], 10), [])
        self.assertEqual(ids(await store.pending("wallboard", LATER, [], 10)), [wallboard.id])
        self.assertEqual(await store.pending("other", LATER, [], 10), [])

    async def test_counts_what_is_pending(self) -> None:
        store = await self.opened()
        self.assertEqual(await store.pending_counts(), {})
        call = self.made.call()
        kept = [*self.made.deliveries(call, 3), *self.made.deliveries(call, 2, "audit")]
        await self.keep(store, kept)
        await store.record(*self.made.tried(kept[0], DeliveryStatus.DELIVERED))
        await store.record(*self.made.tried(kept[1], DeliveryStatus.PENDING, NOON))
        self.assertEqual(await store.pending_counts(), {"crm": 2, "audit": 2})

    async def test_the_oldest_that_is_pending_is_found_but_not_one_that_was_asked_for_again(self) -> None:
        store = await self.opened()
        self.assertEqual(await store.oldest_pending(["crm"]), {})
        over, again, oldest, later = self.made.deliveries(self.made.call(), 4)
        [other] = self.made.deliveries(self.made.call(), 1, "audit")
        await self.keep(store, [over, again, oldest, later, other])
        with closing(sqlite3.connect(self.path)) as database, database:
            database.execute("UPDATE deliveries SET redelivery = 1 WHERE id = ?", (again.id,))
        await store.record(*self.made.tried(over, DELIVERED))
        await store.record(*self.made.tried(oldest, PENDING, LATER))
        found = await store.oldest_pending(["crm", "audit", "gone"])
        self.assertEqual(found, {"crm": oldest.event.at, "audit": other.event.at})
        await store.record(*self.made.tried(oldest, FAILED))
        self.assertEqual(await store.oldest_pending(["crm"]), {"crm": later.event.at})

    async def test_after_the_clock_was_set_back_what_is_pending_is_due_as_soon_as_it_was(self) -> None:
        self.patch(store_module, "_HASTEN_ROWS", 2)
        store = await self.opened()
        overdue, soon, late = (self.made.deliveries(self.made.call(), 2) for _ in range(3))
        [other] = self.made.deliveries(self.made.call(), 1, "audit")
        await self.keep(store, [*overdue, *soon, *late, other])
        now, hour = NOON - 3600 * SECOND, 3600 * SECOND
        await store.record(*self.made.tried(soon[0], PENDING, NOON + 5 * SECOND))
        await store.record(*self.made.tried(late[0], PENDING, NOON + 60 * SECOND))
        self.assertEqual(await store.pending("crm", now, [], 10), [])
        await store.clock_set_back(["crm"], hour, now)
        self.assertEqual(ids(await store.pending("crm", now + SECOND, [], 10)), ids(overdue))
        self.assertEqual(ids(await store.pending("crm", now + 5 * SECOND, [], 10)), ids(overdue + soon))
        self.assertEqual(await store.next_due("crm", now + 5 * SECOND), now + 60 * SECOND)
        # The next of a call takes its place without another wait.
        await store.record(*self.made.tried(soon[0], DELIVERED))
        self.assertEqual(ids(await store.pending("crm", now + SECOND, [], 10)), ids([*overdue, soon[1]]))
        self.assertEqual(await store.pending("audit", now + SECOND, [], 10), [], "another webhook's")

    async def test_reads_what_was_handed_in_before_it(self) -> None:
        store = await self.opened(pace=0.05)
        deliveries = self.made.deliveries(self.made.call(), 2)
        done = [store.accept(None, [], [each.event], [each]) for each in deliveries]
        done.append(store.record(*self.made.tried(deliveries[0], DELIVERED)))
        self.assertEqual(ids(await store.pending("crm", LATER, [], 10)), [deliveries[1].id])
        await gatherResults(done)

    async def test_one_that_does_not_lead_its_call_does_not_lead_it_after_a_try_either(self) -> None:
        store = await self.opened()
        deliveries = self.made.deliveries(self.made.call(), 2)
        await self.keep(store, deliveries)
        await store.record(*self.made.tried(deliveries[0], PENDING, LATER))
        await store.record(*self.made.tried(deliveries[1], PENDING, NOON))
        self.assertEqual(await store.pending("crm", LATER - 1, [], 10), [])

    async def test_settling_lets_the_next_go_on(self) -> None:
        store = await self.opened()
        deliveries = self.made.deliveries(self.made.call(), 3)
        await self.keep(store, deliveries)
        await store.settle(deliveries[0].id, "failed")
        self.assertEqual(ids(await store.pending("crm", LATER, [], 10)), ids(deliveries[1:]))
        await store.settle(deliveries[0].id, "expired")
        await store.settle(12345, "failed")
        self.assertEqual(self.rows("SELECT status FROM deliveries ORDER BY id LIMIT 1"), [("failed",)])

    async def test_a_settled_delivery_does_not_become_pending_again(self) -> None:
        store = await self.opened()
        deliveries = self.made.deliveries(self.made.call(), 2)
        await self.keep(store, deliveries)
        await store.settle(deliveries[0].id, "failed")
        await store.record(*self.made.tried(deliveries[0], PENDING, LATER))
        self.assertEqual(ids(await store.pending("crm", LATER, [], 10)), [deliveries[1].id])
        # It was sent all the same: that is worth knowing.
        await store.record(*self.made.tried(deliveries[0], DELIVERED))
        self.assertEqual(
            self.rows("SELECT status FROM deliveries ORDER BY id"), [("delivered",), ("pending",)]
        )

    async def test_attempts_are_kept_whole(self) -> None:
        store = await self.opened()
        [delivery] = self.made.deliveries(self.made.call(), 1)
        await self.keep(store, [delivery])
        attempt, _ = self.made.tried(delivery, DELIVERED)
        await store.record(attempt, delivery)
        [(id, of_delivery, detail)] = self.rows("SELECT * FROM attempts")
        self.assertEqual((id, of_delivery), (attempt.id, delivery.id))
        self.assertEqual(queries.attempt(detail), attempt)
        self.assertEqual(self.rows("SELECT status, attempts FROM deliveries"), [("delivered", 1)])


class Model:
    """What the store should answer, the simple way."""

    def __init__(self) -> None:
        self.pending: dict[tuple[str, int], list[Delivery]] = {}

    def add(self, delivery: Delivery) -> None:
        self.pending.setdefault((delivery.webhook, delivery.event.call), []).append(delivery)

    def settle(self, delivery: Delivery) -> None:
        lane = self.pending[delivery.webhook, delivery.event.call]
        lane.remove(delivery)
        if not lane:
            del self.pending[delivery.webhook, delivery.event.call]

    def due(self, webhook: str, now: Micros, exclude: list[int]) -> dict[int, list[int]]:
        return {
            call: [delivery.id for delivery in lane]
            for (of_webhook, call), lane in self.pending.items()
            if of_webhook == webhook and call not in exclude and lane[0].due_at <= now
        }

    def next_due(self, webhook: str, after: Micros) -> Micros | None:
        later = [lane[0].due_at for (of_webhook, _), lane in self.pending.items() if of_webhook == webhook]
        return min((due for due in later if due > after), default=None)


_steps = st.lists(
    st.one_of(
        # A new event of a call, for some webhooks.
        st.tuples(st.just("event"), st.integers(0, 2), st.sets(st.sampled_from(["a", "b"]), min_size=1)),
        # A try of the oldest, or now and then another, pending delivery of a lane.
        st.tuples(
            st.just("try"),
            st.integers(0, 9),
            st.integers(0, 4),
            st.sampled_from([PENDING, PENDING, DELIVERED, FAILED]),
            st.integers(0, 50),
        ),
        # The end of a group, and a question.
        st.tuples(
            st.just("ask"),
            st.sampled_from(["a", "b"]),
            st.integers(0, 50),
            st.sets(st.integers(0, 2), max_size=1),
            st.integers(1, 6),
        ),
    ),
    min_size=12,
    max_size=60,
)


class ModelTests(SynchronousTestCase):
    """The writer's statements and the reader's queries against `Model`, in groups of any making."""

    def check(
        self, connection: Any, model: Model, webhook: str, now: Micros, exclude: list[int], limit: int
    ) -> None:
        """Ask the store what `model` knows."""
        expected = model.due(webhook, now, exclude)
        found: dict[int, list[int]] = {}
        for delivery in queries.pending(connection, webhook, now, exclude, limit):
            found.setdefault(delivery.event.call, []).append(delivery.id)
        self.assertEqual(found, {call: expected.get(call) for call in found})
        heads = [model.pending[webhook, call][0].due_at for call in found]
        self.assertEqual(heads, sorted(heads))
        left_out = [model.pending[webhook, call][0].due_at for call in expected if call not in found]
        if left_out:
            count = sum(map(len, found.values()))
            self.assertGreaterEqual(count, limit)
            self.assertLess(count - len(list(found.values())[-1]), limit)
            self.assertLessEqual(heads[-1], min(left_out))
        self.assertEqual(queries.next_due(connection, webhook, now), model.next_due(webhook, now))

    @settings(max_examples=150, suppress_health_check=list(HealthCheck))
    @given(_steps)
    def test_any_history(self, steps: list[tuple[Any, ...]]) -> None:
        made, model = Made(), Model()
        engine = schema_in_memory()
        calls = [made.call() for _ in range(3)]
        start = made.now
        group: list[Item] = []
        with engine.connect() as connection:
            database: Any = connection.connection.dbapi_connection

            def commit() -> None:
                Rows(group).write(database.executemany)
                group.clear()

            for step in steps:
                if step[0] == "event":
                    event = made.event(calls[step[1]])
                    new = [made.delivery(event, webhook) for webhook in sorted(step[2])]
                    group.append(Accepted(None, [calls[step[1]]], [event], new))
                    for delivery in new:
                        model.add(delivery)
                elif step[0] == "try":
                    if not model.pending:
                        continue
                    _, lane_number, place, status, wait = step
                    lanes = sorted(model.pending)
                    lane = model.pending[lanes[lane_number % len(lanes)]]
                    delivery = lane[0] if place else lane[-1]
                    due_at = start + wait * SECOND if status is PENDING else None
                    attempt, _ = made.tried(delivery, status, due_at)
                    group.append(Recorded(attempt, delivery))
                    if status is not PENDING:
                        model.settle(delivery)
                else:
                    webhook, moment, excluded, limit = step[1:]
                    commit()
                    now = start + moment * SECOND
                    self.check(connection, model, webhook, now, [calls[each].id for each in excluded], limit)
            commit()
            for webhook in ("a", "b"):
                for moment in (0, 10, 25, 50):
                    self.check(connection, model, webhook, start + moment * SECOND, [], 100)
            kept = {
                row[0]: row[1:]
                for row in database.execute("SELECT id, status, attempts, due_at FROM deliveries")
            }
            for lane in model.pending.values():
                for delivery in lane:
                    self.assertEqual(kept[delivery.id], ("pending", delivery.attempts, delivery.due_at))
            pending = sum(map(len, model.pending.values()))
            self.assertEqual(sum(status == "pending" for status, *_ in kept.values()), pending)
        engine.dispose()


def schema_in_memory() -> Any:
    engine = create_engine(
        "sqlite://",
        creator=lambda: sqlite3.connect(":memory:", isolation_level=None),
        poolclass=StaticPool,
    )
    schema.metadata.create_all(engine)
    return engine


class PlanTests(SynchronousTestCase):
    """No statement of the hot path, and none of a start, looks at more than it must."""

    def setUp(self) -> None:
        self.engine = schema_in_memory()
        self.addCleanup(self.engine.dispose)

    def plan(self, text: str) -> list[str]:
        with self.engine.connect() as connection:
            database: Any = connection.connection.dbapi_connection
            rows = database.execute(f"EXPLAIN QUERY PLAN {text}", (None,) * text.count("?"))
            return [row[3] for row in rows]

    def plan_of(self, statement: Any, **parameters: Any) -> list[str]:
        compiled = statement.compile(
            dialect=sqlite_dialect.dialect(), compile_kwargs={"render_postcompile": True}
        ).string
        return self.plan(compiled)

    def test_heads_are_read_in_order_from_their_index(self) -> None:
        self.assertEqual(
            self.plan_of(queries.READY),
            ["SEARCH deliveries USING INDEX deliveries_ready (webhook=? AND ready_at<?)"],
        )

    def test_the_oldest_pending_is_the_first_of_its_index(self) -> None:
        self.assertEqual(
            self.plan_of(queries.OLDEST_PENDING),
            [
                "SEARCH deliveries USING INDEX deliveries_undelivered (webhook=? AND status=?)",
                "SEARCH events USING INTEGER PRIMARY KEY (rowid=?)",
            ],
        )

    def test_the_next_due_is_looked_up(self) -> None:
        self.assertEqual(
            self.plan_of(queries.NEXT_DUE),
            ["SEARCH deliveries USING COVERING INDEX deliveries_ready (webhook=? AND ready_at>?)"],
        )

    def test_lanes_are_looked_up(self) -> None:
        self.assertEqual(
            self.plan_of(queries.LANES.params(calls=[1, 2, 3], webhook="crm")),
            [
                "SEARCH deliveries USING INDEX deliveries_call (call=? AND webhook=?)",
                "SEARCH events USING INTEGER PRIMARY KEY (rowid=?)",
            ],
        )

    def test_pending_deliveries_are_counted_in_their_index(self) -> None:
        steps = self.plan_of(queries.PENDING_COUNTS)
        self.assertEqual(steps[0], "SCAN deliveries USING COVERING INDEX deliveries_undelivered")

    def test_calls_that_ended_are_looked_up(self) -> None:
        self.assertEqual(
            self.plan_of(queries.ENDED_CALLS),
            ["SEARCH events USING INTEGER PRIMARY KEY (rowid>?)"],
        )

    def test_open_calls_are_read_from_their_index(self) -> None:
        self.assertEqual(self.plan_of(queries.OPEN_CALLS), ["SCAN calls USING INDEX calls_open"])

    def test_writing_scans_no_table(self) -> None:
        texts = {
            name: text for name, text in vars(statements).items() if name.isupper() and type(text) is str
        }
        self.assertEqual(len(texts), 11)
        for name, text in texts.items():
            for step in self.plan(text):
                for table in schema.metadata.tables:
                    self.assertFalse(step.startswith(f"SCAN {table}"), f"{name}: {step}")
