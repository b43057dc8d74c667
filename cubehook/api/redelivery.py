"""Sending again, and the jobs that do it: the `redeliver` of webhooks and deliveries, and `/jobs`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from cubehook import interfaces
from cubehook.api import views
from cubehook.api.errors import ConflictError, InvalidError, NotFoundError
from cubehook.api.operations import Caller, operation
from cubehook.events import Micros
from cubehook.ids import id_text, parse_id
from cubehook.interfaces import IRedelivery
from cubehook.records import DeliveryStatus

# What the API calls the arguments of `IRedelivery`.
_FIELDS = {"statuses": "status"}


class RedeliveryPart:
    """The operations that send again; `redelivery` does it, `now` is the time."""

    def __init__(self, redelivery: IRedelivery, now: Callable[[], Micros]) -> None:
        self._redelivery = redelivery
        self._now = now

    @operation(
        "POST",
        "/webhooks/{webhook}/redeliver",
        body=views.RedeliverRange,
        result=views.Redelivering,
        errors=(ConflictError,),
        changes=lambda body: not body.preview,
    )
    async def redeliver_range(
        self, caller: Caller, webhook: str, body: views.RedeliverRange
    ) -> views.Redelivering:
        """
        Send a webhook's deliveries of some time again, and what it missed meanwhile, as a job.

        The job goes on by itself, also over a restart of the service.
        """
        until = self._now() if body.until is None else body.until
        statuses = [DeliveryStatus(each) for each in body.status if each is not views.SentAgainIf.MISSED]
        those: dict[str, Any] = {"missed": len(statuses) < len(body.status)}
        with _refusals():
            if body.preview:
                total = await self._redelivery.preview(webhook, body.since, until, statuses, **those)
                return views.Redelivering(total=total, job=None)
            if body.per_second is not None:
                those["per_second"] = body.per_second
            job = await self._redelivery.start(webhook, body.since, until, statuses, caller.name, **those)
        return views.Redelivering(total=job.total, job=views.job_view(job))

    @operation("POST", "/deliveries/{delivery}/redeliver", result=views.SentAgain, errors=(ConflictError,))
    async def redeliver_one(self, caller: Caller, delivery: str) -> views.SentAgain:
        """Send one delivery again that is over."""
        number = _number(delivery, "delivery")
        with _refusals():
            return views.delivery_view(await self._redelivery.one(number, caller.name))

    @operation("GET", "/jobs", query=views.JobsQuery, result=views.RedeliveryJobs)
    async def list_jobs(self, caller: Caller, query: views.JobsQuery) -> views.RedeliveryJobs:
        """Jobs, newest first."""
        with _refusals():
            jobs = await self._redelivery.jobs(query.webhook, query.cursor, query.limit + 1)
        part = jobs[: query.limit]
        return views.RedeliveryJobs(
            items=[views.job_view(job) for job in part],
            next=id_text(part[-1].id) if len(jobs) > len(part) else None,
        )

    @operation("GET", "/jobs/{job}", result=views.RedeliveryJob)
    async def get_job(self, caller: Caller, job: str) -> views.RedeliveryJob:
        """One job, and how far it has come."""
        with _refusals():
            return views.job_view(await self._redelivery.job(_number(job, "job")))

    @operation("POST", "/jobs/{job}/cancel", result=views.RedeliveryJob)
    async def cancel_job(self, caller: Caller, job: str) -> views.RedeliveryJob:
        """
        Let a job hand over nothing more.

        What it has handed over is sent all the same.  A job that had ended stays as it was.
        """
        with _refusals():
            return views.job_view(await self._redelivery.cancel(_number(job, "job")))


def _number(text: str, kind: str) -> int:
    try:
        return parse_id(text)
    except ValueError as error:
        raise NotFoundError(f"There is no {kind} of that id: {error}") from None


@contextmanager
def _refusals() -> Iterator[None]:
    """What `IRedelivery` refuses, in the API's terms."""
    try:
        yield
    except interfaces.NotFoundError as error:
        raise NotFoundError(str(error)) from None
    except interfaces.BadRangeError as error:
        fields = {_FIELDS.get(name, name): words for name, words in error.problems.items()}
        raise InvalidError("These deliveries cannot be sent again", fields=fields) from None
    except interfaces.RedeliveryError as error:
        raise ConflictError(str(error)) from None
