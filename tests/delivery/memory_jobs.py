"""Redelivery jobs in memory, over the deliveries of a `MemoryStore`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec
from zope.interface import implementer

from cubehook.events import Micros
from cubehook.ids import first_id
from cubehook.interfaces import DeliveryPendingError, EventNotKeptError, Handed, IJobStore, NotFoundError
from cubehook.records import Delivery, DeliveryStatus, Job, JobState
from tests.delivery.fakes import MemoryStore

T = TypeVar("T")


@implementer(IJobStore)
class MemoryJobs:
    """
    Commits among the writes of `store`; a read looks at `rows` deliveries.

    `unreadable` are deliveries whose events are lost; `broken` many reads fail with `error`.
    """

    def __init__(self, store: MemoryStore, rows: int = 10) -> None:
        self.store = store
        self.rows = rows
        self.kept: dict[int, Job] = {}
        self.webhooks: set[str] = {"crm"}
        self.unreadable: set[int] = set()
        self.broken = 0
        self.error: Exception = OSError("poison")
        self.handed: list[tuple[int, int]] = []
        """Each delivery that was made pending again: the job (0 if none) and the delivery's id."""

    async def knows_webhook(self, webhook: str) -> bool:
        return webhook in self.webhooks

    async def webhook_of(self, delivery: int) -> str:
        if delivery not in self.store.rows:
            raise NotFoundError(f"there is no delivery {delivery}")
        return self.store.rows[delivery].webhook

    async def count(self, job: Job) -> int:
        meant = self._meant(job, first_id(job.since) - 1)
        return sum(row.status in job.statuses and row.id not in self.unreadable for row in meant)

    async def find(self, job: Job, after: int, most: int) -> tuple[list[int], int | None]:
        await self.store.look()
        if self.broken:
            self.broken -= 1
            raise self.error
        meant = self._meant(job, after)
        part = meant[: self.rows]
        found = [row.id for row in part if row.status in job.statuses]
        if len(found) > most:
            return found[:most], found[most - 1]
        return found, part[-1].id if len(meant) > len(part) else None

    def _meant(self, job: Job, after: int) -> list[Delivery]:
        last = min(first_id(job.until), job.id) - 1
        rows = sorted(self.store.rows.values(), key=lambda row: row.id)
        return [row for row in rows if after < row.id <= last and row.webhook == job.webhook]

    async def hand_over(self, job: int, ids: Sequence[int], through: int | None, now: Micros) -> Handed:
        return await self._write(lambda: self._hand_over(job, ids, through, now))

    def _hand_over(self, id: int, ids: Sequence[int], through: int | None, now: Micros) -> Handed:
        job = self.kept[id]
        if job.state is not JobState.RUNNING or (through is not None and through <= job.cursor):
            return Handed(job, [])
        wanted = [id for id in ids if self.store.rows[id].status in job.statuses]
        again = [self._again(id, now, job.id) for id in wanted if id not in self.unreadable]
        job = msgspec.structs.replace(
            job,
            done=job.done + len(again),
            skipped=job.skipped + len(wanted) - len(again),
            cursor=job.id if through is None else through,
        )
        if through is None:
            job = msgspec.structs.replace(job, state=JobState.DONE, ended_at=now)
        self.kept[id] = job
        return Handed(job, again)

    def _again(self, id: int, now: Micros, job: int) -> Delivery:
        row = copy.copy(self.store.rows[id])
        row.status, row.redelivery, row.spent, row.due_at = DeliveryStatus.PENDING, True, 0, now
        self.store.rows[id] = row
        self.handed.append((job, id))
        return copy.copy(row)

    async def send_again(self, delivery: int, now: Micros) -> Delivery:
        return await self._write(lambda: self._send_again(delivery, now))

    def _send_again(self, id: int, now: Micros) -> Delivery:
        if self.store.rows[id].status is DeliveryStatus.PENDING:
            raise DeliveryPendingError(f"delivery {id} is pending already")
        if id in self.unreadable:
            raise EventNotKeptError(f"the event of delivery {id} is no longer kept")
        return self._again(id, now, 0)

    async def add(self, job: Job) -> None:
        await self._write(lambda: self._add(job))

    def _add(self, job: Job) -> None:
        self.kept[job.id] = job

    async def end(self, job: int, state: JobState, reason: str | None, at: Micros) -> Job:
        return await self._write(lambda: self._end(job, state, reason, at))

    def _end(self, id: int, state: JobState, reason: str | None, at: Micros) -> Job:
        job = self.kept[id]
        if job.state is JobState.RUNNING:
            self.kept[id] = job = msgspec.structs.replace(job, state=state, reason=reason, ended_at=at)
        return job

    async def get(self, job: int) -> Job:
        if job not in self.kept:
            raise NotFoundError(f"there is no job {job}")
        return self.kept[job]

    async def page(self, webhook: str | None, before: int | None, limit: int) -> list[Job]:
        jobs = [self.kept[id] for id in sorted(self.kept, reverse=True)]
        return [
            job for job in jobs if webhook in (None, job.webhook) and (before is None or job.id < before)
        ][:limit]

    async def running(self) -> list[Job]:
        return [self.kept[id] for id in sorted(self.kept) if self.kept[id].state is JobState.RUNNING]

    async def _write(self, work: Callable[[], T]) -> T:
        results: list[T | Exception] = []

        def commit() -> None:
            try:
                results.append(work())
            except Exception as error:
                results.append(error)

        await self.store._write(commit)
        [result] = results
        if isinstance(result, Exception):
            raise result
        return result
