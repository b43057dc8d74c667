"""SIGHUP: what a terminal that is gone sends, and whoever wants a service to read its configuration again."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any


class HangUp:
    """
    Calls `reload` in the reactor's thread for each SIGHUP, between `install` and `remove`.

    If the terminal that the process was started from has just gone, the signal means what it always
    meant, and `leave` is called.  To know that, `look` wants to be called now and then: who has outlived
    the terminal is not ended by a signal that asks for a reload.  Twisted takes care of other signals, but
    leaves this one, which would end the process.
    """

    def __init__(self, reactor: Any, reload: Callable[[], None], leave: Callable[[], None]) -> None:
        self._reactor = reactor
        self._reload = reload
        self._leave = leave
        self._terminal: int | None = None
        self._installed = False

    def install(self) -> None:
        """Begin; does nothing outside the main thread, where no signal can be handled."""
        try:
            before = signal.signal(signal.SIGHUP, self._handle)
        except ValueError:
            return
        self._installed = True
        # Under nohup it is ignored: then the terminal may go.
        self._terminal = None if before is signal.SIG_IGN else _terminal()

    def look(self) -> None:
        """See whether the terminal is there."""
        if self._terminal is not None and not _is_there(self._terminal):
            os.close(self._terminal)
            self._terminal = None

    def remove(self) -> None:
        """Ignore it from now on: a process that stops is not to be ended halfway."""
        if self._installed:
            self._installed = False
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        if self._terminal is not None:
            os.close(self._terminal)
            self._terminal = None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._reactor.callFromThread(self._act)

    def _act(self) -> None:
        if self._terminal is not None and not _is_there(self._terminal):
            self._leave()
        else:
            self._reload()


def _terminal() -> int | None:
    """A descriptor of the terminal that the process was started from; None if it has none."""
    try:
        return os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return None


def _is_there(terminal: int) -> bool:
    try:
        os.tcgetpgrp(terminal)
    except OSError:
        return False
    return True
