"""
A clock that nobody sets, for everything that waits.

Twisted's reactors tell time by the wall clock, and keep their timers by it.  Set back an hour, it would keep
every timer from firing for an hour: no retry, no timeout, no answer after two seconds.  What is written
down and shown is told by the wall clock all the same (`cubehook.service.wall_clock`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from cubehook.events import Micros

STEP: Micros = 2_000_000
"""By how much the wall clock must have been set to be of any account."""

LEAP: Micros = 3600_000_000
"""A step forward that had better be looked at before anything is deleted for its age."""

DOUBT_SECONDS = 86400.0
"""How long that is put off."""

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Where there is one that goes on while the machine sleeps, that one."""


def seconds() -> float:
    """Seconds since some moment in the past; it only ever goes forward, at the pace of time."""
    return time.clock_gettime(_CLOCK)


def make_steady(reactor: Any) -> None:
    """Let `reactor` keep its timers by a clock that nobody sets, those included that wait already."""
    if reactor.seconds is seconds:
        return
    ahead = seconds() - reactor.seconds()
    for call in reactor.getDelayedCalls():
        call.time += ahead
        call.seconds = seconds
    reactor.seconds = seconds


class ClockWatch:
    """
    Notices that somebody set the wall clock.

    `wall` tells microseconds, `steady` seconds of a clock that nobody sets.  `set_by` is told of each step by
    how many microseconds that was, negative for one back.  Small ones are of no account.
    """

    _log = Logger()

    def __init__(
        self, wall: Callable[[], Micros], steady: Callable[[], float], set_by: Callable[[Micros], None]
    ) -> None:
        self._wall = wall
        self._steady = steady
        self._set_by = set_by
        self._ahead = self._difference()
        self._doubted_until = 0.0

    def look(self) -> None:
        """Compare the clocks; to be called every second or so."""
        ahead = self._difference()
        by, self._ahead = ahead - self._ahead, ahead
        if abs(by) < STEP:
            return
        if by >= LEAP:
            self._doubted_until = self._steady() + DOUBT_SECONDS
        self._log.warn(
            "The system's clock was set {direction} by {seconds:.0f} s. What waits waits no longer for "
            "that{doubt}",
            direction="forward" if by > 0 else "back",
            seconds=abs(by) / 1_000_000,
            doubt="; for a day nothing is deleted for its age" if by >= LEAP else "",
        )
        self._set_by(by)

    @property
    def doubtful(self) -> bool:
        """It leapt forward of late: what it says is no reason to delete anything."""
        return self._steady() < self._doubted_until

    def _difference(self) -> Micros:
        return self._wall() - int(self._steady() * 1_000_000)


def past_after_step(at: Micros, by: Micros, now: Micros) -> Micros:
    """
    When something that is over happened, now that the clock was set by `by` and says `now`.

    `at` may have been told before or after that.  What is returned is not later than `now`, and makes nothing
    older than it is.
    """
    return min(now, at + max(by, 0))


def future_after_step(at: Micros, by: Micros) -> Micros:
    """When something that was planned is due: as soon as it would have been, or sooner, and not later."""
    return at + min(by, 0)
