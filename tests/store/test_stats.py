"""What calls add up to, whatever they went through."""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from functools import partial
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, create_engine, event
from sqlalchemy.pool import StaticPool
from twisted.trial.unittest import SynchronousTestCase

from cubehook.calls.payload import call_event
from cubehook.events import Call, CallState, Event, Granularity, Micros, Outcome
from cubehook.ids import Ids, id_time
from cubehook.store import Store, schema, stats
from cubehook.store.rows import HOUR, Accepted, Rows
from cubehook.store.stats import MINUTE, Active, Busy, Statistics, in_progress, keep_sample, statistics
from tests.calls.test_tracker_properties import Said, run, troubled
from tests.store.support import NOON, SECOND, StoreCase

DAY = 24 * HOUR


def database() -> Any:
    engine = create_engine(
        "sqlite://",
        creator=lambda: sqlite3.connect(":memory:", isolation_level=None),
        poolclass=StaticPool,
    )
    schema.metadata.create_all(engine)
    return engine


def write(connection: Connection, *items: Accepted) -> None:
    raw: Any = connection.connection.dbapi_connection
    Rows(items).write(raw.executemany)


def recounted(calls: list[Call]) -> dict[tuple[int, str], dict[str, int]]:
    """What `hourly` is to have: the calls that ended, added up anew."""
    hours: dict[tuple[int, str], dict[str, int]] = defaultdict(lambda: dict.fromkeys(schema.HOURLY, 0))
    for call in calls:
        if call.ended:
            sums = hours[id_time(call.id) // HOUR, call.cube]
            sums["calls"] += 1
            if call.outcome is not None:
                sums[call.outcome] += 1
            if call.ring_seconds is not None:
                sums["rung"] += 1
                sums["ring_ms"] += round(call.ring_seconds * 1000)
            if call.talk_seconds is not None:
                sums["talked"] += 1
                sums["talk_ms"] += round(call.talk_seconds * 1000)
    return dict(hours)


class AddedUpTests(SynchronousTestCase):
    """What the writer adds up as calls end is what going through all calls would give."""

    @settings(max_examples=150, suppress_health_check=list(HealthCheck))
    @given(troubled(), st.booleans(), st.integers(1, 5))
    def test_of_anything_that_a_gateway_says(
        self, steps: list[Said], leg_events: bool, together: int
    ) -> None:
        gateway, _ = run(steps, leg_events)
        engine = database()
        with engine.connect() as connection:
            # Calls are saved many times, each event comes with one save: in groups of any size.
            saved = [msgspec.json.decode(call, type=Call) for call in gateway.saved.values()]
            of = {call.id: call for call in saved}
            items = [Accepted(None, [of[each.call]], [each], []) for each in gateway.events]
            for start in range(0, len(items), together):
                write(connection, *items[start : start + together])
            write(connection, Accepted(None, saved, [], []))
            rows = connection.exec_driver_sql("SELECT * FROM hourly").mappings()
            found = {(row["hour"], row["cube"]): {name: row[name] for name in schema.HOURLY} for row in rows}
            self.assertEqual(found, recounted(saved))
        engine.dispose()


class StatsCase(StoreCase):
    def setUp(self) -> None:
        super().setUp()
        self._ids = Ids(lambda bits: 0)

    async def ended(
        self,
        store: Store,
        at: Micros,
        outcome: Outcome = Outcome.ANSWERED,
        *,
        cube: str = "hq",
        numbers: tuple[str | None, str | None] = ("+1", "+2"),
        ring: int = 4,
        talk: int | None = 60,
        inferred: bool = False,
    ) -> Call:
        """A call that began at `at`, kept with its end."""
        call = Call(
            id=self._ids.next(at),
            cube=cube,
            gateway_call_id="1",
            started_at=at,
            last_heard_at=at,
            calling_number=numbers[0],
            called_number=numbers[1],
            alerting_at=at,
            connected_at=None if talk is None else at + ring * SECOND,
            disconnected_at=at + (ring + (talk or 0)) * SECOND,
            outcome=outcome,
            inferred=inferred,
            sequence=3,
        )
        assert call.disconnected_at is not None
        told = Event(
            id=self.made.id(),
            call=call.id,
            cube=cube,
            granularity=Granularity.CALL,
            at=call.disconnected_at,
            payload=call_event(call, CallState.DISCONNECTED, call.disconnected_at),
        )
        await store.accept(None, [call], [told], [])
        return call

    async def ask(self, store: Store, **asked: Any) -> Statistics:
        return await store.read(partial(statistics, **{"since": NOON, "until": NOON + DAY} | asked))


class StatisticsTests(StatsCase):
    async def test_sums_in_all_by_cube_and_by_hour(self) -> None:
        store = await self.opened()
        await self.ended(store, NOON, talk=30)
        await self.ended(store, NOON + HOUR, talk=90, ring=6)
        await self.ended(store, NOON + HOUR + 1, Outcome.MISSED, cube="branch", talk=None, ring=20)
        await self.ended(store, NOON + 5 * HOUR, talk=10, inferred=True)
        found = await self.ask(store)
        self.assertEqual(
            (found.total.calls, found.total.rung, found.total.talked, found.total.outcomes),
            (4, 4, 2, dict.fromkeys(Outcome, 0) | {Outcome.ANSWERED: 3, Outcome.MISSED: 1}),
        )
        self.assertEqual(found.total.answer_rate, 0.75)
        self.assertEqual(found.total.average_ring_seconds, (4 + 6 + 20 + 4) / 4)
        self.assertEqual(found.total.average_talk_seconds, 60.0)
        self.assertEqual({cube: sums.calls for cube, sums in found.cubes.items()}, {"hq": 3, "branch": 1})
        self.assertEqual(found.cubes["branch"].average_talk_seconds, None)
        hours = [(hour.at, hour.sums.calls) for hour in found.hours]
        self.assertEqual(hours, [(NOON, 1), (NOON + HOUR, 2), (NOON + 5 * HOUR, 1)])
        self.assertEqual([hour.at for hour in found.peak_hours], [NOON + HOUR, NOON, NOON + 5 * HOUR])

    async def test_of_one_cube_nothing_of_another(self) -> None:
        store = await self.opened()
        await self.ended(store, NOON)
        await self.ended(store, NOON, Outcome.BUSY, cube="branch", numbers=("+3", "+4"), talk=None)
        await store.sample(NOON // MINUTE, {"hq": 5, "branch": 2})
        found = await self.ask(store, cube="branch")
        self.assertEqual((found.total.calls, list(found.cubes)), (1, ["branch"]))
        self.assertEqual([hour.sums.outcomes[Outcome.BUSY] for hour in found.hours], [1])
        self.assertEqual((found.called, found.calling, found.compared), ([Busy("+4", 1)], [Busy("+3", 1)], 1))
        self.assertEqual((found.peak, list(found.peaks)), (Active(NOON, 2), ["branch"]))

    async def test_the_time_is_of_whole_hours(self) -> None:
        store = await self.opened()
        for at in (NOON - 1, NOON, NOON + HOUR - 1, NOON + HOUR, NOON + 2 * HOUR):
            await self.ended(store, at)
        found = await self.ask(store, since=NOON + 1, until=NOON + HOUR + 1)
        self.assertEqual((found.since, found.until), (NOON, NOON + 2 * HOUR))
        self.assertEqual((found.total.calls, found.compared), (3, 3))
        found = await self.ask(store, since=NOON, until=NOON + HOUR)
        self.assertEqual((found.total.calls, found.compared), (2, 2))

    async def test_of_nothing_nothing_is_told(self) -> None:
        store = await self.opened()
        found = await self.ask(store)
        self.assertEqual((found.total.calls, found.total.answer_rate), (0, None))
        self.assertEqual((found.total.average_ring_seconds, found.peak, found.hours), (None, None, []))
        self.assertEqual((found.called, found.compared, found.compared_all), ([], 0, True))

    async def test_the_busiest_numbers_the_most_first(self) -> None:
        store = await self.opened()
        calls = Counter({"+5": 3, "+6": 2, "+7": 2})
        for number, count in calls.items():
            for _ in range(count):
                await self.ended(store, NOON, numbers=("+1", number))
        await self.ended(store, NOON, numbers=(None, "+8"))
        self.patch(stats, "BUSIEST", 3)
        found = await self.ask(store)
        self.assertEqual(found.called, [Busy("+5", 3), Busy("+6", 2), Busy("+7", 2)])
        self.assertEqual(found.calling, [Busy("+1", 7)])

    async def test_of_many_calls_the_newest_are_compared(self) -> None:
        store = await self.opened()
        self.patch(stats, "CALLS_COMPARED", 2)
        for number in ("+5", "+6", "+7"):
            await self.ended(store, NOON, numbers=("+1", number))
        found = await self.ask(store)
        self.assertEqual((found.called, found.compared), ([Busy("+6", 1), Busy("+7", 1)], 2))
        self.assertFalse(found.compared_all)

    async def test_calls_in_progress_are_counted_by_cube(self) -> None:
        store = await self.opened()
        for cube in ("hq", "hq", "branch"):
            await store.accept(None, [self.made.call(cube=cube)], [], [])
        await self.ended(store, NOON, cube="lab")
        self.assertEqual(await store.read(in_progress), {"hq": 2, "branch": 1})

    def test_calls_in_progress_are_counted_without_a_walk_through_all(self) -> None:
        engine = database()
        with engine.connect() as connection:
            told: list[str] = []
            event.listen(engine, "before_cursor_execute", lambda *heard: told.append(heard[2]))
            in_progress(connection)
            [statement] = told
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}").all()
        engine.dispose()
        self.assertEqual([row[3] for row in plan], ["SCAN calls USING INDEX calls_open"])


class SampleTests(StatsCase):
    async def test_the_greatest_of_a_minute_stays(self) -> None:
        store = await self.opened()
        minute = NOON // MINUTE
        await store.sample(minute, {"hq": 3, "branch": 0})
        await store.sample(minute, {"hq": 1, "branch": 1})
        await store.sample(minute + 1, {})
        self.assertEqual(
            self.rows("SELECT * FROM samples ORDER BY cube"),
            [("", minute, 3), ("", minute + 1, 0), ("branch", minute, 1), ("hq", minute, 3)],
        )

    async def test_peaks_in_all_and_by_cube(self) -> None:
        store = await self.opened()
        minute = NOON // MINUTE
        for place, (hq, branch) in enumerate([(1, 0), (4, 1), (2, 3), (4, 0), (0, 3)]):
            await store.sample(minute + place, {"hq": hq, "branch": branch})
        found = await self.ask(store)
        self.assertEqual(found.peak, Active(NOON + MINUTE, 5))
        self.assertEqual(
            found.peaks, {"hq": Active(NOON + MINUTE, 4), "branch": Active(NOON + 2 * MINUTE, 3)}
        )
        # A day has four minutes to a point: the greatest of them, under the time of the point.
        self.assertEqual(found.active_step, 4 * MINUTE)
        self.assertEqual(found.active, [Active(NOON, 5), Active(NOON + 4 * MINUTE, 3)])
        found = await self.ask(store, until=NOON + HOUR)
        self.assertEqual(found.active_step, MINUTE)
        self.assertEqual([each.calls for each in found.active], [1, 5, 5, 4, 3])

    @settings(max_examples=50)
    @given(
        st.dictionaries(
            st.integers(0, 2000),
            st.dictionaries(st.sampled_from(["hq", "branch"]), st.integers(0, 9)),
            max_size=60,
        ),
        st.integers(1, 40),
    )
    def test_any_samples(self, given_: dict[int, dict[str, int]], hours: int) -> None:
        engine = database()
        with engine.connect() as connection:
            for minute, active in given_.items():
                keep_sample(connection, NOON // MINUTE + minute, active)
            found = statistics(connection, since=NOON, until=NOON + hours * HOUR)
        engine.dispose()
        known = {minute: each for minute, each in given_.items() if minute < hours * 60}
        self.assertEqual(found.peak, peak({minute: sum(each.values()) for minute, each in known.items()}))
        for cube in ("hq", "branch"):
            of = {minute: each[cube] for minute, each in known.items() if cube in each}
            self.assertEqual(found.peaks.get(cube), peak(of))
        self.assertLessEqual(len(found.active), stats.POINTS + 1)
        points: dict[int, int] = {}
        for minute, each in known.items():
            at = NOON + minute * MINUTE
            at -= at % found.active_step
            points[at] = max(points.get(at, 0), sum(each.values()))
        self.assertEqual([(each.at, each.calls) for each in found.active], sorted(points.items()))


def peak(active: dict[int, int]) -> Active | None:
    """The most, the first time that was, of what was in progress in minutes after noon."""
    if not active:
        return None
    most = max(active.values())
    return Active(NOON + min(minute for minute, each in active.items() if each == most) * MINUTE, most)
