"""One timer for many deadlines."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cubehook.delivery.deadlines import Deadlines


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
