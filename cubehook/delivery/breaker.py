"""
Whether a receiver may be sent to now, by how it answered so far.  Pure: time is an argument.
"""

from __future__ import annotations

from cubehook.events import Micros

FAILING_AFTER = 100
"""Failures in a row after which attempts are spaced: a dead receiver must not eat the others' CPU."""


class Breaker:
    """
    Closed, a receiver takes `concurrency` attempts at once.  Held, it takes none until a time; then
    one, the trial, and what becomes of that decides.
    """

    __slots__ = ("_concurrency", "_failures", "_held_until", "limit")

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._failures = 0
        self._held_until: Micros | None = None
        self.limit = concurrency
        """Attempts that may be under way now."""

    @property
    def held_until(self) -> Micros | None:
        """Until when nothing is sent; None if something may be, be it one trial."""
        return self._held_until if self.limit == 0 else None

    @property
    def on_trial(self) -> bool:
        return self._held_until is not None and self.limit > 0

    @property
    def failing(self) -> bool:
        """It has failed so often in a row that its attempts had better be spaced."""
        return self._failures >= FAILING_AFTER

    def answered(self) -> None:
        """It took an event, or refused one for good: it is alive."""
        self._failures = 0

    def failed(self) -> None:
        self._failures += 1

    def hold(self, until: Micros) -> Micros:
        """Send nothing before `until`, or before the time it is held to already; the later is returned."""
        if self._held_until is None or until > self._held_until:
            self._held_until = until
        self.limit = 0
        return self._held_until

    def try_once(self) -> None:
        """The hold is over: allow one attempt."""
        self.limit = 1

    def release(self) -> None:
        self._held_until = None
        self.limit = self._concurrency
