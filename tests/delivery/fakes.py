"""A store in memory, transports that do as they are told, and a desk to join them on a fake clock."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from zope.interface import implementer

from cubehook import config
from cubehook.delivery.dispatcher import Dispatcher
from cubehook.delivery.window import WINDOW
from cubehook.events import CallEvent, CallState, Event, Granularity, Micros, iso
from cubehook.ids import Ids, id_text
from cubehook.interfaces import IDeliveryStore, ITransport, Outbound, Sent
from cubehook.records import Attempt, Delivery, DeliveryStatus, Trouble

BASE = 1_732_377_816_200_940
STATES = (CallState.ALERTING, CallState.CONNECTED, CallState.DISCONNECTED)
OK = Sent(delivered=True, status=200)
FAILED = Sent(delivered=False, status=500)
PERMANENT = Sent(delivered=False, status=422, permanent=True)
GONE = Sent(delivered=False, status=410, gone=True)


def held(seconds: float) -> Sent:
    return Sent(delivered=False, status=503, hold=seconds)


def call_event(**changes: object) -> CallEvent:
    fields: dict[str, Any] = dict.fromkeys(CallEvent.__struct_fields__)
    fields |= {
        "call_state": CallState.ALERTING,
        "called_number": "+12512501663",
        "calling_number": "+12517676234",
        "timestamp": iso(BASE),
        "event_id": "64YBA8PFPXG05-1",
        "sequence": 1,
        "cube": "hq",
        "call_id": "64YBA8PFPXG05",
        "calling_withheld": False,
        "inferred": False,
        "connections": [],
    }
    return CallEvent(**(fields | changes))


@implementer(IDeliveryStore)
class MemoryStore:
    """
    Commits in order, each write `latency()` seconds after it came; `away` stalls all commits.

    Reads look some time after what was written before them is committed, and answer later still.
    """

    def __init__(self, clock: Clock, latency: Callable[[], float] = lambda: 0.0) -> None:
        self.clock = clock
        self.answering: Deferred[None] | None = None
        """Reads wait for it before they answer."""
        self.latency = latency
        self.away = False
        self.broken_reads = 0
        self.refuse_records = False
        self.refuse_settling = False
        self.rows: dict[int, Delivery] = {}
        self.attempts: list[Attempt] = []
        self.disabled: dict[str, str] = {}
        self.troubles: dict[str, Trouble] = {}
        self.settled: list[tuple[int, str]] = []
        self.reads: list[tuple[str, int]] = []
        self._writes: list[tuple[Callable[[], None], Deferred[None]]] = []
        self._pending_commit = False

    def _write(self, commit: Callable[[], None]) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        self._writes.append((commit, done))
        self.commit_later()
        return done

    def commit_later(self) -> None:
        if self._pending_commit or self.away or not self._writes:
            return
        seconds = self.latency()
        if seconds:
            self._pending_commit = True
            self.clock.callLater(seconds, self._commit)
        else:
            self._commit()

    def _commit(self) -> None:
        self._pending_commit = False
        if self.away:
            return
        group, self._writes = self._writes, []
        for commit, _ in group:
            commit()
        for _, done in group:
            done.callback(None)
        self.commit_later()

    def back(self) -> None:
        self.away = False
        self.commit_later()

    @property
    def idle(self) -> bool:
        """Everything that was written is committed."""
        return not self._writes and not self._pending_commit

    def crash(self) -> None:
        """What was not committed is gone, and nobody will be told."""
        self._writes = []

    def accept(self, deliveries: Sequence[Delivery]) -> Deferred[None]:
        rows = [copy.copy(delivery) for delivery in deliveries]
        return self._write(lambda: self.rows.update({row.id: row for row in rows}))

    def record(self, attempt: Attempt | None, delivery: Delivery) -> Deferred[None]:
        if self.refuse_records:
            refused: Deferred[None] = Deferred()
            refused.errback(ValueError("poison"))
            return refused
        row = copy.copy(delivery)

        def commit() -> None:
            if attempt is not None:
                self.attempts.append(attempt)
            self.rows[row.id] = row

        return self._write(commit)

    async def look(self) -> None:
        """What was written before is committed, and a while later the reader looks."""
        await self._write(lambda: None)
        seconds = self.latency()
        if seconds:
            await deferLater(self.clock, seconds)

    async def _answer(self) -> None:
        if self.broken_reads:
            self.broken_reads -= 1
            raise OSError("the disk cannot be read")
        if self.answering is not None:
            await self.answering
        seconds = self.latency()
        if seconds:
            await deferLater(self.clock, seconds)

    def count_pending(self, webhook: str) -> int:
        """As the service counts it before it begins."""
        return sum(
            row.webhook == webhook and row.status is DeliveryStatus.PENDING for row in self.rows.values()
        )

    async def pending(self, webhook: str, now: Micros, exclude: Sequence[int], limit: int) -> list[Delivery]:
        self.reads.append((webhook, limit))
        await self.look()
        calls: dict[int, list[Delivery]] = {}
        for row in sorted(self.rows.values(), key=lambda row: row.id):
            if row.webhook == webhook and row.status is DeliveryStatus.PENDING:
                calls.setdefault(row.event.call, []).append(row)
        due = [rows for call, rows in calls.items() if rows[0].due_at <= now and call not in set(exclude)]
        found: list[Delivery] = []
        for rows in sorted(due, key=lambda rows: rows[0].due_at):
            if len(found) >= limit:
                break
            # Nothing is promised about the order within a call.
            found += [copy.copy(row) for row in reversed(rows)]
        await self._answer()
        return found

    async def next_due(self, webhook: str, after: Micros) -> Micros | None:
        await self.look()
        dues = [
            row.due_at
            for row in self.rows.values()
            if row.webhook == webhook and row.status is DeliveryStatus.PENDING and row.due_at > after
        ]
        await self._answer()
        return min(dues, default=None)

    async def disable_webhook(self, webhook: str, reason: str, at: Micros) -> None:
        self.disabled[webhook] = reason

    async def save_trouble(self, webhook: str, trouble: Trouble | None) -> None:
        if trouble is None:
            self.troubles.pop(webhook, None)
        else:
            self.troubles[webhook] = trouble

    async def settle(self, delivery: int, status: str) -> None:
        if self.refuse_settling:
            raise ValueError("poison")
        self.settled.append((delivery, status))
        self.rows[delivery].status = DeliveryStatus(status)

    def status(self, delivery: Delivery) -> DeliveryStatus:
        return self.rows[delivery.id].status


@implementer(ITransport)
class Scripted:
    """
    Answers as `answer(outbound)` says: a Sent, an exception to raise, or a Deferred to wait for.

    Without `answer` every exchange waits in `open` until the test fires it.
    """

    def __init__(self, answer: Callable[[Outbound], object] | None = None) -> None:
        self.answer = answer
        self.sent: list[Outbound] = []
        self.open: list[Deferred[Sent]] = []
        self.started = 0
        self.stopped = 0
        self.starting: Callable[[], Awaitable[None]] | None = None

    async def start(self) -> None:
        self.started += 1
        if self.starting is not None:
            await self.starting()

    async def deliver(self, outbound: Outbound) -> Sent:
        self.sent.append(outbound)
        if self.answer is None:
            waiting: Deferred[Sent] = Deferred()
            self.open.append(waiting)
            try:
                return await waiting
            finally:
                self.open.remove(waiting)
        answer = self.answer(outbound)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, Deferred):
            return await answer  # type: ignore[no-any-return]
        return answer  # type: ignore[return-value]

    async def stop(self) -> None:
        self.stopped += 1

    @property
    def ids(self) -> list[str]:
        """The events' ids in the order they were sent."""
        return [outbound.id for outbound in self.sent]


class Notes:
    """An observer that writes down what it is told."""

    def __init__(self) -> None:
        self.attempts: list[tuple[str, Delivery, Attempt]] = []
        self.holds: list[tuple[str, Micros, str]] = []
        self.releases: list[str] = []
        self.disables: list[tuple[str, str]] = []
        self.expiries: list[tuple[str, Delivery]] = []
        self.failures: list[tuple[str, Micros, str]] = []
        self.recoveries: list[tuple[str, Micros]] = []

    def attempted(self, webhook: config.Webhook, delivery: Delivery, attempt: Attempt) -> None:
        self.attempts.append((webhook.id, delivery, attempt))

    def held(self, webhook: config.Webhook, until: Micros, why: str) -> None:
        self.holds.append((webhook.id, until, why))

    def released(self, webhook: config.Webhook) -> None:
        self.releases.append(webhook.id)

    def expired(self, webhook: config.Webhook, delivery: Delivery) -> None:
        self.expiries.append((webhook.id, delivery))

    def failing(self, webhook: config.Webhook, since: Micros, why: str) -> None:
        self.failures.append((webhook.id, since, why))

    def recovered(self, webhook: config.Webhook, since: Micros) -> None:
        self.recoveries.append((webhook.id, since))

    def disabled(self, webhook: config.Webhook, reason: str) -> None:
        self.disables.append((webhook.id, reason))


class Desk:
    """A dispatcher on a fake clock, and the little that stands before it in the service."""

    def __init__(
        self,
        *webhooks: tuple[config.Webhook, Scripted],
        window: int = WINDOW,
        defaults: config.Delivery | None = None,
        clock: Clock | None = None,
        store: MemoryStore | None = None,
        ids: Ids | None = None,
        chance: Callable[[], float] = lambda: 0.5,
    ) -> None:
        self.clock = clock or Clock()
        self.ahead = 0.0
        self.store = store or MemoryStore(self.clock)
        self.ids = ids or Ids(lambda bits: 0)
        self.notes = Notes()
        self.dispatcher = Dispatcher(
            self.store,
            self.ids,
            self.now,
            chance,
            self.clock,
            defaults or config.Delivery(),
            self.notes,
            window=window,
        )
        for webhook, transport in webhooks:
            self.dispatcher.add(webhook, transport, self.store.count_pending(webhook.id))

    def now(self) -> Micros:
        return BASE + round((self.clock.seconds() + self.ahead) * 1_000_000)

    def set_clock(self, by: float) -> None:
        """Set the clock by which times are told, not the one that timers go by, by so many seconds."""
        self.ahead += by
        self.dispatcher.clock_set(round(by * 1_000_000))

    def start(self) -> Desk:
        _ = Deferred.fromCoroutine(self.dispatcher.start())
        return self

    def call(self) -> int:
        return self.ids.next(self.now())

    def event(
        self,
        call: int,
        sequence: int = 1,
        *,
        cube: str = "hq",
        granularity: Granularity = Granularity.CALL,
        state: CallState | None = None,
    ) -> Event:
        return Event(
            id=self.ids.next(self.now()),
            call=call,
            cube=cube,
            granularity=granularity,
            at=self.now(),
            payload=call_event(
                call_state=state or STATES[(sequence - 1) % 3],
                event_id=f"{id_text(call)}-{sequence}",
                call_id=id_text(call),
                sequence=sequence,
                cube=cube,
            ),
        )

    def happens(self, event: Event) -> list[Delivery]:
        """What the intake does of an event: commit its deliveries, then enqueue them."""
        deliveries = self.dispatcher.deliveries_for(event)
        _ = self.store.accept(deliveries).addCallback(lambda _: self.dispatcher.enqueue(deliveries))
        return deliveries

    def calls(self, count: int) -> list[Delivery]:
        """The first event of each of `count` new calls."""
        return [delivery for _ in range(count) for delivery in self.happens(self.event(self.call()))]

    def advance(self, seconds: float, step: float = 0.05) -> None:
        """Let time pass in small steps, so that what a timer starts has time to go on."""
        end = self.clock.seconds() + seconds
        while self.clock.seconds() < end - 1e-9:
            self.clock.advance(min(step, end - self.clock.seconds()))


def webhook(id: str = "crm", **settings: object) -> config.Webhook:
    return msgspec.structs.replace(config.Webhook(id=id), **settings)
