"""
Sending again as the store sees it: what is meant, found without a long read; made pending again together
with how far the job is, so that a kill neither repeats nor skips.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

import msgspec
from sqlalchemy import Connection, bindparam, case, exists, func, insert, or_, select, update
from twisted.logger import Logger
from zope.interface import implementer

from cubehook.events import Micros
from cubehook.ids import first_id, id_text
from cubehook.interfaces import (
    DeliveryPendingError,
    EventNotKeptError,
    Handed,
    IJobStore,
    NotFoundError,
)
from cubehook.records import Delivery, DeliveryStatus, Job, JobState
from cubehook.store import missed, queries
from cubehook.store.schema import PENDING, deliveries, events, jobs, webhooks

ROWS = 5_000
"""Rows that one read looks at, of whatever webhook: a few milliseconds."""

_log = Logger()

_encode = msgspec.json.Encoder().encode
_job = msgspec.json.Decoder(Job).decode

T = TypeVar("T")

STRETCH_END, EVENTS_END = (
    select(id)
    .where(id > bindparam("after"), id <= bindparam("last"))
    .order_by(id)
    .offset(bindparam("rows"))
    .limit(1)
    for id in (deliveries.c.id, events.c.id)
)

OVER = (
    deliveries.c.id > bindparam("after"),
    deliveries.c.id <= bindparam("last"),
    deliveries.c.webhook == bindparam("webhook"),
    deliveries.c.status.in_(bindparam("statuses", expanding=True)),
)

FIND = select(deliveries.c.id).where(*OVER).order_by(deliveries.c.id).limit(bindparam("most"))

COUNT = select(func.count()).where(*OVER, exists().where(events.c.id == deliveries.c.event))

AGAIN = (
    select(*queries.DELIVERY)
    .join_from(deliveries, events, events.c.id == deliveries.c.event, isouter=True)
    .where(
        deliveries.c.id.in_(bindparam("ids", expanding=True)),
        deliveries.c.webhook == bindparam("webhook"),
        deliveries.c.status.in_(bindparam("statuses", expanding=True)),
    )
    .order_by(deliveries.c.id)
)

MAKE_PENDING = (
    update(deliveries)
    .where(deliveries.c.id.in_(bindparam("ids", expanding=True)))
    .values(status=PENDING, redelivery=True, spent=0, due_at=bindparam("now"))
)

_older = deliveries.alias("older")
_oldest = (
    select(func.min(_older.c.id))
    .where(
        _older.c.call == deliveries.c.call,
        _older.c.webhook == deliveries.c.webhook,
        _older.c.status == PENDING,
    )
    .scalar_subquery()
)

LEAD_LANES = (
    update(deliveries)
    .where(
        deliveries.c.call.in_(bindparam("calls", expanding=True)),
        deliveries.c.webhook == bindparam("of"),
        deliveries.c.status == PENDING,
        or_(deliveries.c.ready_at.is_not(None), deliveries.c.id == _oldest),
    )
    .values(ready_at=case((deliveries.c.id == _oldest, deliveries.c.due_at)))
)


class Read(Protocol):
    """Runs work in a reading thread: `Store.read`."""

    def __call__(self, work: Callable[[Connection], T], /) -> Awaitable[T]: ...


class Do(Protocol):
    """Runs work in a transaction of the writer's; returns once that is committed."""

    def __call__(self, work: Callable[[Connection], T], /) -> Awaitable[T]: ...


@implementer(IJobStore)
class Jobs:
    """
    The jobs in the database that `read` reads and `do` writes.

    `rows` are looked at in one read.
    """

    def __init__(self, read: Read, do: Do, rows: int = ROWS) -> None:
        self._read = read
        self._do = do
        self._rows = rows

    async def knows_webhook(self, webhook: str) -> bool:
        """See `IJobStore.knows_webhook`."""
        known = select(exists().where(webhooks.c.id == webhook))
        return bool(await self._read(lambda connection: connection.scalar(known)))

    async def count(self, job: Job) -> int:
        """See `IJobStore.count`."""
        counted, after, last = 0, first_id(job.since) - 1, last_id(job)
        while after < last:
            more, after = await self._read(partial(count, job=job, after=after, rows=self._rows))
            counted += more
        return counted

    async def find(self, job: Job, after: int, most: int) -> tuple[list[int], int | None]:
        """See `IJobStore.find`."""
        found, through = await self._read(partial(find, job=job, after=after, most=most, rows=self._rows))
        return found, None if through >= last_id(job) else through

    async def hand_over(self, job: int, ids: Sequence[int], through: int | None, now: Micros) -> Handed:
        """See `IJobStore.hand_over`."""
        return await self._do(partial(hand_over, id=job, ids=ids, through=through, now=now))

    async def send_again(self, delivery: int, now: Micros) -> Delivery:
        """See `IJobStore.send_again`."""
        return await self._do(partial(send_again, id=delivery, now=now))

    async def webhook_of(self, delivery: int) -> str:
        """See `IJobStore.webhook_of`."""
        webhook: str | None = await self._read(
            lambda connection: connection.scalar(
                select(deliveries.c.webhook).where(deliveries.c.id == delivery)
            )
        )
        if webhook is None:
            raise NotFoundError(_no_delivery(delivery))
        return webhook

    async def add(self, job: Job) -> None:
        """See `IJobStore.add`."""
        row = {"id": job.id, "webhook": job.webhook, **_standing(job)}
        await self._do(lambda connection: connection.execute(insert(jobs).values(row)))

    async def end(self, job: int, state: JobState, reason: str | None, at: Micros) -> Job:
        """See `IJobStore.end`."""
        return await self._do(partial(end, id=job, state=state, reason=reason, at=at))

    async def get(self, job: int) -> Job:
        """See `IJobStore.get`."""
        return await self._read(partial(get, id=job))

    async def page(self, webhook: str | None, before: int | None, limit: int) -> list[Job]:
        """See `IJobStore.page`."""
        those = select(jobs.c.detail).order_by(jobs.c.id.desc()).limit(limit)
        if webhook is not None:
            those = those.where(jobs.c.webhook == webhook)
        if before is not None:
            those = those.where(jobs.c.id < before)
        return await self._read(lambda connection: [_job(each) for each in connection.scalars(those)])

    async def running(self) -> list[Job]:
        """See `IJobStore.running`."""
        those = select(jobs.c.detail).where(jobs.c.state == str(JobState.RUNNING)).order_by(jobs.c.id)
        return await self._read(lambda connection: [_job(each) for each in connection.scalars(those)])


def last_id(job: Job) -> int:
    """The greatest id that a delivery meant by `job` may have: what was made after the job is not meant."""
    return min(first_id(job.until), job.id) - 1


def find(connection: Connection, job: Job, after: int, most: int, rows: int) -> tuple[list[int], int]:
    """
    Up to `most` deliveries, or events, that `job` means among the `rows` rows after the id `after`.

    Ascending; also the id through which all were looked at.
    """
    last = _stretch_end(connection, job, after, rows)
    # One more tells whether these are all, so that a job ends with its last delivery.
    if job.missed is None:
        found = list(connection.scalars(FIND, {**_over(job, after, last), "most": most + 1}))
    else:
        found = missed.find(connection, job, after, last, most + 1)
    return found[:most], found[most - 1] if len(found) > most else last


def count(connection: Connection, job: Job, after: int, rows: int) -> tuple[int, int]:
    """How many deliveries `job` would send again of the next `rows` rows, and the last id of those."""
    last = _stretch_end(connection, job, after, rows)
    if job.missed is not None:
        return missed.count(connection, job, after, last), last
    return connection.scalar(COUNT, _over(job, after, last)) or 0, last


def _stretch_end(connection: Connection, job: Job, after: int, rows: int) -> int:
    last = last_id(job)
    statement = STRETCH_END if job.missed is None else EVENTS_END
    end: int | None = connection.scalar(statement, {"after": after, "last": last, "rows": rows - 1})
    return last if end is None else end


def _over(job: Job, after: int, last: int) -> dict[str, Any]:
    return {"after": after, "last": last, "webhook": job.webhook, "statuses": list(map(str, job.statuses))}


def hand_over(
    connection: Connection, id: int, ids: Sequence[int], through: int | None, now: Micros
) -> Handed:
    """See `IJobStore.hand_over`."""
    job = get(connection, id)
    if job.state is not JobState.RUNNING or (through is not None and through <= job.cursor):
        return Handed(job, [])
    statuses: Sequence[DeliveryStatus] = job.statuses
    if job.missed is not None:
        ids = missed.deliveries_of(connection, job, ids, now)
        statuses = (*statuses, DeliveryStatus.FAILED)
    again, skipped = make_pending(connection, job.webhook, ids, statuses, now)
    job = msgspec.structs.replace(
        job,
        done=job.done + len(again),
        skipped=job.skipped + skipped,
        cursor=last_id(job) if through is None else through,
    )
    if through is None:
        job = msgspec.structs.replace(job, state=JobState.DONE, ended_at=now)
    _save(connection, job)
    return Handed(job, again)


def send_again(connection: Connection, id: int, now: Micros) -> Delivery:
    """See `IJobStore.send_again`."""
    row = connection.execute(
        select(deliveries.c.webhook, deliveries.c.status).where(deliveries.c.id == id)
    ).one_or_none()
    if row is None:
        raise NotFoundError(_no_delivery(id))
    if row.status == DeliveryStatus.PENDING:
        raise DeliveryPendingError(
            f"delivery {id_text(id)} is pending already: it is sent as soon as its turn comes"
        )
    again, _ = make_pending(connection, row.webhook, [id], [DeliveryStatus(row.status)], now)
    if not again:
        raise EventNotKeptError(
            f"delivery {id_text(id)} cannot be sent again: the event that it carried is no longer kept"
        )
    return again[0]


def make_pending(
    connection: Connection, webhook: str, ids: Sequence[int], statuses: Sequence[DeliveryStatus], now: Micros
) -> tuple[list[Delivery], int]:
    """
    Make those of the deliveries `ids` of `webhook` pending again that have one of `statuses`.

    They, ids ascending, and how many could not be for want of their event.  In each lane the oldest
    pending delivery leads, as ever.
    """
    rows = connection.execute(
        AGAIN, {"ids": list(ids), "webhook": webhook, "statuses": list(map(str, statuses))}
    ).all()
    again: list[Delivery] = []
    for row in rows:
        # What cannot be read back must not become pending: each later read of what is would fail of it.
        if row.body is None:
            continue
        try:
            delivery = queries.delivery(webhook, row)
        except ValueError as error:
            _log.error(
                "The event of delivery {delivery} in the database cannot be read back, so that it cannot be "
                "sent again: {why}",
                delivery=id_text(row[0]),
                why=str(error),
            )
            continue
        delivery.redelivery = True
        delivery.spent = 0
        delivery.due_at = now
        again.append(delivery)
    if again:
        connection.execute(MAKE_PENDING, {"ids": [each.id for each in again], "now": now})
        calls = list({each.event.call for each in again})
        connection.execute(LEAD_LANES, {"calls": calls, "of": webhook})
    return again, len(rows) - len(again)


def end(connection: Connection, id: int, state: JobState, reason: str | None, at: Micros) -> Job:
    """See `IJobStore.end`."""
    job = get(connection, id)
    if job.state is JobState.RUNNING:
        job = msgspec.structs.replace(job, state=state, reason=reason, ended_at=at)
        _save(connection, job)
    return job


def get(connection: Connection, id: int) -> Job:
    """See `IJobStore.get`."""
    detail = connection.scalar(select(jobs.c.detail).where(jobs.c.id == id))
    if detail is None:
        raise NotFoundError(f"there is no job {id_text(id)}: it never was, or was deleted as retention says")
    return _job(detail)


def _save(connection: Connection, job: Job) -> None:
    connection.execute(update(jobs).where(jobs.c.id == job.id).values(_standing(job)))


def _standing(job: Job) -> dict[str, str]:
    return {"state": str(job.state), "detail": _encode(job).decode()}


def _no_delivery(id: int) -> str:
    return f"there is no delivery {id_text(id)}: it never was, or was deleted as retention says"
