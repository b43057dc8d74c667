"""How much happens in a minute."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cubehook.operations.rates import Rates

SECOND = 1_000_000


class InAMinute(SynchronousTestCase):
    def setUp(self) -> None:
        self.rates = Rates()

    def told(self, at: int, total: int) -> int:
        return self.rates.in_a_minute(at * SECOND, {"events": total})["events"]

    def test_before_anything_was_noted(self) -> None:
        self.assertEqual(self.told(0, 5), 0)

    def test_since_the_start(self) -> None:
        self.rates.note(0, {"events": 5})
        self.assertEqual(self.told(20, 12), 7)

    def test_of_the_last_minute_alone(self) -> None:
        # One each second, noted every ten.
        for at in range(0, 600, 10):
            self.rates.note(at * SECOND, {"events": at})
        self.assertEqual(self.told(590, 590), 60)
        self.assertEqual(self.told(650, 590), 0)

    def test_little_is_remembered(self) -> None:
        for at in range(0, 6000, 10):
            self.rates.note(at * SECOND, {"events": at})
        self.assertLess(len(self.rates._noted), 10)

    def test_what_is_counted_anew_is_never_less_than_nothing(self) -> None:
        self.rates.note(0, {"events": 500})
        self.assertEqual(self.told(10, 3), 0)

    def test_clock_set_back(self) -> None:
        self.rates.note(1000 * SECOND, {"events": 5})
        self.rates.note(10 * SECOND, {"events": 7})
        self.assertEqual(self.told(20, 9), 2)
