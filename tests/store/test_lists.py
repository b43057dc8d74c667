"""Pages of calls and deliveries: whatever is asked for together, nothing is missed and nothing told twice."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, create_engine, event
from sqlalchemy.pool import StaticPool
from twisted.trial.unittest import SynchronousTestCase

from cubehook.events import Call, CallState, Direction, Event, Micros, Notice, NoticeType, Outcome
from cubehook.ids import id_time
from cubehook.records import Delivery, DeliveryStatus, ErrorClass, Registration, RegistrationState
from cubehook.store import lists, paging, schema
from cubehook.store.numbering import search_key, sought_key
from cubehook.store.paging import Page
from cubehook.store.rows import Accepted, Item, Recorded, Registered, Rows
from tests.store.support import NOON, SECOND, Made

CUBES, WEBHOOKS = ("hq", "branch", "rare"), ("crm", "wallboard", "zoo")
TIMES = {"A": "alerting_at", "C": "connected_at", "D": "disconnected_at"}
NUMBERS = ("+12512501663", "+12517671663", "012512501663", "+16045550100", "anonymous", None)


class History:
    """What was written into a database in memory, and what of it every list should show."""

    def __init__(self) -> None:
        self.engine = create_engine(
            "sqlite://",
            creator=lambda: sqlite3.connect(":memory:", isolation_level=None),
            poolclass=StaticPool,
        )
        schema.metadata.create_all(self.engine)
        self.made = Made()
        self.calls: list[Call] = []
        self.deliveries: list[Delivery] = []
        self._items: list[Item] = []

    def call(
        self,
        cube: str = "hq",
        numbers: tuple[str | None, str | None] = (NUMBERS[0], NUMBERS[3]),
        states: str = "ACD",
        outcome: Outcome | None = None,
    ) -> Call:
        """A call that was told of with `states`; its deliveries are made by `deliver`."""
        call = self.made.call(cube=cube, calling_number=numbers[0], called_number=numbers[1])
        call.direction = Direction.INCOMING
        for state in states:
            setattr(
                call, {"A": "alerting_at", "C": "connected_at", "D": "disconnected_at"}[state], self.made.now
            )
        call.outcome = outcome if "D" in states else None
        self.calls.append(call)
        self._items.append(Accepted(None, [call], [], []))
        self._told(call, CallState.ALERTING, 1)
        return call

    def _told(self, call: Call, state: CallState, sequence: int) -> Event:
        event = self.made.event(
            call, state, sequence=sequence, called_number=call.called_number, cube=call.cube
        )
        self._items.append(Accepted(None, [], [event], []))
        return event

    def deliver(
        self,
        call: Call,
        webhook: str = "crm",
        status: DeliveryStatus = DeliveryStatus.DELIVERED,
        error_class: ErrorClass | None = None,
    ) -> Delivery:
        """A delivery of one more event of `call`, as it stands after an attempt."""
        return self._deliver(self._told(call, CallState.CONNECTED, 2), webhook, status, error_class)

    def notice(self, cube: str, webhook: str = "crm") -> Delivery:
        notice = Event(
            id=self.made.id(),
            call=2**32,
            cube=cube,
            granularity=None,
            at=self.made.now,
            payload=Notice(type=NoticeType.CUBE_LOST, timestamp="", event_id="n1", data={"cube": cube}),
        )
        self._items.append(Accepted(None, [], [notice], []))
        return self._deliver(notice, webhook, DeliveryStatus.DELIVERED, None)

    def _deliver(
        self, event: Event, webhook: str, status: DeliveryStatus, error_class: ErrorClass | None
    ) -> Delivery:
        delivery = self.made.delivery(event, webhook)
        delivery.status, delivery.error_class, delivery.attempts = status, error_class, 1
        self.deliveries.append(delivery)
        self._items += [Accepted(None, [], [], [delivery]), Recorded(None, delivery)]
        return delivery

    def registered(self, cube: str, state: RegistrationState) -> None:
        self._items.append(Registered(Registration(cube=cube, state=state, since=self.made.now, reason="so")))

    def write(self) -> None:
        with self.engine.connect() as connection:
            database: Any = connection.connection.dbapi_connection
            # Each alone, so that a notice of a registration is kept with its own.
            for item in self._items:
                Rows([item]).write(database.executemany)
        self._items.clear()

    def expected_calls(
        self,
        cube: str | None = None,
        number: str | None = None,
        state: CallState | None = None,
        outcome: Outcome | None = None,
        since: Micros | None = None,
        until: Micros | None = None,
    ) -> list[int]:
        return [
            call.id
            for call in reversed(self.calls)
            if cube in (None, call.cube)
            and (number is None or has(call, number))
            and state in (None, lists.state_of(call))
            and outcome in (None, call.outcome)
            and (since is None or id_time(call.id) >= since)
            and (until is None or id_time(call.id) < until)
        ]

    def expected_deliveries(
        self,
        webhook: str | None = None,
        call: int | None = None,
        status: DeliveryStatus | None = None,
        error_class: ErrorClass | None = None,
        number: str | None = None,
        cube: str | None = None,
        since: Micros | None = None,
        until: Micros | None = None,
    ) -> list[int]:
        of = {each.id: each for each in self.calls}
        return [
            each.id
            for each in reversed(self.deliveries)
            if webhook in (None, each.webhook)
            and call in (None, each.event.call)
            and status in (None, each.status)
            and error_class in (None, each.error_class)
            and (number is None or (each.event.call in of and has(of[each.event.call], number)))
            and cube in (None, each.event.cube)
            and (since is None or id_time(each.id) >= since)
            and (until is None or id_time(each.id) < until)
        ]


def has(call: Call, number: str) -> bool:
    key = sought_key(number)
    return bool(key) and any(
        each and search_key(each).startswith(key) for each in (call.calling_number, call.called_number)
    )


def walk(
    connection: Connection, work: Callable[..., Page[Any]], limit: int, pages: int = 10_000
) -> list[Any]:
    """Every item of a list, page after page."""
    found: list[Any] = []
    cursor = None
    while True:
        page = work(connection, cursor=cursor, limit=limit)
        if len(page.items) > limit:
            raise AssertionError(f"{len(page.items)} items on a page of {limit}")
        found += page.items
        if page.next is None:
            return found
        if cursor is not None and page.next >= cursor:
            raise AssertionError("the list does not go on")
        cursor = page.next


def maybe(values: Any) -> Any:
    return st.one_of(st.none(), st.sampled_from(values))


_moments = st.one_of(st.none(), st.integers(0, 500).map(lambda each: NOON + each * 1000))
_calls = st.fixed_dictionaries(
    {
        "cube": maybe(CUBES),
        "number": maybe(("+1 (251) 250-1663", "1663", "3", "0012512501663", "100", "Anonymous", "9", "000")),
        "state": maybe(tuple(CallState)),
        "outcome": maybe(tuple(Outcome)[:3]),
        "since": _moments,
        "until": _moments,
    }
)
_deliveries = st.fixed_dictionaries(
    {
        "webhook": maybe(WEBHOOKS),
        "status": maybe(tuple(DeliveryStatus)),
        "error_class": maybe((ErrorClass.HTTP, ErrorClass.DNS)),
        "number": maybe(("+1 (251) 250-1663", "1663", "3", "100", "nobody", "9", "000")),
        "cube": maybe(CUBES),
        "since": _moments,
        "until": _moments,
    }
)
_steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("call"),
            st.sampled_from(CUBES),
            st.tuples(st.sampled_from(NUMBERS), st.sampled_from(NUMBERS)),
            st.sampled_from(("", "A", "AC", "AD", "ACD", "D")),
            st.sampled_from((*tuple(Outcome)[:3], None)),
        ),
        st.tuples(
            st.just("deliver"),
            st.integers(0, 40),
            st.sampled_from(WEBHOOKS),
            st.sampled_from(
                (
                    (DeliveryStatus.DELIVERED, None),
                    (DeliveryStatus.PENDING, None),
                    (DeliveryStatus.PENDING, ErrorClass.DNS),
                    (DeliveryStatus.FAILED, ErrorClass.HTTP),
                    (DeliveryStatus.EXPIRED, ErrorClass.DNS),
                )
            ),
        ),
        st.tuples(st.just("notice"), st.sampled_from(("hq", "rare", ""))),
    ),
    min_size=20,
    max_size=60,
)


class EveryQuestionTests(SynchronousTestCase):
    """Any filters together, against going through everything; with bounds so small that each matters."""

    def small(self, bound: int) -> None:
        self.patch(paging, "_FIRST_STRETCH", 2)
        self.patch(paging, "_GROWTH", 2)
        self.patch(lists, "BOUND", bound)
        self.patch(lists, "NUMBER_BOUND", bound)
        self.patch(paging.page, "__defaults__", (bound,))
        for name, value in (("_FEW_CALLS", bound), ("_SOME_CALLS", 2 * bound), ("_FEW_EVENTS", bound)):
            self.patch(lists, name, value)
        self.patch(lists, "_AT_ONCE", 2)

    @settings(max_examples=60, suppress_health_check=list(HealthCheck))
    @given(
        _steps,
        st.lists(_calls, min_size=3, max_size=4),
        st.lists(_deliveries, min_size=3, max_size=4),
        st.integers(1, 20),
        st.integers(1, 9),
    )
    def test_finds_all_and_only_what_is_asked_for_newest_first(
        self,
        steps: list[tuple[Any, ...]],
        calls: list[dict[str, Any]],
        deliveries: list[dict[str, Any]],
        bound: int,
        limit: int,
    ) -> None:
        self.small(bound)
        history = History()
        for kind, *given_ in steps:
            if kind == "call":
                history.call(*given_)
            elif kind == "notice":
                history.notice(*given_)
            elif history.calls:
                history.deliver(history.calls[given_[0] % len(history.calls)], given_[1], *given_[2])
        history.write()
        with history.engine.connect() as connection:
            for asked in calls:
                found = walk(connection, partial(lists.list_calls, **asked), limit)
                self.assertEqual([each.id for each in found], history.expected_calls(**asked), asked)
            for asked in deliveries:
                some = [None, *(each.id for each in history.calls[:2])]
                for call in some if asked["webhook"] is None else [None]:
                    asked["call"] = call
                    found = walk(connection, partial(lists.list_deliveries, **asked), limit)
                    self.assertEqual([each.id for each in found], history.expected_deliveries(**asked), asked)
        history.engine.dispose()


class ListCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.history = History()
        self.addCleanup(self.history.engine.dispose)

    def ask(self, work: Callable[..., Page[Any]], **asked: Any) -> Page[Any]:
        self.history.write()
        with self.history.engine.connect() as connection:
            return work(connection, **asked)


class GrowingTests(ListCase):
    def test_what_happens_meanwhile_moves_no_page(self) -> None:
        asked: list[tuple[Callable[..., Page[Any]], dict[str, Any]]] = [
            (lists.list_calls, {}),
            (lists.list_calls, {"cube": "hq"}),
            (lists.list_calls, {"number": "501663"}),
            (lists.list_deliveries, {}),
            (lists.list_deliveries, {"webhook": "crm"}),
            (lists.list_deliveries, {"cube": "hq", "status": DeliveryStatus.FAILED}),
        ]
        for work, filters in asked:
            for _ in range(7):
                self.history.deliver(self.history.call(), status=DeliveryStatus.FAILED)
            before = [item.id for item in self.ask(work, **filters, limit=200).items]
            told: list[int] = []
            cursor = None
            while True:
                page = self.ask(work, **filters, cursor=cursor, limit=3)
                told += [item.id for item in page.items]
                cursor = page.next
                if cursor is None:
                    break
                self.history.deliver(self.history.call(), status=DeliveryStatus.FAILED)
            self.assertEqual(told, before, (work.__name__, filters))


class ItemTests(ListCase):
    def test_a_call_tells_how_it_went(self) -> None:
        call = self.history.call(states="", numbers=(None, "+16045550100"))
        call.alerting_at, call.connected_at = NOON, NOON + 3 * SECOND
        call.disconnected_at, call.outcome = NOON + 10 * SECOND, Outcome.ANSWERED
        self.history._items = [Accepted(None, [call], [], [])]
        [item] = self.ask(lists.list_calls).items
        self.assertEqual(
            item,
            lists.CallItem(
                id=call.id,
                cube="hq",
                calling_number=None,
                called_number="+16045550100",
                direction=Direction.INCOMING,
                state=CallState.DISCONNECTED,
                outcome=Outcome.ANSWERED,
                inferred=False,
                started_at=call.started_at,
                alerting_at=NOON,
                connected_at=NOON + 3 * SECOND,
                disconnected_at=NOON + 10 * SECOND,
                ring_seconds=3.0,
                talk_seconds=7.0,
            ),
        )

    def test_the_state_is_that_of_the_last_event(self) -> None:
        for states in ("", "A", "AC", "ACD"):
            self.history.call(states=states)
        found = [each.state for each in self.ask(lists.list_calls).items]
        self.assertEqual(found, [CallState.DISCONNECTED, CallState.CONNECTED, CallState.ALERTING, None])

    def test_a_call_that_cannot_be_read_back_is_shown_with_what_its_columns_tell(self) -> None:
        call = self.history.call(states="ACD", outcome=Outcome.BUSY)
        self.history.write()
        with self.history.engine.connect() as connection:
            connection.exec_driver_sql("UPDATE calls SET detail = '{'")
        [item] = self.ask(lists.list_calls).items
        self.assertEqual((item.id, item.outcome, item.direction), (call.id, Outcome.BUSY, None))
        self.assertEqual(item.disconnected_at, call.disconnected_at)

    def test_a_delivery_tells_of_its_event_and_how_it_stands(self) -> None:
        call = self.history.call()
        delivery = self.history.deliver(call, "crm", DeliveryStatus.PENDING, ErrorClass.HTTP)
        delivery.answered, delivery.due_at = 503, NOON + 60 * SECOND
        self.history._items[-1] = Recorded(None, delivery)
        [item] = self.ask(lists.list_deliveries).items
        self.assertEqual(
            item,
            lists.DeliveryItem(
                id=delivery.id,
                webhook="crm",
                status=DeliveryStatus.PENDING,
                attempts=1,
                due_at=NOON + 60 * SECOND,
                error_class=ErrorClass.HTTP,
                answered=503,
                redelivery=False,
                at=delivery.event.at,
                call=call.id,
                cube="hq",
                event=delivery.event.id,
                event_id=delivery.event.payload.event_id,
                granularity=delivery.event.granularity,
                state="CONNECTED",
                calling_number="+12512501663",
                called_number="+16045550100",
            ),
        )

    def test_one_of_a_notice_or_without_its_event_tells_what_is_known(self) -> None:
        delivery = self.history.notice("hq")
        [item] = self.ask(lists.list_deliveries, cube="hq").items
        self.assertEqual((item.call, item.cube, item.granularity), (None, "hq", None))
        self.assertEqual((item.event_id, item.state, item.due_at), ("n1", "cube.lost", None))
        with self.history.engine.connect() as connection:
            connection.exec_driver_sql("DELETE FROM events")
        [item] = self.ask(lists.list_deliveries).items
        self.assertEqual((item.id, item.at, item.state), (delivery.id, id_time(delivery.id), None))

    def test_a_page_has_a_sensible_size(self) -> None:
        for limit in (0, 201, -1):
            for work in (lists.list_calls, lists.list_deliveries, lists.list_audit):
                with self.assertRaises(ValueError):
                    self.ask(work, limit=limit)

    def test_the_last_page_says_so(self) -> None:
        for _ in range(4):
            self.history.call()
        page = self.ask(lists.list_calls, limit=2)
        page = self.ask(lists.list_calls, limit=2, cursor=page.next)
        self.assertEqual((len(page.items), page.next), (2, None))

    def test_registrations_tell_their_history(self) -> None:
        self.history.registered("hq", RegistrationState.REGISTERING)
        self.history.registered("branch", RegistrationState.REJECTED)
        self.history.registered("hq", RegistrationState.REGISTERED)
        found = self.ask(lists.list_registration_changes, cube="hq").items
        self.assertEqual([each.state for each in found], ["registered", "registering"])
        self.assertEqual(found[0].reason, "so")
        page = self.ask(lists.list_registration_changes, limit=2)
        self.assertEqual([each.cube for each in page.items], ["hq", "branch"])
        page = self.ask(lists.list_registration_changes, limit=2, cursor=page.next)
        self.assertEqual([each.state for each in page.items], ["registering"])


class BoundTests(ListCase):
    """What no index has is looked for a while, then the page ends."""

    def test_a_page_ends_short_and_the_next_goes_on(self) -> None:
        for place in range(40):
            status = DeliveryStatus.PENDING if place else DeliveryStatus.DELIVERED
            self.history.deliver(self.history.call(), status=status)
        self.patch(lists, "BOUND", 10)
        self.patch(paging, "_FIRST_STRETCH", 4)
        page = self.ask(lists.list_deliveries, webhook="crm", status=DeliveryStatus.DELIVERED)
        self.assertEqual(page.items, [])
        self.assertEqual(page.next, self.history.deliveries[-10].id)

    def test_each_row_is_looked_at_once(self) -> None:
        self.patch(paging, "_FIRST_STRETCH", 4)
        for place in range(30):
            call = self.history.call(cube="hq" if place % 5 else "branch")
            self.history.deliver(
                call, status=DeliveryStatus.DELIVERED if place % 3 else DeliveryStatus.PENDING
            )
        self.history.write()
        found: list[list[int]] = []
        whole_page = paging.page

        def page(*arguments: Any) -> tuple[list[int], int | None]:
            ids, after = whole_page(*arguments)
            found.append(ids)
            return ids, after

        self.patch(lists, "page", page)
        for more in ({}, {"cube": "hq"}, {"webhook": "crm"}):
            asked: dict[str, Any] = {"status": DeliveryStatus.DELIVERED, **more}
            self.ask(lists.list_deliveries, **asked)
            self.assertEqual(found.pop(), self.history.expected_deliveries(**asked))

    def test_an_event_is_a_moment_older_than_its_delivery(self) -> None:
        delivery = self.history.deliver(self.history.call(cube="rare"))
        self.assertLess(id_time(delivery.event.id), id_time(delivery.id))
        page = self.ask(lists.list_deliveries, cube="rare", since=id_time(delivery.id))
        self.assertEqual([each.id for each in page.items], [delivery.id])

    def test_of_many_calls_of_a_number_none_is_missed_between_pages(self) -> None:
        self.patch(lists, "_FEW_CALLS", 4)
        self.patch(lists, "_AT_ONCE", 2)
        chance = random.Random(1)
        for _ in range(60):
            self.history.call(states=chance.choice(("ACD", "ACD", "ACD", "A")))
        self.history.write()
        with self.history.engine.connect() as connection:
            for state in CallState:
                asked: dict[str, Any] = {"number": "1663", "state": state}
                found = walk(connection, partial(lists.list_calls, **asked), 1)
                self.assertEqual([each.id for each in found], self.history.expected_calls(**asked))


def scans(step: str) -> bool:
    """Whether a step of a plan goes through a whole table."""
    name = step.removeprefix("SCAN ").partition(" ")[0]
    return step.startswith("SCAN ") and name in schema.metadata.tables and "calls_open" not in step


class PlanTests(ListCase):
    """Each statement of each question follows an index."""

    def steps(self, work: Callable[..., Page[Any]], **asked: Any) -> list[str]:
        """How SQLite goes about what `work` asks for."""
        self.history.write()
        told: list[tuple[str, Any]] = []
        with self.history.engine.connect() as connection:

            def hear(_: Any, __: Any, statement: str, parameters: Any, ___: Any, ____: Any) -> None:
                # Of two bounds below, SQLite may search by the one that says less.
                self.assertLess(statement.count("calls.id >= ?") + statement.count("deliveries.id >= ?"), 2)
                told.append((statement, parameters))

            event.listen(self.history.engine, "before_cursor_execute", hear)
            try:
                work(connection, **asked)
            finally:
                event.remove(self.history.engine, "before_cursor_execute", hear)
            database: Any = connection.connection.dbapi_connection
            return [
                row[3]
                for statement, parameters in told
                for row in database.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            ]

    def setUp(self) -> None:
        super().setUp()
        for webhook in WEBHOOKS:
            call = self.history.call(outcome=Outcome.BUSY)
            self.history.call(states="A")
            self.history.deliver(call, webhook, DeliveryStatus.FAILED, ErrorClass.HTTP)
            self.history.deliver(call, webhook)

    def check(self, work: Callable[..., Page[Any]], index: str, **asked: Any) -> None:
        plan = self.steps(work, **asked)
        self.assertTrue([step for step in plan if index in step], f"{asked}: {plan}")
        for step in plan:
            self.assertFalse(scans(step), f"{asked}: {plan}")
            self.assertNotIn("TEMP B-TREE FOR ORDER BY", step, f"{asked}: {plan}")

    def test_calls_are_found_by_their_indexes(self) -> None:
        check = partial(self.check, lists.list_calls)
        check("calls USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)")
        check("INDEX calls_cube (cube=? AND id>? AND id<?)", cube="hq")
        check("INDEX calls_cube (cube=? AND id>? AND id<?)", cube="hq", state=CallState.DISCONNECTED)
        check("INDEX calls_outcome (outcome=? AND cube=? AND id>? AND id<?)", outcome=Outcome.BUSY)
        check("INDEX calls_open", state=CallState.ALERTING)
        check("INDEX calls_open", state=CallState.CONNECTED, cube="hq")
        check("numbers USING PRIMARY KEY (key>? AND key<?)", number="1663")

    def test_deliveries_are_found_by_their_indexes(self) -> None:
        check = partial(self.check, lists.list_deliveries)
        check("deliveries USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)")
        check("INDEX deliveries_webhook (webhook=? AND id>? AND id<?)", webhook="crm")
        check(
            "INDEX deliveries_webhook (webhook=? AND id>? AND id<?)",
            webhook="crm",
            status=DeliveryStatus.DELIVERED,
        )
        undelivered = "INDEX deliveries_undelivered (webhook=? AND status=? AND id>? AND id<?)"
        check(undelivered, status=DeliveryStatus.FAILED)
        check(undelivered, status=DeliveryStatus.FAILED, webhook="crm")
        check(undelivered, error_class=ErrorClass.HTTP)
        self.patch(lists, "_FEW_EVENTS", 1)
        check(undelivered, status=DeliveryStatus.FAILED, cube="hq")

    def test_of_calls_and_cubes_they_are_looked_up(self) -> None:
        for asked in ({"call": self.history.calls[0].id}, {"number": "1663"}, {"cube": "hq"}):
            for more in ({}, {"webhook": "crm"}, {"status": DeliveryStatus.FAILED}):
                plan = self.steps(lists.list_deliveries, **asked, **more)
                self.assertTrue([step for step in plan if "INDEX deliveries_call (call=?" in step], plan)
                self.assertFalse([step for step in plan if scans(step)], plan)
                if "cube" in asked:
                    self.assertTrue([step for step in plan if "INDEX events_cube (cube=? AND" in step], plan)
