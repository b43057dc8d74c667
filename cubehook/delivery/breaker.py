"""
Whether a receiver may be sent to now, by how it answered so far.  Pure: time and chance are arguments.

Closed, a receiver takes `concurrency` attempts at once.  After too many failures the breaker opens and
nothing is sent for a while; then it is half open and one attempt, the trial, decides: it closes, or opens
for twice as long.  A receiver that asks for silence by itself is held until the time it named, and tried
in the same way.
"""

from __future__ import annotations

import enum
from collections import deque

from cubehook.config import Breaker as Settings
from cubehook.events import Micros
from cubehook.records import Trouble
from cubehook.steady import future_after_step, past_after_step

_BUCKETS = 10
_SPREAD = 0.1
"""Share by which the time it stays open varies, lest many webhooks of one receiver try it at once."""


class State(enum.StrEnum):
    """How a receiver stands; `HELD` if it asked for silence itself, `OPEN` if it failed."""

    CLOSED = "closed"
    HELD = "held"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Breaker:
    """What is known of one receiver."""

    __slots__ = (
        "_concurrency",
        "_held_until",
        "_recent",
        "_settings",
        "failing_since",
        "failures",
        "limit",
        "openings",
    )

    def __init__(self, concurrency: int, settings: Settings) -> None:
        self._concurrency = concurrency
        self._settings = settings
        self._recent = _Recent(settings.window)
        self._held_until: Micros | None = None
        self.limit = concurrency
        """Attempts that may be under way now."""
        self.failures = 0
        """Failures in a row, of whatever deliveries."""
        self.failing_since: Micros | None = None
        """When the first of them happened."""
        self.openings = 0
        """How often it has opened since it was closed."""

    @property
    def state(self) -> State:
        if self._held_until is None:
            return State.CLOSED
        if self.limit > 0:
            return State.HALF_OPEN
        return State.OPEN if self.openings else State.HELD

    @property
    def held_until(self) -> Micros | None:
        """Until when nothing is sent; None if something may be, be it one trial."""
        return self._held_until if self.limit == 0 else None

    @property
    def on_trial(self) -> bool:
        """It is half open."""
        return self._held_until is not None and self.limit > 0

    def succeeded(self, now: Micros) -> None:
        """It took an event.  A success that is not the trial's does not close it: `release` does."""
        if self._held_until is None:
            self.failures = 0
            self.failing_since = None
            self._recent.add(now, 0)

    def failed(self, now: Micros, chance: float, *, trial: bool = False, unavailable: bool = False) -> bool:
        """
        It did not take an event; whether it opens for that.

        `trial`: this was the trial.  `unavailable`: its answer says that it can take nothing now, which
        opens it whatever the counts.  `chance` is from 0 up to but without 1.
        """
        self._note_failure(now)
        if self._held_until is None:
            self._recent.add(now, 1)
            if not unavailable and self.failures < self._settings.failures:
                settings = self._settings
                if not self._recent.too_many_failed(now, settings.minimum, settings.share):
                    return False
        elif not (trial and self.limit > 0):
            return False
        seconds = min(self._settings.first * 2.0 ** min(self.openings, 40), self._settings.longest)
        self.openings += 1
        self._held_until = now + int(seconds * (1.0 + _SPREAD * (2.0 * chance - 1.0)) * 1_000_000)
        self.limit = 0
        return True

    def asked(self, now: Micros, until: Micros) -> Micros:
        """
        It asked not to be sent anything before `until`.

        It is held until then, or until when it is held already; the later is returned.
        """
        self._note_failure(now)
        if self._held_until is None or until > self._held_until:
            self._held_until = until
        self.limit = 0
        return self._held_until

    def _note_failure(self, now: Micros) -> None:
        self.failures += 1
        if self.failing_since is None:
            self.failing_since = now

    def try_once(self) -> None:
        """The time is over: allow one attempt."""
        self.limit = 1

    def release(self) -> None:
        """Close: the trial succeeded, or there is nothing that it could be tried with."""
        self._held_until = None
        self.limit = self._concurrency
        self.failures = self.openings = 0
        self.failing_since = None
        self._recent.clear()

    def clock_set(self, by: Micros, now: Micros) -> None:
        """The clock by which all these times are told was set by so much, and says `now`."""
        if self._held_until is not None:
            self._held_until = future_after_step(self._held_until, by)
        if self.failing_since is not None:
            self.failing_since = past_after_step(self.failing_since, by, now)
        self._recent.clear()

    def restore(self, trouble: Trouble) -> None:
        """Stand as an earlier breaker stood that was not closed."""
        self._held_until = trouble.held_until
        self.limit = 0
        self.failing_since = trouble.failing_since
        self.failures = 1
        self.openings = trouble.openings


class _Recent:
    """How many attempts were made in the last `window` seconds, and how many failed; in steps of a tenth."""

    __slots__ = ("_buckets", "_width")

    def __init__(self, window: float) -> None:
        self._width = max(1, int(window * 1_000_000) // _BUCKETS)
        self._buckets: deque[list[int]] = deque()

    def add(self, now: Micros, failed: int) -> None:
        number = now // self._width
        buckets = self._buckets
        # A clock that was set back counts into the newest.
        if not buckets or number > buckets[-1][0]:
            buckets.append([number, 0, 0])
            self._forget(number)
        newest = buckets[-1]
        newest[1] += 1
        newest[2] += failed

    def too_many_failed(self, now: Micros, minimum: int, share: float) -> bool:
        self._forget(now // self._width)
        made = sum(bucket[1] for bucket in self._buckets)
        failed = sum(bucket[2] for bucket in self._buckets)
        return made >= minimum and failed >= share * made

    def _forget(self, number: int) -> None:
        while self._buckets and self._buckets[0][0] <= number - _BUCKETS:
            self._buckets.popleft()

    def clear(self) -> None:
        self._buckets.clear()
