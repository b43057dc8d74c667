"""
What calls add up to: by the hour as they end (the writer does that), and how many were in progress.

`statistics` is a plain function of a connection, for `Store.read`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Select,
    func,
    literal,
    select,
    true,
    union_all,
)

from cubehook.events import Micros, Outcome
from cubehook.ids import first_id
from cubehook.store import queries, sqlite
from cubehook.store.rows import HOUR
from cubehook.store.schema import HOURLY, calls, hourly, samples

MINUTE: Micros = 60_000_000

POINTS = 360
"""Points of calls in progress over time, at most."""

BUSIEST = 10
"""Numbers of each kind, and hours, that are told."""

CALLS_COMPARED = 5_000
"""The newest so many calls are gone through for the busiest numbers: some seven milliseconds."""


_ALL = ""
"""What `samples` has as the cube of all together."""


class Sums(msgspec.Struct, frozen=True, kw_only=True):
    """
    Calls that ended, added up.

    `rung` and `talked` of them have a known time of ringing and of talking, which is in `ring_ms` and
    `talk_ms`; those whose end was inferred have none.
    """

    calls: int = 0
    outcomes: dict[Outcome, int]
    rung: int = 0
    ring_ms: int = 0
    talked: int = 0
    talk_ms: int = 0

    @property
    def answer_rate(self) -> float | None:
        """The share of them that was answered, from 0 to 1; None if there are none."""
        return self.outcomes[Outcome.ANSWERED] / self.calls if self.calls else None

    @property
    def average_ring_seconds(self) -> float | None:
        """How long they rang, of those that did."""
        return self.ring_ms / self.rung / 1000 if self.rung else None

    @property
    def average_talk_seconds(self) -> float | None:
        """How long they talked, of those that did."""
        return self.talk_ms / self.talked / 1000 if self.talked else None


class Hour(msgspec.Struct, frozen=True):
    """The calls that began in the hour from `at` on and have ended."""

    at: Micros
    sums: Sums


class Active(msgspec.Struct, frozen=True):
    """How many calls were in progress at `at`, in that minute or the few that a point stands for at most."""

    at: Micros
    calls: int


class Busy(msgspec.Struct, frozen=True):
    """A number, and how many of the calls it was in."""

    number: str
    calls: int


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """
    What calls of a time add up to, in all and by cube.

    Calls count to the hour in which they began, so the time is of whole hours: from `since` to `until`.
    """

    since: Micros
    until: Micros
    total: Sums
    cubes: dict[str, Sums]
    hours: list[Hour]
    """Those with calls, in order."""
    peak_hours: list[Hour]
    """Those with the most calls, the most first."""
    active: list[Active]
    """In order; minutes of which nothing is known (the service was down) are left out."""
    active_step: Micros
    """What each of `active` stands for."""
    peak: Active | None
    """The most that were in progress in a minute, the first time that happened; None if nothing is known."""
    peaks: dict[str, Active]
    """The same by cube."""
    called: list[Busy]
    """The numbers that were called most, of the newest `compared` calls."""
    calling: list[Busy]
    """The numbers that called most, of these."""
    compared: int
    compared_all: bool
    """These are all that began in the time."""


def statistics(
    connection: Connection, *, since: Micros, until: Micros, cube: str | None = None
) -> Statistics:
    """What calls that began from `since` up to but without `until` add up to, of `cube` or of all."""
    first, last = since // HOUR, -(-until // HOUR)
    since, until = first * HOUR, last * HOUR
    those = [hourly.c.hour >= first, hourly.c.hour < last]
    if cube is not None:
        those.append(hourly.c.cube == cube)
    by_hour = connection.execute(_added_up(hourly.c.hour, those)).all()
    hours = [Hour(row[0] * HOUR, _sums(row)) for row in by_hour]
    if cube is None:
        cubes = {row[0]: _sums(row) for row in connection.execute(_added_up(hourly.c.cube, those))}
    else:
        cubes = {cube: _whole(hour.sums for hour in hours)} if hours else {}
    compared, called, calling = _busiest(connection, cube, since, until)
    minutes = (since // MINUTE, until // MINUTE)
    step = max(1, -(-(until - since) // MINUTE // POINTS))
    return Statistics(
        since=since,
        until=until,
        total=_whole(cubes.values()),
        cubes=cubes,
        hours=hours,
        peak_hours=sorted(hours, key=lambda hour: (-hour.sums.calls, hour.at))[:BUSIEST],
        active=_active(connection, cube or _ALL, *minutes, step),
        active_step=step * MINUTE,
        peak=_peak(connection, cube or _ALL, *minutes),
        peaks=_peaks(connection, cube, *minutes),
        called=called,
        calling=calling,
        compared=compared,
        compared_all=compared < CALLS_COMPARED,
    )


def in_progress(connection: Connection) -> dict[str, int]:
    """How many calls are in progress, by cube; of those without any nothing is said."""
    # Counted here: to group them by cube, SQLite would walk all calls by an index of cubes.
    return dict(Counter(connection.scalars(select(calls.c.cube).where(~calls.c.ended))))


def keep_sample(connection: Connection, minute: int, active: Mapping[str, int]) -> None:
    """
    Keep how many calls are in progress in a minute since the epoch: of every cube, and so of all together.

    Of several for one minute the greatest stays.
    """
    new = sqlite.insert(samples)
    more = new.excluded.active > samples.c.active
    connection.execute(
        new.on_conflict_do_update(
            index_elements=[samples.c.cube, samples.c.minute],
            set_={"active": new.excluded.active},
            where=more,
        ),
        [
            {"minute": minute, "cube": cube, "active": count}
            for cube, count in {**active, _ALL: sum(active.values())}.items()
        ],
    )


def _added_up(by: Column[Any], those: list[ColumnElement[bool]]) -> Select[Any]:
    sums = (func.sum(hourly.c[name]) for name in HOURLY)
    return select(by, *sums).where(*those).group_by(by).order_by(by)


def _sums(row: Any) -> Sums:
    """From the columns of `HOURLY`, after another one; there is a row for each hour."""
    _, calls, answered, missed, busy, abandoned, rejected, failed, rung, ring_ms, talked, talk_ms = row
    outcomes = {
        Outcome.ANSWERED: answered,
        Outcome.MISSED: missed,
        Outcome.BUSY: busy,
        Outcome.ABANDONED: abandoned,
        Outcome.REJECTED: rejected,
        Outcome.FAILED: failed,
    }
    return Sums(calls=calls, outcomes=outcomes, rung=rung, ring_ms=ring_ms, talked=talked, talk_ms=talk_ms)


def _whole(parts: Any) -> Sums:
    parts = list(parts)
    return Sums(
        outcomes={outcome: sum(part.outcomes[outcome] for part in parts) for outcome in Outcome},
        **{
            name: sum(getattr(part, name) for part in parts)
            for name in ("calls", "rung", "ring_ms", "talked", "talk_ms")
        },
    )


def _busiest(
    connection: Connection, cube: str | None, since: Micros, until: Micros
) -> tuple[int, list[Busy], list[Busy]]:
    """How many calls were compared, and the numbers that were called and that called most in these."""
    those = [calls.c.id >= first_id(since), calls.c.id < first_id(until)]
    if cube is not None:
        those.append(calls.c.cube == cube)
    newest = (
        select(calls.c.called_number, calls.c.calling_number)
        .where(*those)
        .order_by(calls.c.id.desc())
        .limit(CALLS_COMPARED)
        .cte("newest")
    )
    count = func.count().label("calls")
    parts = [select(literal("").label("kind"), literal("").label("number"), count).select_from(newest)]
    for number in (newest.c.called_number, newest.c.calling_number):
        most = (
            select(literal(number.name).label("kind"), number.label("number"), count)
            .where(number.is_not(None))
            .group_by(number)
            .order_by(count.desc(), number)
            .limit(BUSIEST)
        )
        parts.append(select(most.subquery()))
    found: dict[str, list[Busy]] = {"": [], "called_number": [], "calling_number": []}
    # In one statement, which goes through the calls once.
    for kind, its, many in connection.execute(union_all(*parts)).tuples():
        found[kind].append(Busy(its, many))
    for each in found.values():
        each.sort(key=lambda busy: (-busy.calls, busy.number))
    return found[""][0].calls, found["called_number"], found["calling_number"]


def _samples(cube: str, first: int, last: int) -> tuple[ColumnElement[bool], ...]:
    """Those of the minutes from `first` up to but without `last`."""
    return samples.c.cube == cube, samples.c.minute >= first, samples.c.minute < last


def _active(connection: Connection, cube: str, first: int, last: int, step: int) -> list[Active]:
    point = samples.c.minute - samples.c.minute % step
    rows = connection.execute(
        select(point, func.max(samples.c.active))
        .where(*_samples(cube, first, last))
        .group_by(point)
        .order_by(point)
    )
    return [Active(at * MINUTE, active) for at, active in rows]


def _peak(connection: Connection, cube: str, first: int, last: int) -> Active | None:
    row = connection.execute(
        select(samples.c.minute, samples.c.active)
        .where(*_samples(cube, first, last))
        .order_by(samples.c.active.desc(), samples.c.minute)
        .limit(1)
    ).one_or_none()
    return None if row is None else Active(row.minute * MINUTE, row.active)


def _peaks(connection: Connection, cube: str | None, first: int, last: int) -> dict[str, Active]:
    cubes = queries.leap(connection, samples.c.cube, true()) if cube is None else [cube]
    peaks = {each: _peak(connection, each, first, last) for each in cubes if each != _ALL}
    return {each: peak for each, peak in peaks.items() if peak is not None}
