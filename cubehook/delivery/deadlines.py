"""Timers that do for many things: the reactor keeps one call for all of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from cubehook.events import Micros

T = TypeVar("T", bound=Hashable)

_SLACK = 0.001


class Alarm:
    """Calls `ring` once, at the earliest of the times it was set to since it rang last; never before."""

    def __init__(self, reactor: IReactorTime, now: Callable[[], Micros], ring: Callable[[], None]) -> None:
        self._reactor = reactor
        self._now = now
        self._ring = ring
        self._timer: IDelayedCall | None = None
        self._at: Micros = 0

    def at(self, at: Micros) -> None:
        """Ring at `at`, or earlier if it is set to that already."""
        if self._timer is not None:
            if self._at <= at:
                return
            self._timer.cancel()
        self._at = at
        # Some more, so that rounding never wakes us too early.
        seconds = max(0.0, (at - self._now()) / 1_000_000) + _SLACK
        self._timer = self._reactor.callLater(seconds, self._rings)

    def cancel(self) -> None:
        """Do not ring, until set again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _rings(self) -> None:
        self._timer = None
        self._ring()


class Deadlines(Generic[T]):
    """
    Calls `overdue(item)` for each item that is still here `seconds` after it was added.

    All items wait equally long, so the first to be added is the first to be due and one
    timer does for all: adding and discarding cost a dictionary access each.
    """

    def __init__(self, reactor: IReactorTime, seconds: float, overdue: Callable[[T], None]) -> None:
        self._reactor = reactor
        self._seconds = seconds
        self._overdue = overdue
        self._due: dict[T, float] = {}
        self._timer: IDelayedCall | None = None

    def __len__(self) -> int:
        return len(self._due)

    def add(self, item: T) -> None:
        self._due[item] = self._reactor.seconds() + self._seconds
        if self._timer is None:
            self._timer = self._reactor.callLater(self._seconds, self._check)

    def discard(self, item: T) -> None:
        self._due.pop(item, None)

    def take_all(self) -> list[T]:
        """Everything that is here, in the order it was added; nothing is here any more, nor a timer."""
        items = list(self._due)
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return items

    def _check(self) -> None:
        self._timer = None
        now = self._reactor.seconds() + _SLACK
        late = []
        for item, due in self._due.items():
            if due > now:
                self._timer = self._reactor.callLater(due - now + _SLACK, self._check)
                break
            late.append(item)
        for item in late:
            # An earlier one's end may have brought this one's about.
            if self._due.pop(item, None) is not None:
                self._overdue(item)
