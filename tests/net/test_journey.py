"""What is told of an exchange's way, with a clock of our own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cubehook.net.journey import Journey, Phase, address_text


class JourneyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.journey = Journey(self.clock.seconds)

    def test_nothing_happened(self) -> None:
        self.assertEqual((self.journey.phases(), self.journey.address), ({}, None))
        self.assertEqual((self.journey.phase, self.journey.kept), (Phase.CONNECTING, False))

    def test_each_phase_lasts_until_the_next_and_the_last_until_now(self) -> None:
        for phase, seconds in ((Phase.RESOLVING, 0.5), (Phase.CONNECTING, 0.25), (Phase.WAITING, 2)):
            self.journey.enter(phase)
            self.clock.advance(seconds)
        expected = {"resolving": 500_000, "connecting": 250_000, "waiting": 2_000_000}
        self.assertEqual(self.journey.phases(), expected)
        self.assertEqual([*self.journey.phases()], [*expected])
        self.assertEqual({type(name) for name in self.journey.phases()}, {str})
        self.assertEqual(self.journey.told(), "resolving 0.50 s, connecting 0.25 s, waiting 2.00 s")

    def test_a_second_address_does_not_begin_the_phase_anew(self) -> None:
        self.journey.tries("192.0.2.1", 443)
        self.clock.advance(0.3)
        self.journey.tries("2001:db8::1", 443)
        self.clock.advance(0.3)
        self.assertEqual(self.journey.phases(), {"connecting": 600_000})
        self.assertEqual(self.journey.address, "192.0.2.1:443, [2001:db8::1]:443")
        self.journey.connected_to = "[2001:db8::1]:443"
        self.assertEqual(self.journey.address, "[2001:db8::1]:443")

    def test_of_many_addresses_the_first_are_told(self) -> None:
        for number in range(9):
            self.journey.tries(f"192.0.2.{number}", 1)
        self.assertTrue(str(self.journey.address).endswith("192.0.2.4:1 and 4 more"))

    def test_a_kept_connection_begins_with_waiting(self) -> None:
        self.journey.enter(Phase.WAITING)
        self.assertTrue(self.journey.kept)
        self.journey.enter(Phase.READING)
        self.assertTrue(self.journey.kept)

    @given(st.lists(st.tuples(st.sampled_from([*Phase]), st.floats(-5, 5))))
    def test_phases_come_in_their_order_and_last_no_less_than_nothing(
        self, steps: list[tuple[Phase, float]]
    ) -> None:
        now = [1000.0]
        journey = Journey(lambda: now[0])
        for phase, seconds in steps:
            journey.enter(phase)
            # A clock may be set back.
            now[0] += seconds
        phases = journey.phases()
        order = [phase.value for phase in Phase]
        self.assertEqual([*phases], sorted(phases, key=order.index))
        self.assertTrue(all(took >= 0 for took in phases.values()))

    def test_addresses_as_in_a_url(self) -> None:
        self.assertEqual(address_text("192.0.2.1", 80), "192.0.2.1:80")
        self.assertEqual(address_text("::1", 80), "[::1]:80")
