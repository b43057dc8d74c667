"""What the analytics page shows, made of the API's figures.  Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, time, timedelta, tzinfo
from typing import Literal

import msgspec

from cubehook.console.months import local, micros_of
from cubehook.events import Micros

OUTCOMES = ("answered", "missed", "busy", "abandoned", "rejected", "failed")

HOUR: Micros = 3_600_000_000

Step = Literal["hour", "day"]


class Sums(msgspec.Struct, kw_only=True):
    """What calls add up to: how many, how they ended, and how long those rang and talked that did."""

    calls: int = 0
    outcomes: dict[str, int] = msgspec.field(default_factory=lambda: dict.fromkeys(OUTCOMES, 0))
    rung: int = 0
    ring_seconds: float = 0.0
    talked: int = 0
    talk_seconds: float = 0.0

    def add(self, other: Sums) -> None:
        """Take in what others add up to."""
        self.calls += other.calls
        for name, count in other.outcomes.items():
            self.outcomes[name] = self.outcomes.get(name, 0) + count
        self.rung += other.rung
        self.ring_seconds += other.ring_seconds
        self.talked += other.talked
        self.talk_seconds += other.talk_seconds

    @property
    def answered(self) -> int:
        """How many were answered."""
        return self.outcomes.get("answered", 0)

    @property
    def answer_percent(self) -> float | None:
        """Their share of all, in percent; None if there were none at all."""
        return 100 * self.answered / self.calls if self.calls else None

    @property
    def average_ring(self) -> float | None:
        """Seconds that a call rang, if any did."""
        return self.ring_seconds / self.rung if self.rung else None

    @property
    def average_talk(self) -> float | None:
        """Seconds that a call was talked, if any was."""
        return self.talk_seconds / self.talked if self.talked else None


class Slot(msgspec.Struct, kw_only=True):
    """A stretch of time, and the calls that began in it."""

    at: Micros
    sums: Sums


def slots(
    hours: Iterable[tuple[Micros, Sums]], since: Micros, until: Micros, step: Step, zone: tzinfo
) -> list[Slot]:
    """
    `hours` (each its beginning and its calls) by hours or by days of `zone`, from `since` until `until`.

    Stretches without calls are there too.
    """
    begins = list(_begins(since, until, step, zone))
    found = [Slot(at=at, sums=Sums()) for at in begins]
    index = {slot.at: slot for slot in found}
    for at, sums in hours:
        slot = index.get(_begin(at, step, zone))
        if slot is not None:
            slot.sums.add(sums)
    return found


def whole(every: Iterable[Slot]) -> Sums:
    """All of them together."""
    sums = Sums()
    for slot in every:
        sums.add(slot.sums)
    return sums


def evenly(
    points: Iterable[tuple[Micros, int]], until: Micros, step: Micros
) -> list[tuple[Micros, int | None]]:
    """`points`, which are `step` apart, from the first on until `until`; None where there is none."""
    known = dict(points)
    if not known or step <= 0:
        return []
    return [(at, known.get(at)) for at in range(min(known), min(until, max(known) + step), step)]


def _begins(since: Micros, until: Micros, step: Step, zone: tzinfo) -> Iterable[Micros]:
    at = _begin(since, step, zone)
    while at < until:
        yield at
        # A day may have 23 or 25 hours: go well into the next, and back to its beginning.
        at = at + HOUR if step == "hour" else _begin(at + 30 * HOUR, step, zone)


def _begin(at: Micros, step: Step, zone: tzinfo) -> Micros:
    if step == "hour":
        return at - at % HOUR
    day = local(at, zone).date()
    return micros_of(datetime.combine(day, time(), zone))


class Range(msgspec.Struct, frozen=True, kw_only=True):
    """The time that is looked at; `name` is that of one of `RANGES`, None if it was chosen by days."""

    since: Micros
    until: Micros
    name: str | None

    @property
    def step(self) -> Step:
        """Hours while they can be told apart."""
        return "hour" if self.until - self.since <= 8 * 24 * HOUR else "day"

    @property
    def wide_step(self) -> Step:
        """The same for averages, which tell nothing of a few calls."""
        return "hour" if self.until - self.since <= 2 * 24 * HOUR else "day"


RANGES = {"24h": ("24 hours", 1), "7d": ("7 days", 7), "30d": ("30 days", 30), "90d": ("90 days", 90)}
"""Ranges up to now: their words, and how many days they have."""

DEFAULT = "7d"

LONGEST_DAYS = 364
"""The API adds up 366 days, and a day may have 25 hours."""


def range_up_to(name: str, now: Micros) -> Range:
    """One of `RANGES`, `DEFAULT` unless it is one; it begins with a whole hour."""
    name = name if name in RANGES else DEFAULT
    since = now - RANGES[name][1] * 24 * HOUR
    return Range(since=since - since % HOUR, until=now, name=name)


def range_of_days(first: datetime, last: datetime) -> Range:
    """From the beginning of `first` to the end of `last`, or the other way round; `LONGEST_DAYS` at most."""
    if last < first:
        first, last = last, first
    last = min(last, first + timedelta(days=LONGEST_DAYS))
    return Range(since=micros_of(first), until=micros_of(last + timedelta(days=1)), name=None)


def narrowed(range_: Range, first: Micros | None) -> Range:
    """
    `range_` from `first` on, the earliest that anything is known of it, if that is in its last eighth.

    So that the first hours of a service are not a stroke at the edge of a week.  Six hours at least are left.
    Days that somebody chose stay as they are.
    """
    if range_.name is None or first is None or first < range_.until - (range_.until - range_.since) // 8:
        return range_
    since = min(first, range_.until - 6 * HOUR)
    return msgspec.structs.replace(range_, since=since - since % HOUR)
