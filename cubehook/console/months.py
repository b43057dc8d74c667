"""A month as a calendar shows it, and where a day begins in somebody's zone.  Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta, tzinfo

import msgspec

from cubehook.console.words import plural
from cubehook.events import Micros

_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Day(msgspec.Struct, frozen=True, kw_only=True):
    """A square of the calendar."""

    date: date
    within: bool
    """It is of the month, not of those beside it."""
    future: bool
    today: bool
    chosen: bool
    failures: int
    count: int | None
    """How many deliveries were made on it; None if that is not known."""
    more: bool
    """There are more than were counted."""

    @property
    def label(self) -> str:
        """What a screen reader says."""
        words = f"{self.date:%A}, {self.date.day} {self.date:%B %Y}"
        if self.count is not None:
            words += f", {'more than ' if self.more else ''}{plural(self.count, 'delivery', 'deliveries')}"
        if self.failures:
            words += f", {self.failures} failed" if self.failures > 1 else ", 1 failed"
        return words


class Month(msgspec.Struct, frozen=True, kw_only=True):
    """Weeks of seven days, Monday first; `before` and `after` are the months beside it, as `YYYY-MM`."""

    title: str
    weeks: list[list[Day]]
    before: str
    after: str | None
    """None if it would lie in the future."""


def month(
    first: date,
    *,
    today: date,
    chosen: date | None,
    failures: Mapping[date, int],
    counts: Mapping[date, tuple[int, bool]],
) -> Month:
    """The month that begins on `first`; `counts` tell of each day how many, and whether there are more."""
    start = first - timedelta(days=first.weekday())
    following = _following(first)
    weeks: list[list[Day]] = []
    while start < following:
        days = [start + timedelta(days=number) for number in range(7)]
        weeks.append(
            [
                Day(
                    date=day,
                    within=(day.year, day.month) == (first.year, first.month),
                    future=day > today,
                    today=day == today,
                    chosen=day == chosen,
                    failures=failures.get(day, 0),
                    count=counts[day][0] if day in counts else None,
                    more=day in counts and counts[day][1],
                )
                for day in days
            ]
        )
        start += timedelta(days=7)
    return Month(
        title=f"{first:%B %Y}",
        weeks=weeks,
        before=f"{first - timedelta(days=1):%Y-%m}",
        after=f"{following:%Y-%m}" if following <= today else None,
    )


def month_given(text: str, fallback: date) -> date:
    """The first day of the month that `text` names as `YYYY-MM`; of that of `fallback` if it names none."""
    day = day_given(f"{text}-01")
    return fallback.replace(day=1) if day is None else day


def day_given(text: str) -> date | None:
    """The day that `text` names as `YYYY-MM-DD`, of the years that are known here; else None."""
    if not _DATE.fullmatch(text):
        return None
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return day if 1971 <= day.year <= 2039 else None


def begin_of(day: date, zone: tzinfo) -> Micros:
    """When `day` begins in `zone`."""
    return micros_of(datetime(day.year, day.month, day.day, tzinfo=zone))


def end_of(day: date, zone: tzinfo) -> Micros:
    """When the day after it begins; a day need not have 24 hours."""
    return begin_of(day + timedelta(days=1), zone)


def micros_of(at: datetime) -> Micros:
    """A time with a zone, as the rooms have it."""
    return (at - _EPOCH) // _MICROSECOND


def local(at: Micros, zone: tzinfo) -> datetime:
    """`at` as a clock in `zone` shows it."""
    return (_EPOCH + timedelta(microseconds=at)).astimezone(zone)


def _following(first: date) -> date:
    return (first.replace(day=28) + timedelta(days=4)).replace(day=1)
