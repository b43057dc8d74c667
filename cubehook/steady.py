"""
A clock that nobody sets, for everything that waits.

Twisted's reactors tell time by the wall clock, and keep their timers by it.  Set back an hour, it would keep
every timer from firing for an hour: no retry, no timeout, no answer after two seconds.  What is written
down and shown is told by the wall clock all the same (`cubehook.service.wall_clock`).
"""

from __future__ import annotations

import time
from typing import Any

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
