"""Which knocks are waited for, and how they came."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cubehook.xcc import knocks
from cubehook.xcc.knocks import Arrival, Knocks


class Waiting(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.knocks = Knocks(self.clock.seconds)

    def test_arrival(self) -> None:
        self.assertFalse(self.knocks)
        nonce = self.knocks.expect()
        self.assertTrue(self.knocks)
        self.assertIsNone(self.knocks.arrival(nonce))
        self.assertTrue(self.knocks.heard(nonce, "192.0.2.1", ["hq"]))
        self.assertEqual(self.knocks.arrival(nonce), Arrival("192.0.2.1", ("hq",)))
        # Whoever has seen it on the way cannot change what was found.
        self.assertTrue(self.knocks.heard(nonce, "198.51.100.1", []))
        self.assertEqual(self.knocks.arrival(nonce), Arrival("192.0.2.1", ("hq",)))

    def test_strangers(self) -> None:
        self.assertNotEqual(self.knocks.expect(), self.knocks.expect())
        self.assertFalse(self.knocks.heard("0" * 32, "198.51.100.1", []))
        self.assertIsNone(self.knocks.arrival("0" * 32))

    def test_time(self) -> None:
        nonce = self.knocks.expect()
        self.knocks.heard(nonce, "192.0.2.1", [])
        self.clock.advance(61)
        self.assertIsNone(self.knocks.arrival(nonce))
        self.assertFalse(self.knocks.heard(nonce, "192.0.2.1", []))
        self.assertFalse(self.knocks)

    def test_many(self) -> None:
        self.patch(knocks, "_MOST", 3)
        nonces = [self.knocks.expect() for _ in range(5)]
        heard = [self.knocks.heard(nonce, "a", []) for nonce in nonces]
        self.assertFalse(heard[0])
        self.assertTrue(heard[-1])
