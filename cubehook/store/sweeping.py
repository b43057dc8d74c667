"""
Old history deleted, a little at a time.

Ids carry the time, so what is old is a range of the primary key; a sweep walks it in
chunks, each a short transaction of the writer between two groups.
"""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    Table,
    and_,
    delete,
    exists,
    func,
    literal,
    or_,
    select,
    true,
    tuple_,
)

from cubehook.config import Retention
from cubehook.events import Micros
from cubehook.ids import first_id
from cubehook.records import JobState
from cubehook.store import queries
from cubehook.store.rows import HOUR
from cubehook.store.schema import (
    PENDING,
    attempts,
    audit,
    calls,
    deliveries,
    events,
    hourly,
    jobs,
    notifications,
    numbers,
    registration_changes,
    samples,
    sessions,
)
from cubehook.store.stats import MINUTE

AUDIT_KEPT: Micros = 366 * 86_400 * 1_000_000

HOURLY_KEPT: Micros = 400 * 86_400 * 1_000_000
"""Longer than most keep calls: sums are small, tell of nobody, and let a year be compared with the last."""


class Swept(msgspec.Struct, frozen=True, kw_only=True):
    """How many rows of each kind a sweep deleted."""

    calls: int
    notifications: int
    events: int
    deliveries: int
    attempts: int
    registration_changes: int
    jobs: int = 0
    audit: int = 0
    numbers: int = 0
    sessions: int = 0
    samples: int = 0
    hourly: int = 0


class Range(msgspec.Struct, frozen=True):
    """What a sweep may delete of one table: ids below `before`, where `may_go`."""

    table: Table
    before: int
    may_go: ColumnElement[bool]


def ranges(retention: Retention, now: Micros) -> list[Range]:
    """
    What is past its time at `now`, table by table.

    Never an open call, a pending delivery, nor what either still needs; nor a job that is not over.  An
    event stays as long as either its call or its deliveries would, since a delivery is shown with its event.
    """
    calls_before = first_id(max(0, now - retention.calls * 1_000_000))
    deliveries_before = first_id(max(0, now - retention.deliveries * 1_000_000))

    def open_call(call: Any) -> ColumnElement[bool]:
        open_one = calls.alias("open_call")
        return exists().where(open_one.c.id == call, ~open_one.c.ended)

    def owed(call: Any) -> ColumnElement[bool]:
        owed_one = deliveries.alias("owed")
        return exists().where(owed_one.c.call == call, owed_one.c.status == PENDING)

    tried = deliveries.alias("tried")
    return [
        Range(
            attempts,
            deliveries_before,
            ~exists().where(tried.c.id == attempts.c.delivery, tried.c.status == PENDING),
        ),
        Range(deliveries, deliveries_before, deliveries.c.status != PENDING),
        Range(
            notifications,
            calls_before,
            or_(notifications.c.call.is_(None), ~open_call(notifications.c.call)),
        ),
        Range(
            events,
            min(calls_before, deliveries_before),
            and_(~open_call(events.c.call), ~owed(events.c.call)),
        ),
        Range(calls, calls_before, and_(calls.c.ended, ~owed(calls.c.id))),
        Range(jobs, deliveries_before, jobs.c.state != str(JobState.RUNNING)),
        Range(audit, first_id(max(0, now - AUDIT_KEPT)), true()),
    ]


def sweep_chunk(connection: Connection, range_: Range, after: int, rows: int) -> tuple[int, int | None]:
    """
    Delete what may go among the next `rows` rows with an id greater than `after`.

    How many went, and where to go on, None at the end.
    """
    id = range_.table.c.id
    next_rows = select(id).where(id > after, id < range_.before).order_by(id).limit(rows).subquery()
    last: int | None = connection.scalar(select(func.max(next_rows.c.id)))
    if last is None:
        return 0, None
    gone = connection.execute(delete(range_.table).where(id > after, id <= last, range_.may_go))
    return gone.rowcount, last


def sweep_numbers_chunk(
    connection: Connection, before: int, after: tuple[str, int], rows: int
) -> tuple[int, tuple[str, int] | None]:
    """
    Delete what leads to calls below the id `before` that are gone, among the next `rows` rows after `after`.

    How many went, and where to go on, None at the end.
    """
    place = tuple_(numbers.c.key, numbers.c.call)
    begins = place > tuple_(*map(literal, after))
    last = connection.execute(
        select(numbers.c.key, numbers.c.call)
        .where(begins)
        .order_by(numbers.c.key, numbers.c.call)
        .offset(rows - 1)
        .limit(1)
    ).one_or_none()
    those = [begins, numbers.c.call < before, ~exists().where(calls.c.id == numbers.c.call)]
    if last is not None:
        those.append(place <= tuple_(*map(literal, last)))
    gone = connection.execute(delete(numbers).where(*those)).rowcount
    return gone, None if last is None else (last[0], last[1])


def sweep_sessions(connection: Connection, now: Micros) -> int:
    """Delete the sessions and links that are over at `now`; there are few."""
    return connection.execute(delete(sessions).where(sessions.c.expires_at <= now)).rowcount


def sweep_samples_chunk(connection: Connection, before: Micros) -> int:
    """Delete up to half a day's samples of each cube from before `before`; how many went."""
    gone = 0
    for cube in queries.leap(connection, samples.c.cube, true()):
        of = samples.c.cube == cube
        oldest = connection.scalar(select(func.min(samples.c.minute)).where(of)) or 0
        first_kept = min(before // MINUTE, oldest + 720)
        gone += connection.execute(delete(samples).where(of, samples.c.minute < first_kept)).rowcount
    return gone


def sweep_hourly(connection: Connection, retention: Retention, now: Micros) -> int:
    """Delete the sums of hours that are past their time; there are few, a row for an hour and a cube."""
    before = now - max(retention.calls * 1_000_000, HOURLY_KEPT)
    return connection.execute(delete(hourly).where(hourly.c.hour < before // HOUR)).rowcount


def sweep_registration_changes(connection: Connection, before: Micros) -> int:
    """Delete the changes of registrations that happened before `before`; there are few."""
    return connection.execute(delete(registration_changes).where(registration_changes.c.at < before)).rowcount
