"""
Events that a webhook was never owed, because it was paused, disabled or not there yet: found, and owed now.

A job that means them goes along the events instead of the deliveries, so that each event is looked at once,
whatever the job has made of it meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count as numbers_from
from typing import Any

from sqlalchemy import ColumnElement, Connection, Join, and_, func, insert, or_, select

from cubehook.events import Micros
from cubehook.ids import first_id
from cubehook.records import DeliveryStatus, Job
from cubehook.store.schema import deliveries, events

_NEAR = 64
"""Ids after an event's among which a free one is looked for at once."""


def find(connection: Connection, job: Job, after: int, last: int, most: int) -> list[int]:
    """Up to `most` events with ids from `after`, which is left out, to `last` that `job` means, ascending."""
    those = _source(job), (events.c.id > after, events.c.id <= last, _meant(job))
    found = select(events.c.id).select_from(those[0]).where(*those[1]).order_by(events.c.id).limit(most)
    return list(connection.scalars(found).all())


def count(connection: Connection, job: Job, after: int, last: int) -> int:
    """How many events there are of these."""
    those = events.c.id > after, events.c.id <= last, _meant(job)
    return connection.scalar(select(func.count()).select_from(_source(job)).where(*those)) or 0


def deliveries_of(connection: Connection, job: Job, ids: Sequence[int], now: Micros) -> list[int]:
    """
    The deliveries of the events `ids` that `job` means, ascending; made where there are none.

    Those that are made stand as failed, without an attempt, until whoever asks makes them pending.
    """
    columns = events.c.id, events.c.call, deliveries.c.id.label("delivery")
    those = select(*columns).select_from(_source(job)).where(events.c.id.in_(ids), _meant(job))
    found = []
    for event, call, delivery in connection.execute(those.order_by(events.c.id)).all():
        if delivery is None:
            if not _is_known_to_be_missed(job, event, now):
                continue
            delivery = _free_id(connection, event)
            row = {"id": delivery, "webhook": job.webhook, "call": call, "event": event, "due_at": now}
            over = {"status": str(DeliveryStatus.FAILED), "attempts": 0}
            connection.execute(insert(deliveries).values(**row, **over))
        found.append(delivery)
    return found


def _source(job: Job) -> Join:
    """Each event, with its delivery to the job's webhook if there is one."""
    # By the index of calls.
    of_event = and_(
        deliveries.c.call == events.c.call,
        deliveries.c.webhook == job.webhook,
        deliveries.c.event == events.c.id,
    )
    return events.outerjoin(deliveries, of_event)


def _meant(job: Job) -> ColumnElement[bool]:
    wants = job.missed
    assert wants is not None
    missed: list[Any] = [
        deliveries.c.id.is_(None),
        events.c.granularity == str(wants.granularity),
        events.c.state.in_(list(map(str, wants.states))),
    ]
    if wants.cubes:
        missed.append(events.c.cube.in_(list(wants.cubes)))
    return or_(deliveries.c.status.in_(list(map(str, job.statuses))), and_(*missed))


def _is_known_to_be_missed(job: Job, event: int, now: Micros) -> bool:
    """Whether a delivery of it, if there had been one, would still be kept."""
    assert job.missed is not None
    return event >= first_id(max(0, now - job.missed.kept))


def _free_id(connection: Connection, event: int) -> int:
    """
    An id for a delivery of `event` that none has: right after the event's, where its other deliveries are.

    So deliveries of a call stay in the order of its events.  Nobody is about to use it: the ids that follow
    an event's are those of its deliveries, committed with it, and of something else that is no delivery.
    """
    first = event + 1
    while True:
        near = deliveries.c.id >= first, deliveries.c.id < first + _NEAR
        taken = set(connection.scalars(select(deliveries.c.id).where(*near)).all())
        free = next(id for id in numbers_from(first) if id not in taken)
        if free < first + _NEAR:
            return free
        first += _NEAR
