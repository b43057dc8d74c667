"""How often an address may fail: pure, with time given."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cubehook.api.throttle import Throttle


class Throttles(SynchronousTestCase):
    def test_a_burst_then_one_at_a_time(self) -> None:
        throttle = Throttle(burst=3, seconds_each=10)
        for _ in range(3):
            self.assertEqual(throttle.wait("192.0.2.1", 100.0), 0)
            throttle.failed("192.0.2.1", 100.0)
        self.assertEqual(throttle.wait("192.0.2.1", 100.0), 10)
        self.assertEqual(throttle.wait("192.0.2.1", 109.5), 1)
        self.assertEqual(throttle.wait("192.0.2.1", 110.0), 0)
        throttle.failed("192.0.2.1", 110.0)
        self.assertEqual(throttle.wait("192.0.2.1", 110.0), 10)
        self.assertEqual(throttle.wait("192.0.2.1", 140.0), 0)
        self.assertEqual(throttle.wait("192.0.2.2", 100.0), 0)

    def test_failing_on_does_not_lengthen_the_wait(self) -> None:
        throttle = Throttle(burst=3, seconds_each=10)
        for _ in range(1000):
            throttle.failed("192.0.2.1", 100.0)
        self.assertEqual(throttle.wait("192.0.2.1", 100.0), 10)

    def test_a_network_of_ipv6_is_one_and_an_embedded_ipv4_is_itself(self) -> None:
        throttle = Throttle(burst=1, seconds_each=10)
        throttle.failed("2001:db8::1", 0.0)
        self.assertEqual(throttle.wait("2001:db8::2", 0.0), 10)
        self.assertEqual(throttle.wait("2001:db8:0:1::1", 0.0), 0)
        throttle.failed("::ffff:192.0.2.1", 0.0)
        self.assertEqual(throttle.wait("192.0.2.1", 0.0), 10)
        self.assertEqual(throttle.wait("::ffff:192.0.2.2", 0.0), 0)
        throttle.failed("fe80::1%eth0", 0.0)
        self.assertEqual(throttle.wait("fe80::2", 0.0), 10)

    def test_the_table_is_bounded_and_forgets_the_longest_quiet(self) -> None:
        throttle = Throttle(burst=1, seconds_each=10, addresses=3)
        for host in (1, 2, 3, 1, 4):
            throttle.failed(f"192.0.2.{host}", 0.0)
        self.assertEqual(len(throttle), 3)
        self.assertEqual([throttle.wait(f"192.0.2.{host}", 0.0) for host in (1, 2, 3, 4)], [10, 0, 10, 10])

    def test_nothing_is_kept_of_an_address_whose_time_is_over(self) -> None:
        throttle = Throttle(burst=1, seconds_each=10)
        throttle.failed("", 0.0)
        self.assertEqual(throttle.wait("", 10.0), 0)
        self.assertEqual(len(throttle), 0)

    @settings(max_examples=50)
    @given(st.lists(st.floats(min_value=0, max_value=30), max_size=200))
    def test_whoever_waits_as_told_fails_no_oftener_than_allowed(self, pauses: list[float]) -> None:
        throttle = Throttle(burst=5, seconds_each=6)
        now, answered = 0.0, 0
        for pause in pauses:
            now += pause
            if throttle.wait("192.0.2.1", now) == 0:
                throttle.failed("192.0.2.1", now)
                answered += 1
        self.assertLessEqual(answered, 5 + now / 6 + 1e-6)
