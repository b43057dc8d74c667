"""
What charts are drawn from: heat maps, bars, and the widths of parts of a whole.  Pure.

Widths are given as SVG has them (`12.5%`), for the pages' policy allows no inline styles.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import tzinfo
from math import ceil

import msgspec

from cubehook.console.months import local
from cubehook.events import Micros

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
LEVELS = 6
"""How many shades a heat map has, beside that of nothing."""


class Heat(msgspec.Struct, frozen=True):
    """Counts by weekday (Monday first) and hour, each with its shade from 0 to `LEVELS`."""

    days: list[list[Warm]]
    most: int
    peak: tuple[str, int] | None
    """The weekday and the hour in which the most were; None if there were none at all."""


class Warm(msgspec.Struct, frozen=True):
    """One hour of a week."""

    count: int
    level: int


def heat(hours: Iterable[tuple[Micros, int]], zone: tzinfo) -> Heat:
    """The weeks of `hours` laid on each other: each is its beginning, and how many there were in it."""
    counts = [[0] * 24 for _ in WEEKDAYS]
    for at, count in hours:
        when = local(at, zone)
        counts[when.weekday()][when.hour] += count
    most = max(map(max, counts))
    peak = None
    if most:
        day, hour = next((d, h) for d in range(7) for h in range(24) if counts[d][h] == most)
        peak = (WEEKDAYS[day], hour)
    return Heat(
        days=[[Warm(count, ceil(LEVELS * count / most) if most else 0) for count in row] for row in counts],
        most=most,
        peak=peak,
    )


class Bar(msgspec.Struct, frozen=True):
    """A value beside others: its share of all of them, and its width beside the greatest."""

    name: str
    value: int
    share: float
    width: str


def bars(values: Mapping[str, int]) -> list[Bar]:
    """A bar for each of `values`, in their order."""
    whole, most = sum(values.values()), max(values.values(), default=0)
    return [
        Bar(name, value, value / whole if whole else 0, percent(value, most))
        for name, value in values.items()
    ]


class Part(msgspec.Struct, frozen=True):
    """A stretch of a line, from `x` on for `width`."""

    name: str
    x: str
    width: str
    micros: Micros
    index: int


def parts(durations: Mapping[str, Micros], whole: Micros | None = None) -> list[Part]:
    """`durations` one after the other, on a line as long as `whole` (their sum, if it is not longer)."""
    length = max(sum(durations.values()), whole or 0)
    found, at = [], 0
    for index, (name, micros) in enumerate(durations.items()):
        found.append(Part(name, percent(at, length), percent(micros, length), micros, index))
        at += micros
    return found


def percent(part: float, whole: float) -> str:
    """A share as SVG has it, never outside of the whole."""
    share = 0.0 if whole <= 0 else min(1.0, max(0.0, part / whole))
    return f"{100 * share:.2f}%"


class Stretch(msgspec.Struct, frozen=True):
    """Part of a leg's time in a call: what it was doing, and when, as `x` and `width`."""

    state: str
    x: str
    width: str
    seconds: float


def stretches(times: Sequence[tuple[str, Micros | None]], begin: Micros, end: Micros) -> list[Stretch]:
    """
    What somebody was doing from `begin` to `end`: each of `times` is a state and when it began.

    Those that are not known are left out; the last is no state but the end.
    """
    known = [(state, at) for state, at in times if at is not None]
    found = []
    for (state, at), (_, following) in zip(known, [*known[1:], ("", end)], strict=True):
        if state and following > at:
            found.append(
                Stretch(
                    state,
                    percent(at - begin, end - begin),
                    percent(following - at, end - begin),
                    (following - at) / 1e6,
                )
            )
    return found
