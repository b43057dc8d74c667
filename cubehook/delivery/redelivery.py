"""
Sending again what is over, because someone asked for that.

One delivery goes at once.  Many go as a job: bit by bit, at a pace, and never into a receiver that is in
trouble or behind.  What a job has done is committed together with what it did, so it may end anywhere and
go on in the next life.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Coroutine
from typing import Any, TypeVar

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from cubehook.delivery.breaker import State
from cubehook.delivery.dispatcher import Dispatcher
from cubehook.events import Micros, iso
from cubehook.ids import Ids, first_id, id_text
from cubehook.interfaces import (
    BadRangeError,
    IJobStore,
    IRedelivery,
    NotFoundError,
    WebhookDisabledError,
)
from cubehook.records import Delivery, DeliveryStatus, Job, JobState, Wants
from cubehook.store.errors import StoreError
from cubehook.text import printable

PER_SECOND = 50.0
MOST_PER_SECOND = 1000.0
LEAST_PER_SECOND = 0.01

FULL = 1000
"""Pending deliveries of a webhook with which a job hands over nothing more."""

_STEP_SECONDS = 0.2
"""For about as long a job's pace is handed over at once, `_STEP_MOST` deliveries at most."""

_STEP_MOST = 100

_LOOK_AGAIN = 1.0
"""Seconds after which a job that waits looks again."""

_TRY_AGAIN = 5.0
"""Seconds after which a job goes on that could not read the database."""

T = TypeVar("T")


@implementer(IRedelivery)
class Redelivery:
    """
    Sends again through `dispatcher`; jobs go on from `resume` until `stop`.

    `ids` must be the one that numbers deliveries: a job's id tells which were made before it.  `kept` tells
    for how many seconds deliveries are kept after their events.
    """

    _log = Logger()

    def __init__(
        self,
        store: IJobStore,
        dispatcher: Dispatcher,
        ids: Ids,
        now: Callable[[], Micros],
        reactor: IReactorTime,
        kept: Callable[[], float],
    ) -> None:
        self._store = store
        self._dispatcher = dispatcher
        self._ids = ids
        self._now = now
        self._reactor = reactor
        self._kept = kept
        self._queues: dict[str, deque[int]] = {}
        """The running jobs of each webhook, oldest first; only the first of them goes on."""
        self._runs: dict[str, Deferred[None]] = {}
        self._waits: dict[int, str] = {}
        """What the first ones wait for."""
        self._works: set[Deferred[Any]] = set()
        self._stopped = False

    async def resume(self) -> None:
        """Go on with the jobs of an earlier life; the dispatcher must have started."""
        for job in await self._store.running():
            self._log.info(
                "Redelivery job {job} of webhook {webhook}, asked for by {asked_by}, goes on at {done} of "
                "{total} deliveries",
                **_words(job),
            )
            self._begin(job)

    def stop(self) -> None:
        """Hand over nothing more; what was asked for and is not done goes on in the next life."""
        self._stopped = True
        for each in [*self._runs.values(), *self._works]:
            each.cancel()

    # What is asked for

    async def preview(
        self,
        webhook: str,
        since: Micros,
        until: Micros,
        statuses: Collection[DeliveryStatus],
        *,
        missed: bool = False,
    ) -> int:
        """See `IRedelivery.preview`."""
        job = self._meant(webhook, since, until, statuses, missed, "", PER_SECOND)
        await self._known(webhook)
        return await self._store.count(self._with_wants(job) if missed else job)

    async def start(
        self,
        webhook: str,
        since: Micros,
        until: Micros,
        statuses: Collection[DeliveryStatus],
        asked_by: str,
        per_second: float = PER_SECOND,
        *,
        missed: bool = False,
    ) -> Job:
        """See `IRedelivery.start`."""
        job = self._meant(webhook, since, until, statuses, missed, asked_by, per_second)
        return await self._owned(self._start(job, missed))

    async def one(self, delivery: int, asked_by: str) -> Delivery:
        """See `IRedelivery.one`."""
        return await self._owned(self._one(delivery, asked_by))

    async def cancel(self, job: int) -> Job:
        """See `IRedelivery.cancel`."""
        return await self._owned(self._cancel(job))

    async def jobs(self, webhook: str | None = None, before: int | None = None, limit: int = 50) -> list[Job]:
        """See `IRedelivery.jobs`."""
        return [self._shown(job) for job in await self._store.page(webhook, before, limit)]

    async def job(self, job: int) -> Job:
        """See `IRedelivery.job`."""
        return self._shown(await self._store.get(job))

    def _meant(
        self,
        webhook: str,
        since: Micros,
        until: Micros,
        statuses: Collection[DeliveryStatus],
        missed: bool,
        asked_by: str,
        per_second: float,
    ) -> Job:
        """A job for this, not kept yet; BadRangeError."""
        problems = {}
        if since >= until:
            problems["until"] = f"a time later than since ({iso(since)})"
        if missed and since < (known := self._now() - self._kept_for()):
            problems["since"] = (
                f"a time since {iso(known)}: before that, what was sent is not kept any more "
                "(retention.deliveries), so that nobody knows what was missed"
            )
        if not statuses and not missed:
            problems["statuses"] = "at least one of delivered, failed, expired and missed"
        elif DeliveryStatus.PENDING in statuses:
            problems["statuses"] = "delivered, failed or expired: what is pending will be sent anyway"
        if not LEAST_PER_SECOND <= per_second <= MOST_PER_SECOND:
            problems["per_second"] = f"a number from {LEAST_PER_SECOND:g} to {MOST_PER_SECOND:g}"
        if problems:
            raise BadRangeError(problems)
        id = self._ids.next(self._now())
        since = max(0, since)
        return Job(
            id=id,
            webhook=webhook,
            since=since,
            until=until,
            statuses=tuple(status for status in DeliveryStatus if status in statuses),
            per_second=per_second,
            total=0,
            asked_by=asked_by,
            cursor=min(first_id(since), id) - 1,
        )

    def _kept_for(self) -> Micros:
        return int(self._kept() * 1_000_000)

    def _with_wants(self, job: Job) -> Job:
        """`job`, which also means what its webhook has missed; NotFoundError."""
        try:
            settings = self._dispatcher.settings(job.webhook)
        except KeyError:
            raise NotFoundError(f"there is no webhook {printable(job.webhook)}") from None
        wants = Wants(
            granularity=settings.granularity,
            states=settings.states,
            cubes=settings.cubes,
            kept=self._kept_for(),
        )
        return msgspec.structs.replace(job, missed=wants)

    async def _start(self, job: Job, missed: bool) -> Job:
        await self._sendable(job.webhook)
        if missed:
            job = self._with_wants(job)
        job = msgspec.structs.replace(job, total=await self._store.count(job))
        await self._store.add(job)
        self._log.info(
            "Redelivery job {job} begins: webhook {webhook}, {total} deliveries of {since} to {until} that "
            "were {statuses}, {per_second:g} a second; asked for by {asked_by}",
            since=iso(job.since),
            until=iso(job.until),
            statuses=" or ".join([*job.statuses, *(["missed"] if missed else [])]),
            per_second=job.per_second,
            **_words(job),
        )
        self._begin(job)
        return self._shown(job)

    async def _one(self, id: int, asked_by: str) -> Delivery:
        webhook = await self._store.webhook_of(id)
        await self._sendable(webhook)
        delivery = await self._store.send_again(id, self._now())
        self._log.info(
            "Delivery {delivery} of webhook {webhook} is sent again; asked for by {asked_by}",
            delivery=id_text(id),
            webhook=webhook,
            asked_by=printable(asked_by),
        )
        self._dispatcher.send_again(webhook, [delivery])
        return delivery

    async def _cancel(self, id: int) -> Job:
        before = await self._store.get(id)
        job = await self._store.end(id, JobState.CANCELLED, None, self._now())
        queue = self._queues.get(job.webhook)
        if queue is not None and id in queue:
            queue.remove(id)
        if before.state is JobState.RUNNING and job.state is JobState.CANCELLED:
            self._log_end(job)
        return job

    async def _known(self, webhook: str) -> None:
        if not await self._store.knows_webhook(webhook):
            raise NotFoundError(f"there is no webhook {printable(webhook)}")

    async def _sendable(self, webhook: str) -> None:
        """Nothing, or what stands against sending to `webhook` at all."""
        await self._known(webhook)
        try:
            status = self._dispatcher.status(webhook)
        except KeyError:
            raise WebhookDisabledError(
                f"webhook {webhook} is sent nothing since its settings cannot be used, as the log of the "
                "start says: mend them first"
            ) from None
        if not status.enabled:
            why = printable(status.problem or "disabled")
            raise WebhookDisabledError(f"webhook {webhook} is sent nothing ({why}): enable it first")

    def _shown(self, job: Job) -> Job:
        if job.state is not JobState.RUNNING:
            return job
        queue = self._queues.get(job.webhook)
        why = self._waits.get(job.id)
        if queue and job.id in queue and queue[0] != job.id:
            why = f"waits: job {id_text(queue[0])} of the same webhook goes first"
        return job if why is None else msgspec.structs.replace(job, reason=why)

    def _owned(self, work: Coroutine[Any, Any, T]) -> Deferred[T]:
        """What `work` returns; whoever waits for that may go away and it is done all the same."""
        answer: Deferred[T] = Deferred()
        running = Deferred.fromCoroutine(work)
        self._works.add(running)

        def over(result: T | Failure) -> None:
            self._works.discard(running)
            answer.callback(result)

        _ = running.addBoth(over)
        return answer

    # Jobs

    def _begin(self, job: Job) -> None:
        if self._stopped:
            return
        webhook = job.webhook
        self._queues.setdefault(webhook, deque()).append(job.id)
        if webhook not in self._runs:
            # Not at once: whoever asked is answered first.
            run: Deferred[None] = deferLater(self._reactor, 0)
            self._runs[webhook] = run.addCallback(
                lambda _: Deferred.fromCoroutine(self._run(webhook))
            ).addErrback(self._run_failed, webhook)

    async def _run(self, webhook: str) -> None:
        """Go on with the jobs of `webhook` until there are none."""
        queue = self._queues[webhook]
        while queue:
            id = queue[0]
            try:
                job = await self._carry_on(await self._store.get(id))
            except CancelledError:
                raise
            except StoreError as error:
                self._log.error(
                    "Redelivery job {job} cannot go on for now: {error}; next try in {seconds:g} s",
                    job=id_text(id),
                    error=str(error),
                    seconds=_TRY_AGAIN,
                )
                self._waits[id] = f"waits: {error}"
                await deferLater(self._reactor, _TRY_AGAIN)
                continue
            except Exception as error:
                self._log.failure("Redelivery job {job} met with a bug and is given up", job=id_text(id))
                reason = f"it met with a bug, of which the log tells more: {type(error).__name__}: {error}"
                job = await self._store.end(id, JobState.FAILED, reason, self._now())
            self._waits.pop(id, None)
            if id in queue:
                queue.remove(id)
            # Who cancelled it has said so.
            if job.state is not JobState.CANCELLED:
                self._log_end(job)
        del self._runs[webhook], self._queues[webhook]

    def _run_failed(self, failure: Failure, webhook: str) -> None:
        if not failure.check(CancelledError):
            self._log.failure(
                "The redelivery jobs of webhook {webhook} stand still until the next start",
                failure,
                webhook=webhook,
            )

    async def _carry_on(self, job: Job) -> Job:
        """Hand over what `job` means, until it has ended; how it then stands."""
        queue, after, turn = self._queues[job.webhook], job.cursor, self._reactor.seconds()
        while job.state is JobState.RUNNING:
            if job.id not in queue:
                return await self._store.get(job.id)
            most, why = self._room(job)
            if not most:
                if not await self._store.knows_webhook(job.webhook):
                    reason = f"webhook {job.webhook} was removed"
                    return await self._store.end(job.id, JobState.FAILED, reason, self._now())
                self._waits[job.id] = f"waits: {why}"
                await deferLater(self._reactor, _LOOK_AGAIN)
                continue
            self._waits.pop(job.id, None)
            found, through = await self._store.find(job, after, most)
            if through is not None:
                after = through
            if not found and through is not None:
                continue
            job, again = await self._store.hand_over(job.id, found, through, self._now())
            self._dispatcher.send_again(job.webhook, again)
            now = self._reactor.seconds()
            # A step that came late is made up for, a longer wait is not.
            turn = max(turn, now - _STEP_SECONDS) + len(again) / job.per_second
            if job.state is JobState.RUNNING and turn > now:
                await deferLater(self._reactor, turn - now)
        return job

    def _room(self, job: Job) -> tuple[int, str]:
        """How many deliveries of `job` may be handed over now; if none, why not."""
        try:
            status = self._dispatcher.status(job.webhook)
        except KeyError:
            return 0, "the webhook's settings cannot be used, as the log of the start says"
        if status.problem is not None:
            return 0, f"the webhook is sent nothing: {status.problem}"
        if status.held_until is not None:
            return 0, f"the webhook is held back until {iso(status.held_until)}"
        if status.state is not State.CLOSED:
            # Something must be tried with it, if nothing is pending.
            return (0, "it is tried whether the receiver is well again") if status.pending else (1, "")
        if status.pending >= FULL:
            return 0, f"{status.pending} deliveries of the webhook are pending"
        step = min(max(1, int(job.per_second * _STEP_SECONDS)), _STEP_MOST)
        return min(step, FULL - status.pending), ""

    def _log_end(self, job: Job) -> None:
        say = self._log.warn if job.state is JobState.FAILED else self._log.info
        say(
            "Redelivery job {job} of webhook {webhook}, asked for by {asked_by}, is {state}: {done} of "
            "{total} deliveries were handed over{skipped}{reason}",
            state=job.state.value,
            skipped=f", {job.skipped} could not be since their events are no longer kept"
            if job.skipped
            else "",
            reason=f"; {job.reason}" if job.reason else "",
            **_words(job),
        )


def _words(job: Job) -> dict[str, object]:
    return {
        "job": id_text(job.id),
        "webhook": job.webhook,
        "asked_by": printable(job.asked_by),
        "done": job.done,
        "total": job.total,
    }
