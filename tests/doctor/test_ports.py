"""What the kernel tells of ports and locks."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from cubehook.doctor.ports import cannot_bind, holders, is_here, lock_holder


class Ports(SynchronousTestCase):
    def listen(self, address: str) -> int:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        self.addCleanup(listening.close)
        listening.bind((address, 0))
        listening.listen(1)
        return int(listening.getsockname()[1])

    def test_holder(self) -> None:
        port = self.listen("127.0.0.1")
        for address in ("", "127.0.0.1", "::ffff:127.0.0.1"):
            (holder,) = holders(port, address)
            self.assertEqual(holder.pid, os.getpid(), address)
        self.assertIn(f"process {os.getpid()}", str(holder))
        self.assertEqual(holders(port, "127.0.0.2"), [])

    def test_holder_of_all_addresses(self) -> None:
        port = self.listen("0.0.0.0")
        self.assertEqual([holder.pid for holder in holders(port, "127.0.0.3")], [os.getpid()])

    def test_holder_by_the_other_family(self) -> None:
        if not socket.has_ipv6:
            self.skipTest("there is no IPv6")
        port = self.listen("::1")
        self.assertEqual([holder.pid for holder in holders(port, "::1")], [os.getpid()])

    def test_nobody(self) -> None:
        port = self.listen("127.0.0.1")
        self.assertIsNotNone(cannot_bind("127.0.0.1", port))
        self.assertIsNone(cannot_bind("127.0.0.1", 0))
        self.assertIsNotNone(cannot_bind("192.0.2.1", port))

    def test_addresses(self) -> None:
        self.assertTrue(is_here("127.0.0.1"))
        for address in ("192.0.2.1", "0.0.0.0", "::", "router.example", ""):
            self.assertFalse(is_here(address), address)

    def test_locks(self) -> None:
        path = Path(self.mktemp())
        self.assertIsNone(lock_holder(path))
        path.write_text("")
        self.assertIsNone(lock_holder(path))
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self.assertEqual(lock_holder(path), os.getpid())
