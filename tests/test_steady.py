"""Timers keep their time while somebody sets the clock."""

from __future__ import annotations

import time
from typing import Any

from twisted.internet.base import ReactorBase
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from cubehook import steady
from cubehook.events import Micros


class _Reactor(ReactorBase):
    """Only its timers; `wall` is the clock that can be set."""

    wall = 1_700_000_000.0

    def __init__(self) -> None:
        super().__init__()
        self.seconds: Any = lambda: self.wall

    def installWaker(self) -> None:
        pass

    def removeReader(self, reader: object) -> None:
        pass

    def installHandleSignals(self) -> None:
        pass


class SteadyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.steady = 5_000.0
        self.patch(time, "clock_gettime", lambda clock: self.steady)
        self.reactor = _Reactor()
        self.rang: list[str] = []

    def pass_by(self, seconds: float) -> None:
        self.steady += seconds
        self.reactor.wall += seconds
        self.reactor.runUntilCurrent()

    def test_timers_set_before_and_after_ring_in_time_whatever_the_clock_says(self) -> None:
        for hours in (-25, -1, 1, 25):
            self.rang.clear()
            self.reactor = _Reactor()
            self.reactor.callLater(10, self.rang.append, "before")
            steady.make_steady(self.reactor)
            again = self.reactor.callLater(1, self.rang.append, "put off")
            self.reactor.callLater(20, self.rang.append, "after")
            self.reactor.wall += hours * 3600
            again.reset(15)
            self.pass_by(9.9)
            self.assertEqual(self.rang, [])
            self.assertAlmostEqual(self.reactor.timeout(), 0.1, places=3)
            self.pass_by(0.2)
            self.assertEqual(self.rang, ["before"])
            self.pass_by(5)
            self.assertEqual(self.rang, ["before", "put off"])
            self.pass_by(5)
            self.assertEqual(self.rang, ["before", "put off", "after"])

    def test_a_reactor_as_twisted_makes_it_needs_this(self) -> None:
        self.reactor.callLater(10, self.rang.append, "late")
        self.reactor.wall -= 3600
        self.pass_by(11)
        self.assertEqual(self.rang, [], "Twisted's own timers follow the clock no more: drop cubehook.steady")

    def test_it_is_done_once(self) -> None:
        self.reactor.callLater(10, self.rang.append, "once")
        steady.make_steady(self.reactor)
        steady.make_steady(self.reactor)
        self.pass_by(10)
        self.assertEqual(self.rang, ["once"])


class ClockWatchTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.wall = 1_700_000_000_000_000
        self.steady = 100.0
        self.steps: list[Micros] = []
        self.watch = steady.ClockWatch(lambda: self.wall, lambda: self.steady, self.steps.append)

    def pass_by(self, seconds: float, *, step: float = 0.0) -> None:
        self.steady += seconds
        self.wall += int((seconds + step) * 1_000_000)
        self.watch.look()

    def test_time_that_passes_is_no_step_nor_is_a_clock_that_is_led(self) -> None:
        for _ in range(100):
            self.pass_by(1.0, step=0.5)
        self.assertEqual(self.steps, [])

    def test_each_step_is_told_once_with_its_size(self) -> None:
        with capturedLogs() as logged:
            for step in (-3600.0, 0.0, 86400.0, 0.0, 10.0):
                self.pass_by(1.0, step=step)
        self.assertEqual(self.steps, [-3600_000_000, 86400_000_000, 10_000_000])
        texts = [formatEvent(event) for event in logged]
        self.assertIn("set back by 3600 s", texts[0])
        self.assertIn("set forward by 86400 s", texts[1])
        self.assertIn("nothing is deleted", texts[1])
        self.assertNotIn("nothing is deleted", texts[0] + texts[2])

    def test_after_a_leap_forward_its_word_is_doubted_for_a_day(self) -> None:
        self.pass_by(1.0, step=-86400.0)
        self.assertFalse(self.watch.doubtful)
        self.pass_by(1.0, step=2 * 86400.0)
        self.assertTrue(self.watch.doubtful)
        self.pass_by(86000.0)
        self.assertTrue(self.watch.doubtful)
        self.pass_by(500.0)
        self.assertFalse(self.watch.doubtful)
