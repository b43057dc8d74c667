"""Which connections are let in, and which give way."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from cubehook.net.admission import GIVING_WAY, HELD_MOST, LOG_SECONDS, RESERVED, Admission, Place

GATEWAY = "192.0.2.1"


def peer(host: str) -> IPv4Address:
    return IPv4Address("TCP", host, 1)


class AdmissionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.refused = 0
        self.closed: list[Place] = []

    def admission(self, most: int = 8, most_of_address: int = 3, *, known: bool = True) -> Admission:
        def count() -> None:
            self.refused += 1

        return Admission(
            "listen.cubes",
            most,
            most_of_address,
            self.clock.seconds,
            known=GATEWAY.__eq__ if known else None,
            counted=count,
        )

    def let_in(self, admission: Admission, host: str, *, proven: bool = False) -> Place:
        place = admission.let_in(peer(host))
        assert place is not None
        place.close = lambda: self.closed.append(place)
        if proven:
            place.prove()
        return place

    def test_an_address_has_so_many(self) -> None:
        admission = self.admission()
        places = [self.let_in(admission, "198.51.100.1", proven=True) for _ in range(3)]
        self.assertIsNone(admission.let_in(peer("198.51.100.1")))
        self.let_in(admission, "198.51.100.2")
        places[0].leave()
        places[0].leave()
        self.let_in(admission, "198.51.100.1", proven=True)
        self.assertIsNone(admission.let_in(peer("198.51.100.1")))
        self.assertEqual((admission.connections, self.refused, self.closed), (4, 2, []))

    def test_bodies_have_so_much_in_all_and_a_share_is_kept_for_gateways(self) -> None:
        admission = self.admission(most_of_address=8)
        of_strangers = HELD_MOST - HELD_MOST // RESERVED
        one, other = self.let_in(admission, "198.51.100.1"), self.let_in(admission, "198.51.100.2")
        self.assertTrue(one.hold(1) and one.hold(of_strangers - 10) and other.hold(10))
        with capturedLogs() as said:
            self.assertFalse(other.hold(11) or other.hold(12))
        self.assertEqual(len(said), 1)
        self.assertIn(f"{of_strangers} bytes of large requests", formatEvent(said[0]))
        self.assertIn("198.51.100.2", formatEvent(said[0]))
        self.assertEqual(other.held, 10)
        gateway = self.let_in(admission, GATEWAY)
        self.assertTrue(gateway.hold(HELD_MOST - of_strangers))
        self.assertFalse(gateway.hold(HELD_MOST - of_strangers + 1))
        one.leave()
        one.leave()
        self.assertTrue(other.hold(11))
        other.hold(0)
        gateway.leave()
        self.assertTrue(self.let_in(admission, "198.51.100.3").hold(of_strangers))

    def test_who_only_holds_connections_keeps_its_own_address_open(self) -> None:
        # A gateway may share its address with whoever floods, behind a NAT.
        admission = self.admission()
        proven = self.let_in(admission, GATEWAY, proven=True)
        idle = [self.let_in(admission, GATEWAY) for _ in range(2)]
        self.let_in(admission, GATEWAY, proven=True)
        self.assertEqual(self.closed, idle[:1])
        idle.append(self.let_in(admission, GATEWAY))
        self.assertEqual(self.closed, idle[:2])
        self.assertNotIn(proven, self.closed)
        self.assertEqual((admission.connections, self.refused), (3, 2))

    def test_places_are_kept_for_who_is_known(self) -> None:
        admission = self.admission(most_of_address=8)
        for n in range(6):
            self.let_in(admission, f"198.51.100.{n}", proven=True)
        self.assertIsNone(admission.let_in(peer("198.51.100.9")))
        for _ in range(2):
            self.let_in(admission, GATEWAY, proven=True)
        self.assertIsNone(admission.let_in(peer(GATEWAY)))
        self.assertEqual((admission.connections, self.closed), (8, []))

    def test_where_nobody_is_known_all_places_are_anyones(self) -> None:
        admission = self.admission(known=False)
        for n in range(8):
            self.let_in(admission, f"198.51.100.{n}", proven=True)
        self.assertIsNone(admission.let_in(peer("198.51.100.9")))

    def test_strangers_that_ask_for_nothing_give_way(self) -> None:
        admission = self.admission(most_of_address=8)
        strangers = [self.let_in(admission, f"198.51.100.{n}") for n in range(6)]
        strangers[0].prove()
        self.let_in(admission, "198.51.100.9")
        self.assertEqual(self.closed, [strangers[1]])
        for n in range(4):
            self.let_in(admission, GATEWAY, proven=True)
            self.assertEqual(self.closed, strangers[1 : 2 + max(0, n - 1)])
        self.assertEqual(admission.connections, 8)

    def test_only_so_many_a_second_give_way_to_strangers(self) -> None:
        admission = self.admission()
        for n in range(6):
            self.let_in(admission, f"198.51.100.{n}")
        came = [admission.let_in(peer(f"203.0.113.{n}")) for n in range(200)]
        self.assertEqual(
            [place is not None for place in came], [True] * GIVING_WAY + [False] * (200 - GIVING_WAY)
        )
        self.assertEqual(self.refused, 200)
        # To known addresses they do, however many come.
        for _ in range(100):
            self.let_in(admission, GATEWAY)
        self.clock.advance(1)
        self.let_in(admission, "198.51.100.9")

    def test_who_comes_over_a_unix_socket_has_no_address(self) -> None:
        admission = self.admission()
        for address in (UNIXAddress("/run/x"), None):
            for _ in range(4):
                self.assertIsNotNone(admission.let_in(address))
        self.assertIsNone(admission.let_in(UNIXAddress("/run/x")))

    def test_an_ipv4_client_of_an_ipv6_listener_is_who_it_is(self) -> None:
        admission = self.admission(most_of_address=1)
        place = admission.let_in(IPv6Address("TCP", f"::ffff:{GATEWAY}", 1))
        assert place is not None
        self.assertTrue(place.known)
        place.prove()
        self.assertIsNone(admission.let_in(peer(GATEWAY)))

    def test_said_now_and_then(self) -> None:
        admission = self.admission(most_of_address=1)
        self.let_in(admission, "198.51.100.1", proven=True)
        with capturedLogs() as logged:
            for _ in range(100):
                admission.let_in(peer("198.51.100.1"))
            self.clock.advance(LOG_SECONDS)
            admission.let_in(peer("198.51.100.1"))
        said = [formatEvent(event) for event in logged]
        self.assertEqual(len(said), 2)
        self.assertIn("listen.cubes: too many connections; 1 refused", said[0])
        self.assertIn(
            "; 100 refused or closed since this was last said, the latest from 198.51.100.1.", said[1]
        )
        self.assertIn(" 1 are open, 1 of them from there; 8 may be in all, 1 from one address", said[1])
        self.assertEqual(self.refused, 101)


class _Course(RuleBasedStateMachine):
    """Connections come, send requests and go as they like."""

    def __init__(self) -> None:
        super().__init__()
        self.admission = Admission("x", 8, 3, lambda: 0.0, known=GATEWAY.__eq__)
        self.open: list[Place] = []
        self.proven: set[Place] = set()

    @rule(host=st.sampled_from([GATEWAY, "a", "b", "c", "d", None]))
    def come(self, host: str | None) -> None:
        place = self.admission.let_in(None if host is None else peer(host))
        if place is not None:
            place.close = lambda: self._gives_way(place)
            self.open.append(place)

    def _gives_way(self, place: Place) -> None:
        assert place not in self.proven
        self.open.remove(place)
        # Its connection is lost a moment later.
        place.leave()

    @rule(data=st.data())
    def prove(self, data: st.DataObject) -> None:
        if self.open:
            place = data.draw(st.sampled_from(self.open))
            place.prove()
            self.proven.add(place)

    @rule(data=st.data())
    def go(self, data: st.DataObject) -> None:
        if self.open:
            place = data.draw(st.sampled_from(self.open))
            place.leave()
            self.open.remove(place)

    @invariant()
    def bounds_hold(self) -> None:
        assert self.admission.connections == len(self.open) <= 8
        strangers = [place for place in self.open if not place.known]
        assert len(strangers) <= 6
        for host in "abcd", GATEWAY:
            assert sum(place.address == host for place in self.open) <= 3

    def teardown(self) -> None:
        for place in self.open:
            place.leave()
        left = self.admission
        assert left.connections == 0
        # Nothing is remembered of who has gone.
        assert left._strangers == 0
        for remembered in (left._of_address, left._unproven, left._unproven_strangers):
            assert not remembered


class CourseTests(SynchronousTestCase):
    def test_bounds_hold_whoever_comes_and_goes(self) -> None:
        run_state_machine_as_test(_Course)


class KnownFirst(SynchronousTestCase):
    @given(st.lists(st.sampled_from("abcdefgh"), max_size=60))
    def test_a_gateway_finds_its_share_whoever_else_holds_connections(self, hosts: list[str]) -> None:
        admission = Admission("x", 8, 2, lambda: 0.0, known=GATEWAY.__eq__)
        for host in hosts:
            place = admission.let_in(peer(host))
            if place is not None:
                place.prove()
        self.assertIsNotNone(admission.let_in(peer(GATEWAY)))
        self.assertIsNotNone(admission.let_in(peer(GATEWAY)))
