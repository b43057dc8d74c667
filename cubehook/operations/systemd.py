"""
What systemd is told of the service: that it is ready, how it does, that it is alive.

sd_notify(3) describes the protocol: lines of NAME=value in one datagram to the socket that NOTIFY_SOCKET
names.  A service that systemd did not start tells nobody.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Collection, Iterable, MutableMapping
from contextlib import suppress
from time import CLOCK_MONOTONIC, clock_gettime_ns
from typing import Any

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from cubehook.text import printable

STATUS_SECONDS = 5.0
"""How often it is looked whether there is something new to tell of."""

START_SECONDS = 60.0
"""What a start asks for, again and again, as long as it goes on: a migration may take minutes."""

START_MOST = 3600.0
"""Seconds after which a start that goes on is not waited for any longer."""

_STATUS_LENGTH = 500
_NAMED_MOST = 5

_OURS = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
"""Variables that are meant for this process, and none that it may start."""

_log = Logger()


class Notifier:
    """
    Systemd's ear.

    `watchdog` is after how many seconds of silence it ends the service, None if it waits for ever.  Only the
    process that it started is listened to: another, such as one that a daemon forked, says nothing.
    """

    def __init__(self, address: str, watchdog: float | None, process: int) -> None:
        # An address that begins with @ is in Linux' own namespace, where that is a NUL.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._process = process
        self.watchdog = watchdog

    def tell(self, **values: str | int) -> None:
        """Send these; what cannot be sent is lost, as nobody waits for it."""
        if os.getpid() != self._process:
            return
        lines = "\n".join(f"{name}={value}" for name, value in values.items())
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaking:
            speaking.setblocking(False)
            speaking.sendto(lines.encode(), self._address)


def notifier(environ: MutableMapping[str, str], process: int) -> Notifier | None:
    """
    Whom `environ`, the environment of `process`, says to notify; None if nobody.

    What systemd says there is taken out, as it is not meant for children.
    """
    address = environ.get("NOTIFY_SOCKET", "")
    meant = environ.get("WATCHDOG_PID", str(process)) == str(process)
    microseconds = environ.get("WATCHDOG_USEC", "")
    for name in _OURS:
        environ.pop(name, None)
    # Others, such as vsock: of virtual machines, are not for services.
    if not address.startswith(("/", "@")):
        return None
    watched = meant and microseconds.isascii() and microseconds.isdigit() and int(microseconds) > 0
    return Notifier(address, int(microseconds) / 1e6 if watched else None, process)


class Supervision:
    """
    Keeps systemd informed, from the beginning of the start to that of the stop.

    `status` says how the service does, in words.  `stuck` says in words what is out of order in a way that
    only a restart mends, and is empty otherwise: while it is not, and while the reactor does not come round,
    systemd hears nothing and ends the service, if its watchdog is on.  Without a `notifier` nothing happens.
    """

    def __init__(
        self,
        notifier: Notifier | None,
        reactor: Any,
        status: Callable[[], str],
        stuck: Callable[[], str],
    ) -> None:
        self._notifier = notifier
        self._reactor = reactor
        self._status = status
        self._stuck = stuck
        self._told = ""
        self._silent = ""
        self._waited = 0.0
        self._loops: list[LoopingCall] = []

    def starting(self) -> None:
        """The service starts, and may take longer than systemd would wait."""
        self._every(START_SECONDS / 4, self._extend)

    def ready(self) -> None:
        """The service does its work from now on."""
        self._end()
        if self._notifier is None:
            return
        self._notifier.tell(READY=1, STATUS=self._words())
        self._every(STATUS_SECONDS, self._tell)
        if self._notifier.watchdog is not None:
            self._every(self._notifier.watchdog / 2, self._live)

    def failed(self, why: str) -> None:
        """The service cannot start."""
        self._end()
        if self._notifier is not None:
            self._notifier.tell(STATUS=printable(f"cannot start: {why}", _STATUS_LENGTH))

    def reloading(self) -> None:
        """The configuration is read again; `reloaded` follows, whatever comes of it."""
        if self._notifier is not None:
            self._notifier.tell(RELOADING=1, MONOTONIC_USEC=clock_gettime_ns(CLOCK_MONOTONIC) // 1000)

    def reloaded(self) -> None:
        """Reading the configuration again is over."""
        if self._notifier is not None:
            self._notifier.tell(READY=1, STATUS=self._words())

    def stopping(self) -> None:
        """The service begins to stop."""
        self._end()
        if self._notifier is not None:
            self._notifier.tell(STOPPING=1, STATUS="stopping: deliveries under way are finished")

    def _extend(self) -> None:
        self._waited += START_SECONDS / 4
        if self._notifier is not None and self._waited < START_MOST:
            self._notifier.tell(
                EXTEND_TIMEOUT_USEC=int(START_SECONDS * 1e6), STATUS="starting: opening the database"
            )

    def _tell(self) -> None:
        words = self._words()
        if words != self._told and self._notifier is not None:
            self._notifier.tell(STATUS=words)
        self._told = words

    def _words(self) -> str:
        return printable(self._status(), _STATUS_LENGTH)

    def _live(self) -> None:
        assert self._notifier is not None
        stuck = self._stuck()
        if not stuck:
            self._notifier.tell(WATCHDOG=1)
        elif stuck != self._silent:
            _log.critical("systemd is asked for a restart, by silence: {stuck}", stuck=stuck)
        self._silent = stuck

    def _every(self, seconds: float, work: Callable[[], None]) -> None:
        if self._notifier is None:
            return
        loop = LoopingCall(self._safely, work)
        loop.clock = self._reactor
        self._loops.append(loop)
        _ = loop.start(seconds)

    def _safely(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception:
            _log.failure("systemd could not be told how the service does")

    def _end(self) -> None:
        for loop in self._loops:
            loop.stop()
        self._loops.clear()


def in_words(
    registered: Collection[tuple[str, float]],
    active: int,
    held: Iterable[str],
    disabled: Iterable[str],
    problems: Iterable[str],
) -> str:
    """
    How the service does, in a line: what is wrong comes first.

    `registered` has 1 for each cube that is, `active` are calls in progress; then webhooks by their ids.
    """
    parts = [*problems]
    away = [cube for cube, is_registered in registered if not is_registered]
    if not registered:
        parts.append("no cube is configured")
    else:
        there = len(registered) - len(away)
        parts.append(
            f"{there} of {len(registered)} cubes registered" + (f" (not {_names(away)})" if away else "")
        )
    for webhooks, how in ((list(held), "held back"), (list(disabled), "disabled")):
        if webhooks:
            parts.append(f"webhooks {how}: {_names(webhooks)}")
    parts.append(f"{active} {'call' if active == 1 else 'calls'} in progress")
    return "; ".join(parts)


def _names(ids: list[str]) -> str:
    more = len(ids) - _NAMED_MOST
    return ", ".join(ids[:_NAMED_MOST]) + (f" and {more} more" if more > 0 else "")
