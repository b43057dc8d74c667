"""How many deliveries were made on each day."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Connection
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from cubehook.api import deliveries
from cubehook.api.deliveries import DaysQuery, DeliveriesPart
from cubehook.api.errors import InvalidError
from cubehook.api.operations import Caller
from cubehook.events import Micros
from cubehook.store import tallies
from cubehook.times import parse_time
from tests.store.support import NOON
from tests.store.test_lists import History

DAY: Micros = 86_400_000_000
ADA = Caller("ada")

T = TypeVar("T")


class Store:
    """Reads at once."""

    def __init__(self, history: History) -> None:
        self._history = history

    async def read(self, work: Callable[[Connection], T]) -> T:
        self._history.write()
        with self._history.engine.connect() as connection:
            return work(connection)


class Days(TestCase):
    def setUp(self) -> None:
        self.history = History()
        self.addCleanup(self.history.engine.dispose)
        store: Any = Store(self.history)
        self.part = DeliveriesPart(store)

    def deliver(self, at: Micros, webhook: str = "crm") -> None:
        self.history.made.now = at
        self.history.deliver(self.history.call(states="A"), webhook)

    async def days(self, since: str, until: str, **more: str) -> list[tuple[str, int, bool]]:
        query = DaysQuery(since=parse_time(since), until=parse_time(until), **more)
        found = await self.part.count_deliveries(ADA, query)
        return [(each.day, each.deliveries, each.more) for each in found.items]

    async def test_days_of_a_zone(self) -> None:
        # Half an hour before midnight in Vienna, and as long after it.
        for at in ("2024-11-22T22:30:00Z", "2024-11-22T23:30:00Z", "2024-11-23T12:00:00Z"):
            self.deliver(parse_time(at))
        span = ("2024-11-21T23:00:00Z", "2024-11-23T23:00:00Z")
        self.assertEqual(
            await self.days(*span, zone="Europe/Vienna"), [("2024-11-22", 1, False), ("2024-11-23", 2, False)]
        )
        self.assertEqual(
            await self.days(*span),
            [("2024-11-21", 0, False), ("2024-11-22", 2, False), ("2024-11-23", 1, False)],
        )

    async def test_no_more_than_was_asked_for(self) -> None:
        for hour in (9, 12, 15):
            self.deliver(parse_time(f"2024-11-23T{hour:02}:30:00Z"))
        self.assertEqual(
            await self.days("2024-11-23T10:00:00Z", "2024-11-23T15:00:00Z"), [("2024-11-23", 1, False)]
        )

    async def test_of_one_webhook(self) -> None:
        for webhook in ("crm", "crm", "zoo"):
            self.deliver(NOON, webhook)
        span = ("2024-11-23T00:00:00Z", "2024-11-24T00:00:00Z")
        self.assertEqual(await self.days(*span, webhook="crm"), [("2024-11-23", 2, False)])
        self.assertEqual(await self.days(*span, webhook="none"), [("2024-11-23", 0, False)])

    async def test_more_than_are_counted(self) -> None:
        self.patch(tallies, "MOST", 2)
        self.patch(deliveries, "MOST", 2)
        span = ("2024-11-23T00:00:00Z", "2024-11-24T00:00:00Z")
        for number, told in ((2, (2, False)), (1, (2, True))):
            for _ in range(number):
                self.deliver(NOON)
            self.assertEqual(await self.days(*span), [("2024-11-23", *told)])

    async def test_a_day_of_23_hours(self) -> None:
        found = await self.days("2024-03-30T23:00:00Z", "2024-04-01T22:00:00Z", zone="Europe/Vienna")
        self.assertEqual([day for day, _, _ in found], ["2024-03-31", "2024-04-01"])

    async def test_what_cannot_be(self) -> None:
        for since, until, zone, field in (
            ("2024-11-23T00:00:00Z", "2024-11-24T00:00:00Z", "Europe/Atlantis", "zone"),
            ("2024-11-23T00:00:00Z", "2024-11-24T00:00:00Z", "../etc/passwd", "zone"),
            ("2024-11-23T00:00:00Z", "2024-11-24T00:00:00Z", "", "zone"),
            ("2024-11-24T00:00:00Z", "2024-11-24T00:00:00Z", "UTC", "since"),
            ("2024-01-01T00:00:00Z", "2024-11-24T00:00:00Z", "UTC", "since"),
        ):
            error = await self.assertFailure(self.ended(since, until, zone), InvalidError)
            self.assertEqual(list(error.fields), [field])

    def ended(self, since: str, until: str, zone: str) -> Any:
        return Deferred.fromCoroutine(self.days(since, until, zone=zone))
