"""Whether a receiver may be sent to."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cubehook.delivery.breaker import FAILING_AFTER, Breaker


class BreakerTests(SynchronousTestCase):
    def test_closed_it_allows_all(self) -> None:
        breaker = Breaker(8)
        self.assertEqual((8, None, False), (breaker.limit, breaker.held_until, breaker.on_trial))

    def test_held_then_on_trial_then_released(self) -> None:
        breaker = Breaker(8)
        self.assertEqual(50, breaker.hold(50))
        self.assertEqual((0, 50, False), (breaker.limit, breaker.held_until, breaker.on_trial))
        breaker.try_once()
        self.assertEqual((1, None, True), (breaker.limit, breaker.held_until, breaker.on_trial))
        breaker.release()
        self.assertEqual((8, None, False), (breaker.limit, breaker.held_until, breaker.on_trial))

    def test_a_hold_is_lengthened_and_never_shortened(self) -> None:
        breaker = Breaker(8)
        breaker.hold(50)
        self.assertEqual(50, breaker.hold(40))
        self.assertEqual(60, breaker.hold(60))

    def test_one_at_a_time_it_can_be_on_trial_too(self) -> None:
        breaker = Breaker(1)
        self.assertFalse(breaker.on_trial)
        breaker.hold(50)
        self.assertFalse(breaker.on_trial)
        breaker.try_once()
        self.assertTrue(breaker.on_trial)

    def test_failing_until_it_answers_once(self) -> None:
        breaker = Breaker(8)
        for _ in range(FAILING_AFTER - 1):
            breaker.failed()
        self.assertFalse(breaker.failing)
        breaker.failed()
        self.assertTrue(breaker.failing)
        breaker.answered()
        self.assertFalse(breaker.failing)
