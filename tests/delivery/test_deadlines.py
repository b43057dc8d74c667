"""One timer for many deadlines, and one for whichever comes first."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cubehook.delivery.deadlines import Alarm, Deadlines
from cubehook.events import Micros


class AlarmTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.rang: list[Micros] = []
        self.alarm = Alarm(self.clock, self.now, lambda: self.rang.append(self.now()))

    def now(self) -> Micros:
        return round(self.clock.seconds() * 1_000_000)

    def test_it_rings_once_at_the_earliest_time_and_never_before(self) -> None:
        for at in (5_000_000, 3_000_000, 4_000_000):
            self.alarm.at(at)
        self.clock.pump([0.5] * 20)
        [rang] = self.rang
        self.assertTrue(3_000_000 < rang <= 3_500_000)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_it_may_be_set_again(self) -> None:
        self.alarm.at(1_000_000)
        self.clock.advance(2)
        self.alarm.at(1_500_000)
        self.clock.advance(0.01)
        self.assertEqual([2_000_000, 2_010_000], self.rang)

    def test_cancelled_it_is_silent_until_set_again(self) -> None:
        self.alarm.cancel()
        self.alarm.at(1_000_000)
        self.alarm.cancel()
        self.clock.advance(5)
        self.assertEqual([], self.rang)
        self.alarm.at(6_000_000)
        self.clock.advance(2)
        self.assertEqual(1, len(self.rang))


class DeadlinesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.late: list[str] = []
        self.deadlines: Deadlines[str] = Deadlines(self.clock, 10.0, self.late.append)

    def test_each_is_late_at_its_own_time(self) -> None:
        for name in "abc":
            self.deadlines.add(name)
            self.clock.advance(1)
        self.clock.advance(6.9)
        self.assertEqual([], self.late)
        self.clock.advance(0.2)
        self.assertEqual(["a"], self.late)
        self.clock.advance(1)
        self.assertEqual(["a", "b"], self.late)
        self.clock.advance(5)
        self.assertEqual(["a", "b", "c"], self.late)
        self.assertEqual(0, len(self.deadlines))
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_the_discarded_are_never_late(self) -> None:
        self.deadlines.add("a")
        self.deadlines.add("b")
        self.deadlines.discard("a")
        self.deadlines.discard("nobody")
        self.clock.advance(30)
        self.assertEqual(["b"], self.late)

    def test_one_that_ends_another_ends_it(self) -> None:
        def overdue(name: str) -> None:
            self.late.append(name)
            deadlines.discard("b")

        deadlines: Deadlines[str] = Deadlines(self.clock, 10.0, overdue)
        deadlines.add("a")
        deadlines.add("b")
        self.clock.advance(11)
        self.assertEqual(["a"], self.late)

    def test_one_that_is_added_when_another_is_late_gets_its_time(self) -> None:
        def overdue(name: str) -> None:
            self.late.append(name)
            if name == "a":
                deadlines.add("b")

        deadlines: Deadlines[str] = Deadlines(self.clock, 10.0, overdue)
        deadlines.add("a")
        self.clock.advance(10.1)
        self.clock.advance(9.8)
        self.assertEqual(["a"], self.late)
        self.clock.advance(0.3)
        self.assertEqual(["a", "b"], self.late)

    def test_one_timer_serves_many(self) -> None:
        for number in range(1000):
            self.deadlines.add(str(number))
        self.assertEqual(1, len(self.clock.getDelayedCalls()))
        self.assertEqual(1000, len(self.deadlines.take_all()))
        self.assertEqual([], self.clock.getDelayedCalls())
