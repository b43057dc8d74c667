"""The API over a real socket, with a service behind it that is none."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec
import treq
from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from cubehook import config
from cubehook.api.control import caller
from cubehook.api.operations import PREFIX, Api, operations
from cubehook.api.redelivery import RedeliveryPart
from cubehook.api.webhooks import WebhooksPart
from cubehook.delivery.breaker import State
from cubehook.delivery.means import Status
from cubehook.events import CallState, Event, Micros, NoticeType
from cubehook.ids import first_id
from cubehook.interfaces import IRedelivery, NotFoundError
from cubehook.net.site import AccessSite, LimitedRequest
from cubehook.notices import about_webhook
from cubehook.records import Attempt, Delivery, DeliveryStatus, Job, JobState
from cubehook.store.errors import ProvisionedError

reactor: Any = installed

NOW: Micros = 1_732_377_816_200_940
"""2024-11-23T16:03:36.200940Z."""

CRM = config.Webhook(
    id="crm",
    name="CRM",
    url="https://user:hunter2@crm.example/calls?token=hunter2",
    headers={"Authorization": "Bearer hunter2"},
    secret="whsec_aHVudGVyMmh1bnRlcjJodW50ZXIyaHVudGVyMg==",
)


def status(**changes: Any) -> Status:
    """How a webhook's deliveries stand when all is well."""
    well = Status(
        enabled=True,
        pending=0,
        resident=0,
        in_flight=0,
        state=State.CLOSED,
        held_until=None,
        failures=0,
        failing_since=None,
        problem=None,
    )
    return msgspec.structs.replace(well, **changes)


class FakeWebhooks:
    """Webhooks that only remember what was asked of them."""

    def __init__(self) -> None:
        self.known = {"crm": CRM, "audit": config.Webhook(id="audit", transport="jsonl", url="")}
        self.disabled: dict[str, str] = {}
        self.statuses: dict[str, Status] = {}
        self.asked: list[tuple[str, str]] = []
        self.provisioned: frozenset[str] = frozenset()
        self.tried: list[tuple[config.Webhook, CallState]] = []
        self.waits: Deferred[None] | None = None
        self.fault: Exception | None = None

    def status(self, webhook: str) -> Status:
        return self.statuses.get(webhook, status())

    async def _done(self, what: str, webhook: str) -> None:
        if self.fault is not None:
            raise self.fault
        if webhook in self.provisioned:
            raise ProvisionedError(f"the file says what webhook {webhook} is")
        if self.waits is not None:
            await self.waits
        self.asked.append((what, webhook))

    async def rotate_secret(self, webhook: str) -> tuple[str, Micros | None]:
        await self._done("rotate", webhook)
        return "whsec_new", NOW

    async def create(self, webhook: config.Webhook) -> str | None:
        self.known[webhook.id] = msgspec.structs.replace(webhook, secret=None)
        return None if webhook.secret else "whsec_new"

    async def change(self, id: str, change: Callable[[config.Webhook], config.Webhook]) -> None:
        self.known[id] = change(self.known[id])

    async def delete(self, id: str, check: Callable[[config.Webhook], None]) -> None:
        check(self.known[id])
        del self.known[id]

    def check(self, webhook: config.Webhook, before: config.Webhook | None = None) -> None:
        pass

    async def try_out(self, webhook: config.Webhook, state: CallState) -> Attempt:
        self.tried.append((webhook, state))
        return Attempt(id=1, delivery=1, number=1, started_at=NOW, duration=5, delivered=True)

    async def enable(self, webhook: str) -> None:
        await self._done("enable", webhook)
        self.disabled.pop(webhook, None)


@implementer(IRedelivery)
class FakeRedelivery:
    """Jobs that begin and never get on."""

    def __init__(self) -> None:
        self.known: dict[int, Job] = {}
        self.asked: list[Any] = []
        self.refusal: Exception | None = None
        self.count = 7

    def _look(self, webhook: str) -> None:
        if self.refusal is not None:
            raise self.refusal
        if webhook != "crm":
            raise NotFoundError(f"there is no webhook {webhook}")

    async def preview(
        self,
        webhook: str,
        since: Micros,
        until: Micros,
        statuses: Collection[DeliveryStatus],
        *,
        missed: bool = False,
    ) -> int:
        self._look(webhook)
        self.asked.append(("preview", webhook, since, until, (*statuses, *["missed"] * missed)))
        return self.count

    async def start(
        self,
        webhook: str,
        since: Micros,
        until: Micros,
        statuses: Collection[DeliveryStatus],
        asked_by: str,
        per_second: float = 50.0,
        *,
        missed: bool = False,
    ) -> Job:
        self._look(webhook)
        meant = (*statuses, *["missed"] * missed)
        self.asked.append(("start", webhook, since, until, meant, asked_by, per_second))
        job = Job(
            id=first_id(NOW) + len(self.known),
            webhook=webhook,
            since=since,
            until=until,
            statuses=tuple(statuses),
            per_second=per_second,
            total=self.count,
            asked_by=asked_by,
        )
        self.known[job.id] = job
        return job

    async def one(self, delivery: int, asked_by: str) -> Delivery:
        if self.refusal is not None:
            raise self.refusal
        self.asked.append(("one", delivery, asked_by))
        event: Event = about_webhook(NoticeType.WEBHOOK_FAILING, CRM, NOW, lambda at: 5)
        return Delivery(id=delivery, webhook="crm", event=event, due_at=NOW, redelivery=True)

    async def cancel(self, job: int) -> Job:
        kept = await self.job(job)
        self.known[job] = kept = msgspec.structs.replace(kept, state=JobState.CANCELLED, ended_at=NOW)
        return kept

    async def jobs(self, webhook: str | None = None, before: int | None = None, limit: int = 50) -> list[Job]:
        newest = sorted(self.known.values(), key=lambda job: -job.id)
        wanted = [
            job for job in newest if webhook in (None, job.webhook) and (before is None or job.id < before)
        ]
        return wanted[:limit]

    async def job(self, job: int) -> Job:
        if job not in self.known:
            raise NotFoundError(f"there is no job {job}")
        return self.known[job]


class ApiCase(TestCase):
    """The API on a TCP port of loopback; `ask` speaks to it."""

    def setUp(self) -> None:
        self.webhooks, self.redelivery = FakeWebhooks(), FakeRedelivery()
        self.parts = self.make_parts()
        self.logged: list[LimitedRequest] = []
        self.site = AccessSite(Api(self.parts, self.who).resource(), self.logged.append, lambda: NOW, reactor)
        self.port = reactor.listenTCP(0, self.site, interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)
        self.url = f"http://127.0.0.1:{self.port.getHost().port}"
        self.declared = {declared.name: declared for part in self.parts for declared, _ in operations(part)}

    def make_parts(self) -> list[object]:
        """Whose operations there are."""
        return [
            WebhooksPart(self.webhooks, lambda webhook: {"delivered": 3}),
            RedeliveryPart(self.redelivery, lambda: NOW),
        ]

    def who(self, request: LimitedRequest) -> Any:
        return caller(request)

    def _see_that_it_is_declared(self, method: str, path: str, status: int) -> None:
        """Whoever reads what an operation is said to answer must have been told of `status`."""
        for declared in self.declared.values():
            pattern = re.sub(r"\{\w+\}", "[^/]+", declared.path)
            if declared.method == method and re.fullmatch(pattern, path.partition("?")[0]):
                self.assertIn(
                    status,
                    {declared.status, *(error.status for error in declared.every_error)},
                    declared.name,
                )

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that only looking can tell."""
        for _ in range(1000):
            if condition():
                return
            await deferLater(reactor, 0.01, lambda: None)
        self.fail("it did not happen")

    async def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        raw: bytes | None = None,
        content_type: str | None = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Any]:
        """The status and the JSON of an answer; None for no body."""
        if body is not None:
            raw = json.dumps(body).encode()
        sent: dict[bytes | str, bytes | str] = dict((headers or {}).items())
        if raw is not None and content_type is not None:
            sent["Content-Type"] = content_type
        response = await treq.request(
            method, f"{self.url}{PREFIX}{path}", data=raw, headers=sent, persistent=False
        )
        self.headers, self.phrase = response.headers, response.phrase
        self._see_that_it_is_declared(method, path, response.code)
        content = await response.content()
        if content:
            self.assertEqual(response.headers.getRawHeaders("content-type"), ["application/json"])
        return response.code, json.loads(content) if content else None
