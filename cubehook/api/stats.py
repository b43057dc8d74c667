"""What calls add up to: `/stats`."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import msgspec
from sqlalchemy import Connection

from cubehook.api.errors import InvalidError
from cubehook.api.operations import Caller, operation
from cubehook.api.views import Time, TimeGiven
from cubehook.events import Micros, Outcome, iso
from cubehook.store import stats
from cubehook.store.rows import HOUR
from cubehook.store.store import Store

DAY: Micros = 24 * 3600 * 1_000_000

LONGEST: Micros = 366 * DAY
"""The longest time that is added up."""


class StatsQuery(msgspec.Struct, frozen=True):
    """
    Of calls that began from `since` (a day before `until`, unless given) up to but without `until` (now,
    unless given), of `cube` if it is given.

    Calls are added up by the hour in which they began, so the time is widened to whole hours.
    """

    since: TimeGiven | None = None
    until: TimeGiven | None = None
    cube: str | None = None


class Sums(msgspec.Struct, frozen=True, kw_only=True):
    """
    Calls that have ended, added up.

    `answer_rate` is the share that was answered, from 0 to 1.  `rung` and `talked` of the calls have a known
    time of ringing and of talking, which are `ring_seconds` and `talk_seconds` together; the averages are
    of these.  What nothing is known of is null.
    """

    calls: int
    outcomes: dict[Outcome, int]
    answer_rate: float | None
    rung: int
    ring_seconds: float
    average_ring_seconds: float | None
    talked: int
    talk_seconds: float
    average_talk_seconds: float | None


class InProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How many calls were in progress at most, from `at` on."""

    at: Time
    calls: int


class HourSums(Sums, frozen=True, kw_only=True):
    """The calls that began in the hour from `at` on and have ended."""

    at: Time


class CubeSums(Sums, frozen=True, kw_only=True):
    """
    The calls of one cube.

    `in_progress` are those of this moment; `peak` is when most were in progress in the time.
    """

    in_progress: int
    peak: InProgress | None


class NumberCalls(msgspec.Struct, frozen=True, kw_only=True):
    """A number and how many of the calls it was in."""

    number: str
    calls: int


class Stats(Sums, frozen=True, kw_only=True):
    """
    What the calls of a time add up to, in all, by hour and by cube.

    `in_progress` are those of this moment.  `active` tells how many were in progress over the time, each for
    `active_step_seconds`; `peak` is when it was most.  `called` and `calling` are the busiest numbers of the
    newest `compared` calls, which are all if `compared_all`.
    """

    since: Time
    until: Time
    in_progress: int
    peak: InProgress | None
    cubes: dict[str, CubeSums]
    hours: list[HourSums]
    peak_hours: list[HourSums]
    active: list[InProgress]
    active_step_seconds: int
    called: list[NumberCalls]
    calling: list[NumberCalls]
    compared: int
    compared_all: bool


class StatsPart:
    """The operation that adds calls up."""

    def __init__(self, store: Store, now: Callable[[], Micros]) -> None:
        self._store = store
        self._now = now

    @operation("GET", "/stats", query=StatsQuery, result=Stats)
    async def get_stats(self, caller: Caller, query: StatsQuery) -> Stats:
        """Calls in progress, per hour, average durations, answer rate and peak; in all and for each cube."""
        until = self._now() if query.until is None else query.until
        since = max(0, until - DAY) if query.since is None else query.since
        if since >= until:
            raise InvalidError("The time has no length", fields={"since": "must be before until"})
        if until - since > LONGEST:
            raise InvalidError(
                "The time is too long", fields={"since": f"must be within {LONGEST // DAY} days before until"}
            )
        return await self._store.read(partial(_stats, since=since, until=until, cube=query.cube))


def _stats(connection: Connection, since: Micros, until: Micros, cube: str | None) -> Stats:
    """Read and shown, both in the reading thread: of a long time there is much to show."""
    found = stats.statistics(connection, since=since, until=until, cube=cube)
    active = stats.in_progress(connection)
    if cube is not None:
        active = {each: calls for each, calls in active.items() if each == cube}
    none = stats.Sums(outcomes=dict.fromkeys(Outcome, 0))
    return Stats(
        **_sums(found.total),
        since=iso(found.since),
        until=iso(found.until),
        in_progress=sum(active.values()),
        peak=_active(found.peak),
        cubes={
            each: CubeSums(
                **_sums(found.cubes.get(each, none)),
                in_progress=active.get(each, 0),
                peak=_active(found.peaks.get(each)),
            )
            for each in sorted({*found.cubes, *active, *found.peaks})
        },
        hours=[_hour(hour) for hour in found.hours],
        peak_hours=[_hour(hour) for hour in found.peak_hours],
        active=[InProgress(at=iso(each.at), calls=each.calls) for each in found.active],
        active_step_seconds=found.active_step // 1_000_000,
        called=[NumberCalls(number=each.number, calls=each.calls) for each in found.called],
        calling=[NumberCalls(number=each.number, calls=each.calls) for each in found.calling],
        compared=found.compared,
        compared_all=found.compared_all,
    )


def _sums(sums: stats.Sums) -> dict[str, Any]:
    return {
        "calls": sums.calls,
        "outcomes": sums.outcomes,
        "answer_rate": sums.answer_rate,
        "rung": sums.rung,
        "ring_seconds": sums.ring_ms / 1000,
        "average_ring_seconds": sums.average_ring_seconds,
        "talked": sums.talked,
        "talk_seconds": sums.talk_ms / 1000,
        "average_talk_seconds": sums.average_talk_seconds,
    }


def _active(active: stats.Active | None) -> InProgress | None:
    return None if active is None else InProgress(at=iso(active.at), calls=active.calls)


@lru_cache(maxsize=4)
def _iso_day(day: int) -> str:
    return iso(day * DAY)[:11]


def _iso_hour(at: Micros) -> str:
    """`iso`, of a whole hour."""
    day, rest = divmod(at, DAY)
    return f"{_iso_day(day)}{rest // HOUR:02}:00:00.000000Z"


def _hour(hour: stats.Hour) -> HourSums:
    # Of 90 days there are two thousand: a table of the fields for each would take half the time.
    sums = hour.sums
    return HourSums(
        at=_iso_hour(hour.at),
        calls=sums.calls,
        outcomes=sums.outcomes,
        answer_rate=sums.answer_rate,
        rung=sums.rung,
        ring_seconds=sums.ring_ms / 1000,
        average_ring_seconds=sums.average_ring_seconds,
        talked=sums.talked,
        talk_seconds=sums.talk_ms / 1000,
        average_talk_seconds=sums.average_talk_seconds,
    )
