"""Whether a receiver may be sent to."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cubehook import config
from cubehook.delivery.breaker import Breaker, State
from cubehook.records import Trouble

SECOND = 1_000_000
SETTINGS = config.Breaker(failures=3, share=0.5, minimum=10, window=60.0, first=2.0, longest=10.0)


def breaker(concurrency: int = 8, **changes: float) -> Breaker:
    fields = {name: getattr(SETTINGS, name) for name in SETTINGS.__struct_fields__}
    return Breaker(concurrency, config.Breaker(**(fields | changes)))


def fail(breaker: Breaker, times: int, now: int = 0) -> list[bool]:
    return [breaker.failed(now, 0.5) for _ in range(times)]


class OpeningTests(SynchronousTestCase):
    def test_closed_it_allows_all(self) -> None:
        one = breaker()
        self.assertEqual((State.CLOSED, 8, None, False), (one.state, one.limit, one.held_until, one.on_trial))

    def test_failures_in_a_row_open_it(self) -> None:
        one = breaker()
        self.assertEqual([False, False, True], fail(one, 3, 100))
        self.assertEqual(
            (State.OPEN, 0, 100 + 2 * SECOND, False), (one.state, one.limit, one.held_until, one.on_trial)
        )
        self.assertEqual((3, 100), (one.failures, one.failing_since))

    def test_a_success_between_them_begins_the_count_anew(self) -> None:
        one = breaker()
        fail(one, 2, 5)
        one.succeeded(6)
        self.assertEqual((0, None), (one.failures, one.failing_since))
        self.assertEqual([False, False, True], fail(one, 3, 7))
        self.assertEqual(7, one.failing_since)

    def test_a_share_of_failures_opens_it(self) -> None:
        one = breaker()
        for second in range(5):
            one.succeeded(second * SECOND)
            self.assertEqual(second == 4, one.failed(second * SECOND, 0.5))
        self.assertEqual(State.OPEN, one.state)

    def test_too_few_attempts_say_nothing_of_a_share(self) -> None:
        one = breaker()
        for second in range(4):
            one.succeeded(second * SECOND)
            self.assertFalse(one.failed(second * SECOND, 0.5))

    def test_a_share_is_of_the_window_only(self) -> None:
        one = breaker()
        for second in range(0, 100 * 20, 20):
            one.succeeded(second * SECOND)
            self.assertFalse(one.failed(second * SECOND, 0.5), "six attempts a window are less than ten")

    def test_a_smaller_share_does_not_open_it(self) -> None:
        one = breaker()
        for number in range(300):
            one.succeeded(number)
            one.succeeded(number)
            self.assertFalse(one.failed(number, 0.5))

    def test_one_that_says_it_is_unavailable_opens_at_once(self) -> None:
        one = breaker()
        self.assertTrue(one.failed(0, 0.5, unavailable=True))
        self.assertEqual(2 * SECOND, one.held_until)

    def test_the_time_varies_by_a_tenth(self) -> None:
        for chance, seconds in ((0.0, 1.8), (0.5, 2.0), (1.0, 2.2)):
            one = breaker()
            one.failed(0, chance, unavailable=True)
            self.assertEqual(int(seconds * SECOND), one.held_until)

    def test_a_clock_that_is_set_back_harms_nothing(self) -> None:
        one = breaker(failures=1000)
        for _ in range(9):
            one.failed(10**9 * SECOND, 0.5)
        self.assertTrue(one.failed(0, 0.5))


class TrialTests(SynchronousTestCase):
    def test_a_trial_that_succeeds_closes_it(self) -> None:
        one = breaker()
        fail(one, 3)
        one.try_once()
        self.assertEqual(
            (State.HALF_OPEN, 1, None, True), (one.state, one.limit, one.held_until, one.on_trial)
        )
        one.succeeded(1)
        self.assertEqual(State.HALF_OPEN, one.state, "it is for release to close")
        one.release()
        self.assertEqual((State.CLOSED, 8, 0, None), (one.state, one.limit, one.failures, one.failing_since))
        self.assertEqual([False, False, True], fail(one, 3))
        self.assertEqual(2 * SECOND, one.held_until, "it begins with the first wait again")

    def test_closed_it_forgets_what_share_failed(self) -> None:
        one = breaker()
        for _ in range(5):
            one.succeeded(0)
            one.failed(0, 0.5)
        self.assertEqual(State.OPEN, one.state)
        one.try_once()
        one.release()
        self.assertFalse(one.failed(1, 0.5))

    def test_a_trial_that_fails_does_not_shorten_what_another_asked_for(self) -> None:
        one = breaker()
        fail(one, 3)
        one.try_once()
        one.asked(0, 90 * SECOND)
        self.assertFalse(one.failed(1, 0.5, trial=True))
        self.assertEqual(90 * SECOND, one.held_until)

    def test_each_trial_that_fails_doubles_the_wait_up_to_the_longest(self) -> None:
        one = breaker()
        fail(one, 3)
        waits = []
        for _ in range(5):
            one.try_once()
            self.assertTrue(one.failed(0, 0.5, trial=True))
            waits.append((one.held_until or 0) // SECOND)
        self.assertEqual([4, 8, 10, 10, 10], waits)
        self.assertEqual(0, one.failing_since)

    def test_what_began_before_it_opened_changes_nothing(self) -> None:
        one = breaker()
        fail(one, 3)
        self.assertEqual([False] * 5, fail(one, 5, SECOND))
        one.succeeded(SECOND)
        self.assertEqual((State.OPEN, 2 * SECOND, 0), (one.state, one.held_until, one.failing_since))
        one.try_once()
        self.assertFalse(one.failed(3 * SECOND, 0.5), "it is not the trial")
        self.assertEqual(State.HALF_OPEN, one.state)

    def test_one_at_a_time_it_can_be_on_trial_too(self) -> None:
        one = breaker(1)
        self.assertFalse(one.on_trial)
        one.asked(0, 50)
        self.assertFalse(one.on_trial)
        one.try_once()
        self.assertTrue(one.on_trial)


class AskedTests(SynchronousTestCase):
    def test_it_is_held_until_the_time_it_named(self) -> None:
        one = breaker()
        self.assertEqual(50, one.asked(0, 50))
        self.assertEqual((State.HELD, 0, 50, 0), (one.state, one.limit, one.held_until, one.failing_since))
        one.try_once()
        one.release()
        self.assertEqual(State.CLOSED, one.state)

    def test_a_hold_is_lengthened_and_never_shortened(self) -> None:
        one = breaker()
        one.asked(0, 50)
        self.assertEqual(50, one.asked(0, 40))
        self.assertEqual(60, one.asked(0, 60))

    def test_asking_while_open_keeps_it_open(self) -> None:
        one = breaker()
        fail(one, 3)
        self.assertEqual(9 * SECOND, one.asked(1, 9 * SECOND))
        self.assertEqual(State.OPEN, one.state)


class RestoreTests(SynchronousTestCase):
    def test_it_stands_as_it_stood(self) -> None:
        one = breaker()
        one.restore(Trouble(failing_since=5, held_until=77, openings=2, told=True))
        self.assertEqual((State.OPEN, 77, 5), (one.state, one.held_until, one.failing_since))
        one.try_once()
        one.failed(100 * SECOND, 0.5, trial=True)
        self.assertEqual(108 * SECOND, one.held_until)

    def test_one_that_only_asked(self) -> None:
        one = breaker()
        one.restore(Trouble(failing_since=5, held_until=77, openings=0, told=False))
        self.assertEqual(State.HELD, one.state)


class AnyStoryTests(SynchronousTestCase):
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(("ok", "fail", "503", "ask", "try", "trial", "close")), st.integers(0, 90)
            )
        )
    )
    def test_never_stuck_and_never_beyond_its_bounds(self, story: list[tuple[str, int]]) -> None:
        one, now = breaker(), 0
        for what, seconds in story:
            now += seconds * SECOND
            match what:
                case "ok":
                    one.succeeded(now)
                case "fail":
                    one.failed(now, 0.99)
                case "503":
                    one.failed(now, 0.0, unavailable=True)
                case "ask":
                    one.asked(now, now + 20 * SECOND)
                case "try" if one.held_until is not None:
                    one.try_once()
                case "trial" if one.on_trial:
                    self.assertTrue(one.failed(now, 0.5, trial=True))
                case "close" if one.on_trial:
                    one.release()
            if one.state is State.CLOSED:
                self.assertEqual(8, one.limit)
                self.assertLess(one.failures, 3)
            elif one.state is State.HALF_OPEN:
                self.assertEqual(1, one.limit)
            else:
                self.assertEqual(0, one.limit)
                self.assertLessEqual(one.held_until or 0, now + 20 * SECOND)
                self.assertIsNotNone(one.failing_since)
