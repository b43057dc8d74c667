"""
What calls add up to: by the hour as they end (the writer does that), and how many were in progress.

`statistics` is a plain function of a connection, for `Store.read`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from sqlalchemy import Column, ColumnElement, Connection, Select, Subquery, and_, func, select

from cubehook.events import Micros, Outcome
from cubehook.ids import first_id
from cubehook.store import sqlite
from cubehook.store.rows import HOUR
from cubehook.store.schema import HOURLY, calls, hourly, samples

MINUTE: Micros = 60_000_000

POINTS = 360
"""Points of calls in progress over time, at most."""

BUSIEST = 10
"""Numbers of each kind, and hours, that are told."""

CALLS_COMPARED = 20_000
"""The newest so many calls are gone through for the busiest numbers."""


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
    hours = [
        Hour(row[0] * HOUR, _sums(row[1:])) for row in connection.execute(_added_up(hourly.c.hour, those))
    ]
    cubes = {row[0]: _sums(row[1:]) for row in connection.execute(_added_up(hourly.c.cube, those))}
    compared = _newest(cube, since, until)
    count = connection.scalar(select(func.count()).select_from(compared)) or 0
    minutes = _minutes(cube, since, until)
    step = max(1, -(-(until - since) // MINUTE // POINTS))
    return Statistics(
        since=since,
        until=until,
        total=_whole(cubes.values()),
        cubes=cubes,
        hours=hours,
        peak_hours=sorted(hours, key=lambda hour: (-hour.sums.calls, hour.at))[:BUSIEST],
        active=list(_active(connection, minutes, step)),
        active_step=step * MINUTE,
        peak=_peak(connection, minutes),
        peaks=_peaks(connection, minutes),
        called=_busiest(connection, compared.c.called_number),
        calling=_busiest(connection, compared.c.calling_number),
        compared=count,
        compared_all=count < CALLS_COMPARED,
    )


def in_progress(connection: Connection) -> dict[str, int]:
    """How many calls are in progress, by cube; of those without any nothing is said."""
    rows = connection.execute(select(calls.c.cube, func.count()).where(~calls.c.ended).group_by(calls.c.cube))
    return dict(rows.tuples().all())


def keep_sample(connection: Connection, minute: int, active: Mapping[str, int]) -> None:
    """
    Keep how many calls of each cube are in progress in a minute since the epoch.

    Of several for one minute the greatest stays.
    """
    if not active:
        return
    new = sqlite.insert(samples)
    more = new.excluded.active > samples.c.active
    connection.execute(
        new.on_conflict_do_update(
            index_elements=[samples.c.minute, samples.c.cube],
            set_={"active": new.excluded.active},
            where=more,
        ),
        [{"minute": minute, "cube": cube, "active": count} for cube, count in active.items()],
    )


def _added_up(by: Column[Any], those: list[ColumnElement[bool]]) -> Select[Any]:
    sums = (func.sum(hourly.c[name]) for name in HOURLY)
    return select(by, *sums).where(*those).group_by(by).order_by(by)


def _sums(row: Any) -> Sums:
    """From the columns of `HOURLY`."""
    values = dict(zip(HOURLY, row, strict=True))
    return Sums(outcomes={outcome: values.pop(str(outcome)) for outcome in Outcome}, **values)


def _whole(parts: Any) -> Sums:
    parts = list(parts)
    return Sums(
        outcomes={outcome: sum(part.outcomes[outcome] for part in parts) for outcome in Outcome},
        **{
            name: sum(getattr(part, name) for part in parts)
            for name in ("calls", "rung", "ring_ms", "talked", "talk_ms")
        },
    )


def _newest(cube: str | None, since: Micros, until: Micros) -> Subquery:
    those = and_(calls.c.id >= first_id(since), calls.c.id < first_id(until))
    newest = select(calls.c.called_number, calls.c.calling_number).where(those)
    if cube is not None:
        newest = newest.where(calls.c.cube == cube)
    return newest.order_by(calls.c.id.desc()).limit(CALLS_COMPARED).subquery()


def _busiest(connection: Connection, number: Any) -> list[Busy]:
    count = func.count()
    rows = connection.execute(
        select(number, count)
        .where(number.is_not(None))
        .group_by(number)
        .order_by(count.desc(), number)
        .limit(BUSIEST)
    )
    return [Busy(*row) for row in rows]


def _minutes(cube: str | None, since: Micros, until: Micros) -> tuple[ColumnElement[bool], ...]:
    those = (samples.c.minute >= since // MINUTE, samples.c.minute < until // MINUTE)
    return those if cube is None else (*those, samples.c.cube == cube)


def _in_all(minutes: tuple[ColumnElement[bool], ...]) -> Subquery:
    active = func.sum(samples.c.active).label("active")
    return select(samples.c.minute, active).where(*minutes).group_by(samples.c.minute).subquery()


def _active(connection: Connection, minutes: tuple[ColumnElement[bool], ...], step: int) -> Iterator[Active]:
    in_all = _in_all(minutes)
    point = in_all.c.minute - in_all.c.minute % step
    for at, active in connection.execute(
        select(point, func.max(in_all.c.active)).group_by(point).order_by(point)
    ):
        yield Active(at * MINUTE, active)


def _peak(connection: Connection, minutes: tuple[ColumnElement[bool], ...]) -> Active | None:
    in_all = _in_all(minutes)
    row = connection.execute(
        select(in_all.c.minute, in_all.c.active).order_by(in_all.c.active.desc(), in_all.c.minute).limit(1)
    ).one_or_none()
    return None if row is None else Active(row.minute * MINUTE, row.active)


def _peaks(connection: Connection, minutes: tuple[ColumnElement[bool], ...]) -> dict[str, Active]:
    most = (
        select(samples.c.cube, func.max(samples.c.active).label("active"))
        .where(*minutes)
        .group_by(samples.c.cube)
        .subquery()
    )
    its = and_(samples.c.cube == most.c.cube, samples.c.active == most.c.active)
    rows = connection.execute(
        select(samples.c.cube, func.min(samples.c.minute), most.c.active)
        .join(most, its)
        .where(*minutes)
        .group_by(samples.c.cube, most.c.active)
    )
    return {cube: Active(minute * MINUTE, active) for cube, minute, active in rows}
