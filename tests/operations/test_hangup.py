"""SIGHUP, and a terminal that goes."""

from __future__ import annotations

import os
import pty
import signal
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cubehook.operations import hangup
from cubehook.operations.hangup import HangUp


class Reactor:
    """Keeps what it is asked to call."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def callFromThread(self, call: Any) -> None:
        self.calls.append(call)

    def turn(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()


class HangUpTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.addCleanup(signal.signal, signal.SIGHUP, signal.getsignal(signal.SIGHUP))
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        self.reactor = Reactor()
        self.told: list[str] = []
        self.hang_up = HangUp(
            self.reactor, lambda: self.told.append("reload"), lambda: self.told.append("leave")
        )

    def terminal(self) -> int:
        """
        A descriptor of a terminal that the process seems to be started from, until it is `gone`.

        Only the leader of a session has one, so that what the kernel says of it is not asked here.
        """
        master, slave = pty.openpty()
        self.addCleanup(os.close, master)
        self.there = True
        self.patch(hangup, "_terminal", lambda: slave)
        self.patch(hangup, "_is_there", lambda terminal: terminal == slave and self.there)
        return slave

    def gone(self) -> None:
        self.there = False

    def send(self) -> None:
        os.kill(os.getpid(), signal.SIGHUP)
        self.reactor.turn()

    def test_it_asks_for_a_reload_in_the_reactors_turn(self) -> None:
        self.patch(hangup, "_terminal", lambda: None)
        self.hang_up.install()
        os.kill(os.getpid(), signal.SIGHUP)
        self.assertEqual(self.told, [])
        self.reactor.turn()
        self.assertEqual(self.told, ["reload"])

    def test_once_it_is_removed_nothing_happens(self) -> None:
        self.patch(hangup, "_terminal", lambda: None)
        self.hang_up.install()
        self.hang_up.remove()
        self.send()
        self.assertEqual(self.told, [])

    def test_with_its_terminal_there_it_is_asked_to_reload(self) -> None:
        self.terminal()
        self.hang_up.install()
        self.addCleanup(self.hang_up.remove)
        self.hang_up.look()
        self.send()
        self.assertEqual(self.told, ["reload"])

    def test_without_its_terminal_it_leaves(self) -> None:
        self.terminal()
        self.hang_up.install()
        self.addCleanup(self.hang_up.remove)
        self.hang_up.look()
        self.gone()
        self.send()
        self.assertEqual(self.told, ["leave"])

    def test_who_has_outlived_the_terminal_goes_on(self) -> None:
        terminal = self.terminal()
        self.hang_up.install()
        self.hang_up.look()
        os.fstat(terminal)
        self.gone()
        self.hang_up.look()
        self.send()
        self.assertEqual(self.told, ["reload"])
        # It keeps nothing of it open.
        self.assertRaises(OSError, os.fstat, terminal)

    def test_under_nohup_the_terminal_does_not_matter(self) -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        terminal = self.terminal()
        self.addCleanup(os.close, terminal)
        self.hang_up.install()
        self.gone()
        self.send()
        self.assertEqual(self.told, ["reload"])
