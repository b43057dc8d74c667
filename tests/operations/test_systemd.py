"""What systemd is told, when, and when it is told nothing."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cubehook.operations import systemd
from cubehook.operations.systemd import Supervision, in_words, notifier


class EnvironmentTests(SynchronousTestCase):
    def test_what_is_meant_for_this_process_is_taken_out(self) -> None:
        environ = {
            "NOTIFY_SOCKET": "/run/notify",
            "WATCHDOG_USEC": "30000000",
            "WATCHDOG_PID": "7",
            "HOME": "/",
        }
        found = notifier(environ, 7)
        assert found is not None
        self.assertEqual((found.watchdog, environ), (30.0, {"HOME": "/"}))

    def test_who_is_not_watched(self) -> None:
        for extra in (
            {},
            {"WATCHDOG_USEC": "9", "WATCHDOG_PID": "8"},
            {"WATCHDOG_USEC": "0"},
            {"WATCHDOG_USEC": "x"},
        ):
            found = notifier({"NOTIFY_SOCKET": "@here"} | extra, 7)
            assert found is not None
            self.assertIsNone(found.watchdog, extra)

    def test_where_nobody_listens(self) -> None:
        for environ in ({}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1234"}):
            self.assertIsNone(notifier(environ, 7), environ)


class SupervisionTests(SynchronousTestCase):
    def setUp(self) -> None:
        folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        self.ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.ear.close)
        self.ear.bind(str(folder / "notify"))
        self.ear.setblocking(False)
        self.environ = {"NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": "20000000"}
        self.clock = Clock()
        self.status = "all is well"
        self.stuck = ""

    def supervision(self, process: int | None = None) -> Supervision:
        found = notifier(self.environ, os.getpid() if process is None else process)
        return Supervision(found, self.clock, lambda: self.status, lambda: self.stuck)

    def heard(self) -> list[str]:
        """The datagrams since the last time."""
        found = []
        while True:
            try:
                found.append(self.ear.recv(4096).decode())
            except BlockingIOError:
                return found

    def after(self, *steps: float) -> list[str]:
        for step in steps:
            self.clock.advance(step)
        return self.heard()

    def test_a_start_asks_for_time_until_it_is_over(self) -> None:
        supervision = self.supervision()
        supervision.starting()
        more = "EXTEND_TIMEOUT_USEC=60000000\nSTATUS=starting: opening the database"
        self.assertEqual(self.after(14, 1), [more, more])
        self.assertEqual([self.after(15) for _ in range(239)], [[more]] * 237 + [[]] * 2)
        supervision.ready()
        self.assertEqual(self.heard()[0], "READY=1\nSTATUS=all is well")

    def test_a_start_that_is_over_asks_for_no_more(self) -> None:
        supervision = self.supervision()
        supervision.starting()
        supervision.ready()
        self.heard()
        self.assertNotIn("EXTEND", "".join(self.after(*[15] * 4)))

    def test_news_are_told_and_nothing_twice(self) -> None:
        supervision = self.supervision()
        supervision.ready()
        self.heard()
        self.status = "webhooks held back: crm\nREADY=1"
        self.assertEqual(self.after(5, 4.9), [r"STATUS=webhooks held back: crm\x0aREADY=1"])

    def test_the_watchdog_hears_twice_in_its_time(self) -> None:
        self.supervision().ready()
        self.assertEqual(self.heard().count("WATCHDOG=1"), 1)
        self.assertEqual([self.after(5).count("WATCHDOG=1") for _ in range(4)], [0, 1, 0, 1])

    def test_it_hears_nothing_of_what_only_a_restart_mends(self) -> None:
        self.supervision().ready()
        self.heard()
        self.stuck = "the thread that writes the database has ended"
        self.assertEqual(self.after(10, 10), [])
        self.stuck = ""
        self.assertEqual(self.after(10), ["WATCHDOG=1"])

    def test_a_failing_look_is_no_end(self) -> None:
        supervision = self.supervision()
        supervision.ready()
        self.heard()
        looking, supervision._stuck = supervision._stuck, lambda: str(1 // 0)
        self.assertEqual(self.after(10), [])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        supervision._stuck = looking
        self.assertEqual(self.after(10), ["WATCHDOG=1"])

    def test_the_end(self) -> None:
        supervision = self.supervision()
        supervision.ready()
        self.heard()
        supervision.stopping()
        self.assertEqual(self.heard(), ["STOPPING=1\nSTATUS=stopping: deliveries under way are finished"])
        self.assertEqual((self.after(30), self.clock.getDelayedCalls()), ([], []))

    def test_reading_the_configuration_again(self) -> None:
        supervision = self.supervision()
        supervision.ready()
        self.heard()
        supervision.reloading()
        supervision.reloaded()
        begun, over = self.heard()
        self.assertRegex(begun, r"\ARELOADING=1\nMONOTONIC_USEC=\d+\Z")
        self.assertEqual(over, "READY=1\nSTATUS=all is well")

    def test_another_process_says_nothing(self) -> None:
        supervision = self.supervision(process=os.getpid() + 1)
        supervision.ready()
        self.assertEqual(self.after(20), [])

    def test_nobody_to_tell_and_a_deaf_ear(self) -> None:
        self.ear.close()
        for supervision in (self.supervision(), Supervision(None, self.clock, str, str)):
            supervision.starting()
            supervision.ready()
            self.clock.advance(20)
            supervision.stopping()
            self.assertEqual(self.clock.getDelayedCalls(), [])


class WordsTests(SynchronousTestCase):
    def test_what_is_wrong_comes_first(self) -> None:
        cubes = [("hq", 1.0), ("branch", 0.0), ("north", 1.0)]
        self.assertEqual(
            in_words(cubes, 1, ["crm", "erp"], ["old"], ["the store cannot be written: disk full"]),
            "the store cannot be written: disk full; 2 of 3 cubes registered (not branch); "
            "webhooks held back: crm, erp; webhooks disabled: old; 1 call in progress",
        )

    def test_all_is_well(self) -> None:
        self.assertEqual(
            in_words([("hq", 1.0)], 12, [], [], []), "1 of 1 cubes registered; 12 calls in progress"
        )
        self.assertEqual(in_words([], 0, [], [], []), "no cube is configured; 0 calls in progress")

    def test_a_long_list_is_cut(self) -> None:
        cubes = [(f"c{number}", 0.0) for number in range(8)]
        self.assertIn("(not c0, c1, c2, c3, c4 and 3 more)", in_words(cubes, 0, [], [], []))
        self.assertLess(systemd._NAMED_MOST, 8)
